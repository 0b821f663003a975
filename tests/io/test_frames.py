"""Frames are read from video files and from folders of pictures, and damage is an error that names the file."""

from contextlib import suppress

import numpy as np
import pytest
from helpers import moving_pattern, write_h264, write_pictures
from PIL import Image

from lvdm.io.frames import UnreadableVideoError, read_frames
from lvdm.io.writers.gif import GifWriter


def test_decoded_frames_are_those_that_were_encoded(tmp_path):
    """The name has characters that ffmpeg treats specially, and only 4:4:4 video can have a size of 61x91."""
    frames = moving_pattern(12, height=61, width=91)
    path = write_h264(tmp_path / "a:%03d #1.mkv", frames, "-pix_fmt", "yuv444p")
    read = list(read_frames(path))
    assert np.abs(np.array(read, int) - np.array(frames, int)).mean() < 6
    assert read[0].flags.writeable
    with pytest.raises(StopIteration):  # closing the iterator early stops ffmpeg
        (lambda frames: (next(frames), frames.close(), next(frames)))(read_frames(path))


@pytest.mark.parametrize("damage", ["cut", "holes", "no video", "empty"])
def test_a_damaged_video_file_is_an_error_and_not_a_shorter_video(damage, tmp_path):
    path = write_h264(tmp_path / "a.mp4", moving_pattern(40), "-movflags", "+faststart")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) * 2 // 3]
    elif damage == "holes":
        middle = len(data) // 2
        data[middle : middle + 3000] = bytes(3000)
    elif damage == "no video":
        data = bytearray(b"words")
    else:
        data.clear()
    path.write_bytes(data)
    with pytest.raises(UnreadableVideoError, match=r"^[^\[]*a\.mp4: \w"):
        list(read_frames(path))


def test_a_damaged_gif_is_an_error_or_a_shorter_video(tmp_path):
    with GifWriter(tmp_path / "a.gif", fps=8, comment="") as sink:
        for frame in moving_pattern(3, height=16, width=24):
            sink.write(frame)
    data = (tmp_path / "a.gif").read_bytes()
    for length in range(1, len(data) - 1, 17):
        (tmp_path / "cut.gif").write_bytes(data[:length])
        with suppress(UnreadableVideoError):
            assert len(list(read_frames(tmp_path / "cut.gif"))) <= 3


def test_pictures_of_another_size_or_depth_are_errors(tmp_path):
    sizes = write_pictures(tmp_path / "sizes", [*moving_pattern(3), *moving_pattern(1, height=32)])
    with pytest.raises(UnreadableVideoError, match=r"sizes: frame 3 is uint8 \(32, 96, 3\), expected uint8 \(64, 96"):
        list(read_frames(sizes))
    deep = write_pictures(tmp_path / "deep", moving_pattern(2))
    Image.fromarray(moving_pattern(1)[0][..., 0].astype(np.uint16) * 257).save(deep / "1.png")
    with pytest.raises(UnreadableVideoError, match=r"deep: 1\.png does not have 8 bits"):
        list(read_frames(deep))
