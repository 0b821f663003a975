"""Read the frames of any video, one after the other: a video file, or a folder of numbered pictures."""

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import imageio.v3 as iio
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from lvdm.runtime.errors import one_line

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# The exceptions that decoders raise for a damaged file. Pillow alone has most of them, depending on the damage.
DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)


class UnreadableVideoError(ValueError):
    """A video, or its record, cannot be read; the message begins with its path."""


def read_frames(path: Path, *, fps: float | None = None) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 of a video in order, with one of them in memory at a time.

    Args:
        path: a video file, or a folder of pictures.
        fps: at how many frames a second; None for every frame of the file once. Pictures of a folder are always read
            once.

    Raises:
        UnreadableVideoError: a frame cannot be decoded or has another size than the first, or there is no frame.
    """
    shape = None
    try:
        for number, frame in enumerate(_decode(path, fps)):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != (shape or (*frame.shape[:2], 3)):
                expected = shape or "(H, W, 3)"
                raise ValueError(f"frame {number} is {frame.dtype} {frame.shape}, expected uint8 {expected}")
            shape = frame.shape
            yield frame
    except DECODING_ERRORS as error:
        raise UnreadableVideoError(f"{path}: {first_line(error)}") from error
    if shape is None:
        raise UnreadableVideoError(f"{path}: it has no frames")


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size in bytes and modification time of a file, or of every picture in a folder.

    Two equal lists mean that the video has not changed. Raises UnreadableVideoError if a file is missing.
    """
    try:
        files = list_pictures(path) if path.is_dir() else [path]
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError as error:
        raise UnreadableVideoError(f"{path}: {one_line(error)}") from error


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder by the numbers in their names, so that 10 comes after 9."""
    pictures = (path for path in _list_files(folder) if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(pictures, key=_sort_key)


def is_frame_folder(path: Path, *, least: int) -> bool:
    """Return whether a folder holds at least `least` pictures and nothing else."""
    files = _list_files(path) if path.is_dir() else []
    return len(files) >= least and all(file.suffix.lower() in PICTURE_SUFFIXES and not file.is_dir() for file in files)


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or its class name if it has no message."""
    return str(error).partition("\n")[0] or type(error).__name__


def _decode(path: Path, fps: float | None) -> Iterator[np.ndarray]:
    if path.is_dir():
        return map(_read_picture, list_pictures(path))
    if path.suffix.lower() == ".gif" and fps is None:
        return iio.imiter(path, plugin="pillow", mode="RGB")
    return _decode_with_ffmpeg(path, fps)


def _read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode[0] in "IF":  # Pillow would clip the levels of these modes at 255
            raise ValueError(f"{path.name} does not have 8 bits a channel (Pillow's mode {image.mode})")
        return np.array(image.convert("RGB"))


def _decode_with_ffmpeg(path: Path, fps: float | None) -> Iterator[np.ndarray]:
    """Yield each frame of a file once, or frames at `fps`.

    By default ffmpeg repeats frames where the frame rate is not constant.

    Raises ValueError for a damaged file, at which ffmpeg by default stops as if the video ended there.
    """
    source = [get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", f"file:{path}", "-map", "0:v:0"]
    rate = ["-fps_mode", "passthrough"] if fps is None else ["-vf", f"fps={fps}"]
    target = [*rate, "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
    with TemporaryFile() as log:
        with subprocess.Popen(
            [*source, *target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        ) as ffmpeg:
            try:
                while ffmpeg.stdout.readline():  # a PPM: "P6", the size, the highest level, the pixels
                    width, height = map(int, ffmpeg.stdout.readline().split())
                    ffmpeg.stdout.readline()
                    frame = np.empty((height, width, 3), np.uint8)
                    if ffmpeg.stdout.readinto(frame) < frame.nbytes:
                        break
                    yield frame
                ffmpeg.wait()
            finally:
                ffmpeg.kill()  # the caller may want no more frames
        if ffmpeg.returncode != 0:
            log.seek(0)
            line = log.readline().decode(errors="replace").strip()
            raise ValueError(re.sub(r"^\[[^]]*\] ", "", line) or f"ffmpeg ended with status {ffmpeg.returncode}")


def _sort_key(path: Path) -> list[str | int]:
    parts = re.split(r"([0-9]+)", path.name)  # texts and numbers in turn, a text first
    return [int(part) if part.isdecimal() else part for part in parts]


def _list_files(folder: Path) -> list[Path]:
    """Return what is in a folder, without the files of file managers: .DS_Store, ._0.png, Thumbs.db."""
    return [path for path in folder.iterdir() if path.name[0] != "." and path.name != "Thumbs.db"]
