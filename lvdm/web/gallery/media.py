"""Prepare what the page plays: MP4s of which the number of frames, the frame rate and the size are known."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageSequence

from lvdm.io.frames import DECODING_ERRORS, first_line
from lvdm.io.mp4_boxes import Box, boxes_within, fields
from lvdm.io.results import Result
from lvdm.io.writers.mp4 import Mp4Writer
from lvdm.runtime.progress import progress_bar


@dataclass(frozen=True)
class Movie:
    """An MP4 file: its number of frames, frames per second, and size in pixels."""

    path: Path
    frames: int
    fps: float
    width: int
    height: int

    @classmethod
    def read(cls, path: Path) -> "Movie":
        """Read the headers of an MP4, without decoding frames; ValueError if it is not a complete MP4 with a video."""
        try:
            with path.open("rb") as file:
                movies = list(boxes_within(file, "moov", 0, path.stat().st_size))  # reads to the end of the file
                for movie in movies:
                    for track in boxes_within(file, "trak", movie.content, movie.end):
                        if found := cls._of_track(path, file, track):
                            return found
        except struct.error:
            pass  # the file is cut off
        raise ValueError(f"{path} is not a complete MP4 with a video")

    @classmethod
    def _of_track(cls, path: Path, file: BinaryIO, track: Box) -> "Movie | None":
        """Return None if the track is no video, or has no frames in its header, as in a file that is still growing."""
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


def find_movies(results: Sequence[Result], folder: Path) -> tuple[dict[Path, Movie], list[str]]:
    """Return the MP4 of each result, made in `folder` if there is only a GIF, and show the progress on stderr.

    Returns:
        The MP4s by the folders of the results, and a message for each video that cannot be read.
    """
    movies, problems = {}, []
    for result in progress_bar(results, desc="reading", unit="video"):
        try:
            path = result.find_movie()
        except FileNotFoundError as error:
            problems.append(str(error))
            continue
        try:
            movies[result.folder] = Movie.read(path) if path.suffix == ".mp4" else from_gif(path, folder)
        except DECODING_ERRORS as error:
            problems.append(f"{result.folder}: {first_line(error)}")
    return movies, problems


def from_gif(gif: Path, folder: Path) -> Movie:
    """Return an MP4 in `folder` with the frames of a GIF, in which no browser can stop at a frame; make it if needed.

    The file is named after the content of the GIF. An odd last row or column of pixels is left out, since H.264 with
    4:2:0 has even sides. Raises one of lvdm.io.frames.DECODING_ERRORS if the GIF cannot be read.
    """
    path = folder / f"{hashlib.sha256(gif.read_bytes()).hexdigest()[:32]}.mp4"
    if not path.exists():
        with Image.open(gif) as image:
            milliseconds = sum(frame.info.get("duration", 100) for frame in ImageSequence.Iterator(image))
            fps = max(1, round(1000 * image.n_frames / max(1, milliseconds)))
            with Mp4Writer(path, fps=fps, comment=f"from {gif.name}") as writer:
                for frame in ImageSequence.Iterator(image):
                    width, height = (side - side % 2 for side in frame.size)
                    writer.write(np.asarray(frame.convert("RGB"))[:height, :width])
    return Movie.read(path)
