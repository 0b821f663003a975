"""Video files as the page needs them: an MP4 whose frames, rate and size are known."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageSequence

from lvdm.io.writers.mp4 import Mp4Writer


@dataclass(frozen=True)
class Clip:
    """An MP4 file: how many frames it has, how many of them a second, and its size in pixels."""

    path: Path
    frames: int
    fps: float
    width: int
    height: int

    @classmethod
    def read(cls, path: Path) -> "Clip":
        """What the file says of itself; no frame is decoded. ValueError if it is no whole MP4 with a video in it."""
        try:
            with path.open("rb") as file:
                movies = list(_children(file, b"moov", 0, path.stat().st_size))  # to its end: is it whole?
                for movie in movies:
                    for track in _children(file, b"trak", *movie):
                        if clip := cls._of_track(path, file, track):
                            return clip
        except struct.error:
            pass  # something ends before all of it is there
        raise ValueError(f"{path} is not a whole MP4 with a video in it")

    @classmethod
    def _of_track(cls, path: Path, file: BinaryIO, track: tuple[int, int]) -> "Clip | None":
        """None if the track is not a video, or one without frames of its own, as of a file that still grows."""
        handler, header, times = (
            next(_children(file, kinds, *track), None) for kinds in (b"mdia hdlr", b"mdia mdhd", b"mdia minf stbl stts")
        )
        if not (handler and header and times) or _read(file, ">8x4s", handler) != (b"vide",):
            return None
        (version,) = _read(file, ">B", header)
        (ticks_per_second,) = _read(file, ">20xI" if version else ">12xI", header)
        (entries,) = _read(file, ">4xI", times)
        counts = _read(file, f">8x{2 * entries}I", times)  # how many frames, for how many ticks each
        frames = sum(counts[::2])
        ticks = sum(count * duration for count, duration in zip(counts[::2], counts[1::2], strict=True))
        _, end = next(_children(file, b"tkhd", *track))
        width, height = _read(file, ">II", (end - 8, end))  # in 1/65536 pixels
        if not (frames and ticks and ticks_per_second and width and height):
            return None
        return cls(path, frames, ticks_per_second * frames / ticks, width >> 16, height >> 16)


def from_gif(gif: Path, folder: Path) -> Clip:
    """An MP4 in `folder` with the frames of `gif`, which no browser can stop at a frame; made if it is not there yet.

    The file is named after the content. An odd last row or column of pixels is left out: H.264 has none. One of
    lvdm.evaluation.reading.BROKEN if the GIF cannot be read.
    """
    path = folder / f"{hashlib.sha256(gif.read_bytes()).hexdigest()[:32]}.mp4"
    if not path.exists():
        with Image.open(gif) as image:
            milliseconds = sum(frame.info.get("duration", 100) for frame in ImageSequence.Iterator(image))
            fps = max(1, round(1000 * image.n_frames / max(1, milliseconds)))
            with Mp4Writer(path, fps=fps, comment=f"from {gif.name}") as sink:
                for frame in ImageSequence.Iterator(image):
                    width, height = (side - side % 2 for side in frame.size)
                    sink.write(np.asarray(frame.convert("RGB"))[:height, :width])
    return Clip.read(path)


def _children(file: BinaryIO, kinds: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The contents (first byte, last byte + 1) of the boxes of these `kinds`, one inside the other (ISO 14496-12).

    struct.error if a box goes on behind what it is in.
    """
    kind, _, inner = kinds.partition(b" ")
    while start < end:
        size, found = _read(file, ">I4s", (start, end))
        content = start + 8
        if size == 1:  # the size stands behind the kind, in 64 bits
            (size,) = _read(file, ">Q", (content, end))
            content += 8
        size = size or end - start  # 0: up to the end
        if size < content - start or start + size > end:
            raise struct.error("cut off")
        if found == kind and inner:
            yield from _children(file, inner, content, start + size)
        elif found == kind:
            yield content, start + size
        start += size


def _read(file: BinaryIO, layout: str, part: tuple[int, int]) -> tuple:
    """The fields at the beginning of a part of the file; struct.error if it is shorter than they are."""
    start, end = part
    file.seek(start)
    return struct.unpack(layout, file.read(min(struct.calcsize(layout), end - start)))
