"""Every kind of file that a video is written to: content, resuming, errors."""

import tracemalloc
from contextlib import suppress

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from lvdm.io.files import remove
from lvdm.io.images import to_uint8
from lvdm.io.writers.base import LostFileError
from lvdm.io.writers.gif import GifWriter
from lvdm.io.writers.mp4 import Mp4Writer
from lvdm.io.writers.png import PngWriter
from lvdm.io.writers.sheet import ContactSheetWriter
from lvdm.io.writers.video_files import open_files

COMMENT = "a cat, 4k; über = {größer} 'x' \"y\" \\ 猫 | seed 321 | mode t2v_TTqcache_attn1 " + "long " * 100 + "end"
COLORS = ((224, 40, 40), (40, 176, 60), (48, 80, 240), (248, 216, 32), (160, 50, 208))


def flat_frame(number, *, height=64, width=96):
    """Return a square on a plain background; both colours change with the frame."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = COLORS[number % 5]
    frame[16:48, 16:48] = COLORS[(number + 1) % 5]
    return frame


def write_video(folder, *, frames, formats=("gif", "mp4"), save_frames=True, stop_after=None):
    with open_files(folder, "try.1", formats=formats, fps=12, comment=COMMENT, save_frames=save_frames) as video:
        for number in range(frames):
            if number == stop_after:
                raise KeyboardInterrupt
            video.write(flat_frame(number))


def write_movie(path, *, fps):
    with Mp4Writer(path, fps=fps, comment="") as writer:
        for number in range(100):
            writer.write(flat_frame(number))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_video_in_every_format(tmp_path):
    folder = tmp_path / "a_cat-12345678" / "try.1"
    write_video(folder, frames=30)
    pictures = [f"fifo/{number:05d}.png" for number in range(30)]
    assert files(folder) == [*pictures, "try.1.gif", "try.1.mp4", "try.1.png"]
    expected = np.stack([flat_frame(number) for number in range(30)])

    assert np.array_equal(np.stack([iio.imread(folder / name) for name in pictures]), expected)

    with Image.open(folder / "try.1.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (30, (96, 64), 0)
        assert gif.info["comment"].decode() == COMMENT
        durations = []
        for number in range(30):
            gif.seek(number)
            durations.append(gif.info["duration"])
            assert np.array_equal(np.asarray(gif.convert("RGB")), expected[number])  # flat colours are exact
    assert sum(durations) == 2500  # milliseconds: 30 frames at 12 frames a second
    assert set(durations) == {80, 90}

    movie = iio.imread(folder / "try.1.mp4", plugin="FFMPEG")
    assert movie.shape == expected.shape
    inside = np.s_[:, 20:44, 20:44]  # away from the edges, where chroma is shared by four pixels
    assert np.abs(movie[inside].astype(int) - expected[inside]).max() <= 6
    meta = iio.immeta(folder / "try.1.mp4", plugin="FFMPEG")
    assert (meta["codec"], meta["fps"]) == ("h264", 12)
    assert meta["pix_fmt"].startswith("yuv420p(tv, bt709")
    assert "unknown" not in meta["pix_fmt"]  # matrix, primaries and transfer are all told
    assert COMMENT.encode() in (folder / "try.1.mp4").read_bytes()


def test_tensors_become_frames():
    frame = np.arange(8 * 32 * 3, dtype=np.uint16).reshape(8, 32, 3).astype(np.uint8)  # every level
    picture = torch.from_numpy(frame).permute(2, 0, 1) / 127.5 - 1
    assert np.array_equal(to_uint8(picture + 0.01 / 127.5), frame)
    assert np.array_equal(to_uint8(picture + 0.99 / 127.5), np.minimum(frame, 255))  # cut off, not rounded
    assert to_uint8(torch.tensor([[[-9.0]], [[0.0]], [[9.0]]])).tolist() == [[[0, 127, 255]]]


def test_only_what_was_asked_for(tmp_path):
    write_video(tmp_path, frames=1, formats=("gif",), save_frames=False)
    assert files(tmp_path) == ["try.1.gif", "try.1.png"]
    assert np.array_equal(iio.imread(tmp_path / "try.1.gif", index=0), flat_frame(0))


@pytest.mark.parametrize("stop_after", [0, 1, 20])
def test_a_stopped_run_leaves_the_files_of_the_one_before(tmp_path, stop_after):
    write_video(tmp_path, frames=2)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path, frames=30, stop_after=stop_after)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "try.1.gif", "try.1.mp4", "try.1.png"]


def test_a_new_run_replaces_everything(tmp_path):
    write_video(tmp_path, frames=5)
    (tmp_path / "fifo.partial").mkdir()
    (tmp_path / "fifo.partial" / "00009.png").touch()  # of a run that was killed
    write_video(tmp_path, frames=2)
    assert files(tmp_path) == ["fifo/00000.png", "fifo/00001.png", "try.1.gif", "try.1.mp4", "try.1.png"]
    assert imageio_ffmpeg.count_frames_and_secs(tmp_path / "try.1.mp4")[0] == 2


def test_an_error_of_ffmpeg_is_reported_and_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match=r"b\.mp4: ffmpeg ended with status [1-9].*-3"):
        write_movie(tmp_path / "b.mp4", fps=-3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(2, 2), (18, 34), (66, 130)])
def test_mp4_takes_any_even_size(tmp_path, size):
    with Mp4Writer(tmp_path / "a.mp4", fps=30, comment="") as writer:
        writer.write(np.full((*size, 3), 128, np.uint8))
    assert iio.imread(tmp_path / "a.mp4", plugin="FFMPEG").shape == (1, *size, 3)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((64, 96, 3), "float32"), ((64, 96), "uint8"), ((3, 64, 96), "uint8"), ((32, 96, 3), "uint8")],
)
def test_frames_of_another_kind_are_refused(tmp_path, shape, dtype):
    with GifWriter(tmp_path / "a.gif", fps=8, comment="") as writer:
        writer.write(flat_frame(0))
        with pytest.raises(ValueError, match=r"a\.gif") as caught:
            writer.write(np.zeros(shape, dtype))
    assert str(shape) in str(caught.value)
    assert iio.imread(tmp_path / "a.gif").shape == (1, 64, 96, 3)


def test_a_video_without_frames_leaves_no_file(tmp_path):
    for writer in (GifWriter(tmp_path / "a.gif", fps=8, comment=""), Mp4Writer(tmp_path / "a.mp4", fps=8, comment="")):
        with pytest.raises(ValueError, match="no frame was written"), writer:
            pass
    with (
        pytest.raises(ValueError, match="even sides, not 63x96"),
        Mp4Writer(tmp_path / "a.mp4", fps=8, comment="") as writer,
    ):
        writer.write(flat_frame(0, height=63))
    assert list(tmp_path.iterdir()) == []


def test_gif_holds_noisy_and_natural_colours(tmp_path):
    rng = np.random.default_rng(0)
    noisy = np.clip(flat_frame(0) + rng.normal(0, 2, (64, 96, 3)), 0, 255).round().astype(np.uint8)
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[0:256:4, 0:255:2.65625], 128), axis=-1).astype(np.uint8)
    with GifWriter(tmp_path / "a.gif", fps=8, comment="") as writer:
        writer.write(noisy)
        writer.write(ramp)
    read = iio.imread(tmp_path / "a.gif").astype(int)
    assert np.abs(read[0] - noisy).mean() < 0.5
    assert np.abs(read[1] - ramp).mean() < 4


def test_queue_frames_are_named_by_pass_and_slot(tmp_path):
    with PngWriter(tmp_path / "queue", slots=3) as writer:
        for number in range(6):
            writer.write(flat_frame(number))
    assert files(tmp_path / "queue") == [f"{turn:05d}_{slot:03d}.png" for turn in (0, 1) for slot in (0, 1, 2)]
    assert np.array_equal(iio.imread(tmp_path / "queue" / "00001_002.png"), flat_frame(5))


@pytest.mark.parametrize(("frames", "tiles", "stride"), [(1, 1, 1), (5, 5, 1), (24, 24, 1), (25, 13, 2), (100, 13, 8)])
def test_contact_sheet(tmp_path, frames, tiles, stride):
    with ContactSheetWriter(tmp_path / "a.png") as writer:
        for number in range(frames):
            writer.write(flat_frame(number))
    sheet = iio.imread(tmp_path / "a.png")
    rows, columns = -(-tiles // 6), min(6, tiles)
    assert sheet.shape == (rows * 66 - 2, columns * 98 - 2, 3)
    for index in range(tiles):
        row, column = divmod(index, columns)
        tile = sheet[row * 66 :, column * 98 :][:64, :96]
        assert np.array_equal(tile[16:], flat_frame(index * stride)[16:])
        assert not np.array_equal(tile[:16], flat_frame(index * stride)[:16])  # the number


def test_a_picture_comes_first_on_the_sheet(tmp_path):
    with ContactSheetWriter(tmp_path / "a.png", picture=flat_frame(200)) as writer:
        for number in range(100):
            writer.write(flat_frame(number))
    sheet = iio.imread(tmp_path / "a.png")
    for index, expected in enumerate([200, 0, 8, 16]):
        assert np.array_equal(sheet[16:64, 98 * index :][:, :96], flat_frame(expected)[16:])


def test_tiles_show_the_numbers_of_their_frames(tmp_path):
    tiles = {}
    for frames in (5, 25):
        with ContactSheetWriter(tmp_path / "a.png") as writer:
            for _ in range(frames):
                writer.write(np.full((64, 96, 3), 100, np.uint8))
        sheet = iio.imread(tmp_path / "a.png")
        tiles[frames] = [sheet[:64, 98 * column :][:, :96] for column in range(5)]
    assert np.array_equal(tiles[25][1], tiles[5][2])
    assert np.array_equal(tiles[25][2], tiles[5][4])
    assert not np.array_equal(tiles[5][2], tiles[5][4])
    assert tiles[5][4].min() == 0
    assert tiles[5][4].max() > 200


def write_more(folder, until, progress, *, stopped):
    """Write a video in every format up to frame `until`, resuming at `progress`; return the new progress.

    stopped: by Ctrl-C, two frames after the last that was synchronised.
    """
    start = int(progress["gif"]["count"]) if progress else 0
    forms = {"formats": ("gif", "mp4"), "save_frames": True, "queue_slots": 2, "picture": flat_frame(77)}
    with (
        suppress(KeyboardInterrupt),
        open_files(folder, "a", fps=12, comment=COMMENT, resume_from=progress, **forms) as video,
    ):
        for number in range(start, until):
            if stopped and number == until - 2:
                progress = video.sync()
            video.write(flat_frame(number))
            video.write_queue([flat_frame(number), flat_frame(number + 1)])
        if stopped:
            raise KeyboardInterrupt
        progress = video.sync()
    return progress


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("ends", [(3,), (14,), (18, 26)])
def test_a_resumed_video_has_the_files_of_an_uninterrupted_one(tmp_path, stopped, ends):
    """Stopped and resumed, or complete and extended: in the end the files are byte for byte those of one run."""
    write_more(tmp_path / "straight", 30, None, stopped=False)
    progress = None
    for end in ends:
        progress = write_more(tmp_path / "again", end, progress, stopped=stopped)
        names = {path.name for path in (tmp_path / "again").iterdir()}
        assert names == ({"a.partial.gif", "a.partial.mp4", "fifo.partial", "queue.partial"} if stopped else
                         {"a.gif", "a.mp4", "a.png", "fifo", "queue"})  # fmt: skip
        movie = "a.partial.mp4" if stopped else "a.mp4"
        assert len(iio.imread(tmp_path / "again" / movie, plugin="FFMPEG")) == end  # it can be played as it is
    write_more(tmp_path / "again", 30, progress, stopped=False)
    assert files(tmp_path / "again") == files(tmp_path / "straight")
    for name in files(tmp_path / "straight"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["a.partial.gif", "a.partial.mp4", "fifo.partial/00005.png", "queue.partial"])
def test_a_file_that_was_lost_or_changed_is_not_resumed(tmp_path, name):
    progress = write_more(tmp_path, 20, None, stopped=True)
    place = tmp_path / name
    if name.endswith(("gif", "mp4")):
        place.write_bytes(place.read_bytes()[:3000])
    else:
        remove(place)
    with pytest.raises(LostFileError, match="--overwrite"):
        write_more(tmp_path, 30, progress, stopped=False)


def test_large_frames_are_scaled_down_on_the_sheet(tmp_path):
    with ContactSheetWriter(tmp_path / "a.png") as writer:
        writer.write(flat_frame(0, height=320, width=512))
    assert iio.imread(tmp_path / "a.png").shape == (160, 256, 3)


def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path):
    """400 frames are 7 MiB; less than a tenth of the last 300 may stay in memory."""
    frame = flat_frame(0)
    with open_files(tmp_path, "a", formats=("gif", "mp4"), fps=12, comment="", save_frames=True) as writer:
        tracemalloc.start()
        for number in range(400):
            writer.write(frame)
            if number == 99:
                before, _ = tracemalloc.get_traced_memory()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert after - before < 300 * frame.nbytes / 10
