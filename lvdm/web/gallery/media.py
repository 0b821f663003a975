"""Video files as the page needs them: an MP4 whose frames, rate and size are known."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageSequence

from lvdm.io.mp4_boxes import Box, boxes_within, fields
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
                movies = list(boxes_within(file, "moov", 0, path.stat().st_size))  # to its end: is it whole?
                for movie in movies:
                    for track in boxes_within(file, "trak", movie.content, movie.end):
                        if clip := cls._of_track(path, file, track):
                            return clip
        except struct.error:
            pass  # something ends before all of it is there
        raise ValueError(f"{path} is not a whole MP4 with a video in it")

    @classmethod
    def _of_track(cls, path: Path, file: BinaryIO, track: Box) -> "Clip | None":
        """None if the track is not a video, or one without frames of its own, as of a file that still grows."""
        handler, header, times, track_header = (
            next(boxes_within(file, kinds, track.content, track.end), None)
            for kinds in ("mdia hdlr", "mdia mdhd", "mdia minf stbl stts", "tkhd")
        )
        if not (handler and header and times and track_header) or fields(file, ">8x4s", handler) != (b"vide",):
            return None
        (version,) = fields(file, ">B", header)
        (ticks_per_second,) = fields(file, ">20xI" if version else ">12xI", header)
        (entries,) = fields(file, ">4xI", times)
        counts = fields(file, f">8x{2 * entries}I", times)  # how many frames, for how many ticks each
        frames = sum(counts[::2])
        ticks = sum(count * duration for count, duration in zip(counts[::2], counts[1::2], strict=True))
        width, height = fields(file, ">II", track_header._replace(content=track_header.end - 8))  # in 1/65536 pixels
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
