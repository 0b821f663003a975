"""Fragmented MP4 (ISO 14496-12) that grows: every few frames are an H.264 stream of their own, in one fragment.

A fragment does not depend on those before it: a file that was stopped goes on as if it had not been.
"""

import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

FRAGMENTED = ["-movflags", "frag_keyframe+empty_moov+default_base_moof+skip_trailer"]
WHOLE = ["-movflags", "+faststart"]


def encode(frames: Sequence[np.ndarray], *, first: int, fps: int, crf: int, comment: str) -> bytes:
    """What to append to a file that holds `first` frames, for `frames` (H, W, 3) uint8 to follow, as H.264 with 4:2:0.

    With `first` 0 that begins with the head of a file, which has the `comment`. OSError tells what ffmpeg said.
    """
    height, width, _ = frames[0].shape
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    # BT.709, and said so: without a tag players guess the matrix from the size, and colours shift. Newer ffmpegs
    # take the tag from the frames, older ones from the command line.
    convert = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"
    frame_tag = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    file_tag = "-colorspace bt709 -color_primaries bt709 -color_trc bt709"
    colors = f"-vf {convert},{frame_tag} {file_tag}"
    # One group of pictures without B-frames: frames are shown in the order in which they are decoded. What is
    # stitchable has the same headers each time.
    codec = f"-c:v libx264 -crf {crf} -pix_fmt yuv420p -bf 0 -sc_threshold 0 -g {len(frames)} -threads 1"
    clock = f"-x264-params stitchable=1 -video_track_timescale {fps}"  # a tick is a frame
    arguments = [*f"{source} {colors} {codec} {clock}".split(), "-metadata", f"comment={comment}", *FRAGMENTED]
    data = bytearray(run_ffmpeg([*arguments, "-f", "mp4", "-"], b"".join(map(np.ascontiguousarray, frames))))
    boxes = list(_boxes(data, 0, len(data)))
    for kind, start, end in boxes:
        if kind == b"moof":
            _move(data, start + 8, end, first)
    return b"".join(data[start:end] for kind, start, end in boxes if first == 0 or kind not in (b"ftyp", b"moov"))


def remux(source: Path, target: Path, *, layout: Sequence[str], fps: int) -> None:
    """Copies an MP4 into the `layout` WHOLE (for players) or FRAGMENTED (to append to)."""
    clock = ["-video_track_timescale", str(fps)]
    run_ffmpeg(["-i", f"file:{source}", "-c", "copy", *clock, *layout, "-f", "mp4", f"file:{target}"])


def end_of(file: BinaryIO, frames: int) -> int | None:
    """How many bytes of a fragmented MP4 hold its first `frames`; None if no fragment ends with them."""
    end = seen = 0
    kind = b""
    while frames > 0 and (kind != b"mdat" or seen < frames):
        file.seek(end)
        header = file.read(8)
        size, kind = struct.unpack(">I4s", header) if len(header) == 8 else (0, b"")
        if size < 8:
            return None
        if kind == b"moof":
            seen += _frames_in(file.read(size - 8))
        end += size
    return end if seen == frames and end <= file.seek(0, os.SEEK_END) else None


def run_ffmpeg(arguments: Sequence[str], data: bytes = b"") -> bytes:
    """What ffmpeg writes to its standard output, with `data` at its standard input."""
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
    # a session of its own: Ctrl-C is for this process, which then lets it finish
    done = subprocess.run(command, input=data, capture_output=True, start_new_session=True, check=False)
    if done.returncode != 0:
        message = " ".join(done.stderr.decode(errors="replace").split())
        raise OSError(f"ffmpeg ended with status {done.returncode}: {message[-500:]}")
    return done.stdout


def _frames_in(moof: bytes) -> int:
    """How many frames a fragment has, by the content of its moof."""
    tracks = [(start, end) for kind, start, end in _boxes(moof, 0, len(moof)) if kind == b"traf"]
    runs = [box for start, end in tracks for box in _boxes(moof, start + 8, end) if box[0] == b"trun"]
    return sum(struct.unpack_from(">I", moof, start + 12)[0] for _, start, _ in runs)


def _boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte, last byte + 1) of the boxes that stand side by side in this part of `data`."""
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + size
        start += size


def _move(data: bytearray, start: int, end: int, first: int) -> None:
    """Makes the fragment, whose boxes stand in this part of `data`, begin at frame `first`."""
    for kind, box, box_end in _boxes(data, start, end):
        content = box + 12  # behind size, kind, version and flags
        if kind == b"traf":
            _move(data, box + 8, box_end, first)
        elif kind == b"mfhd":
            struct.pack_into(">I", data, content, first + 1)  # fragments have rising numbers
        elif kind == b"tfdt":
            struct.pack_into(">Q" if data[box + 8] else ">I", data, content, first)  # decode time; version 1 or 0
