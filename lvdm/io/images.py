"""Pictures that a video begins from: found, checked, and made the size of the video."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lvdm.io.files import file_digest
from lvdm.io.mp4 import run_ffmpeg

FITS = ("crop", "pad", "stretch")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow's names; it knows others that run programs
MIN_SIDE, MAX_SIDE, MAX_PIXELS = 16, 16384, 100_000_000

ORIENTATION = 0x0112  # the EXIF tag; its values from 2 on, and what makes such a picture upright
UPRIGHT = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)


@dataclass(frozen=True)
class Picture:
    """Where a picture comes from: its file, and the SHA-256 of that file as hex digits."""

    path: Path
    digest: str

    @classmethod
    def find(cls, name: str, *, folder: Path) -> "Picture":
        """The picture `name`, looked up in `folder` and then in the working directory, read once to see that it can be.

        Raises ValueError with a sentence that begins with the name.
        """
        places = list(dict.fromkeys([folder / name, Path(name)]))  # once if that is the same
        try:
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                other = next((f"{place} is no file" for place in places if place.exists()), "")
                raise ValueError(other or f"there is no such picture; looked for {' and '.join(map(str, places))}")
            picture = cls(path, file_digest(path))
            picture.open()
        except (OSError, ValueError) as error:
            raise ValueError(f"{name!r}: {error}") from error
        return picture

    def open(self) -> Image.Image:
        """The picture, upright, in RGB, on white where it is transparent; the first one of a video.

        Raises ValueError if it cannot be read, or is too small or too large.
        """
        with _damages_as_errors():
            image = _first_frame(self.path)
        _check_size(*image.size)
        with _damages_as_errors():
            return _flat(_upright(image))

    def read(self, height: int, width: int, *, fit: str) -> np.ndarray:
        """(height, width, 3) uint8. fit: "crop", "pad" (with black) or "stretch" what has another shape.

        Raises ValueError if the file is not the one that was found.
        """
        if file_digest(self.path) != self.digest:
            raise ValueError(f"the picture {str(self.path)!r} was changed after this run had begun")
        return np.asarray(fitted(self.open(), height, width, fit=fit))


def fitted(image: Image.Image, height: int, width: int, *, fit: str) -> Image.Image:
    """`image` resized to height x width, its centre in the centre."""
    size, method = (width, height), Image.Resampling.BICUBIC
    if fit == "crop":
        return ImageOps.fit(image, size, method)
    if fit == "stretch":
        return image.resize(size, method)
    scale = min(width / image.width, height / image.height)
    inner = image.resize([max(1, round(scale * side)) for side in image.size], method)
    padded = Image.new("RGB", size)
    padded.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return padded


def as_tensor(picture: np.ndarray) -> Tensor:
    """(1, 3, H, W) in [-1, 1] of a picture (H, W, 3) uint8."""
    return torch.tensor(picture).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_uint8(picture: Tensor) -> np.ndarray:
    """Return a picture (3, H, W) in about [-1, 1] as a frame (H, W, 3) uint8; levels are cut off, not rounded."""
    levels = ((picture.float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()


@contextmanager
def _damages_as_errors() -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError:
        raise ValueError(f"has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(
            "cannot be read: its content is no PNG, JPEG, WebP, GIF or BMP picture, and no video"
        ) from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        reason = " ".join(str(error).split())[-200:]  # ffmpeg says the important thing last
        raise ValueError(f"cannot be read as a picture or video: {reason}") from error


def _first_frame(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at next
            return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        if not _is_video(path):
            raise
    first = ["-frames:v", "1", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    return Image.open(BytesIO(run_ffmpeg(["-i", f"file:{path}", *first])), formats=["PPM"])


def _is_video(path: Path) -> bool:
    """MP4 and MOV, WebM and Matroska, or AVI, by the file's first bytes. (ffmpeg would draw any text it is given.)"""
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] in (b"ftyp", b"moov", b"mdat") or head[:4] == b"\x1a\x45\xdf\xa3" or head[8:] == b"AVI "


def _check_size(width: int, height: int) -> None:
    if not MIN_SIDE <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise ValueError(f"is {width} x {height} pixels; sides may have from {MIN_SIDE} to {MAX_SIDE}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"has {width} x {height}, more than {MAX_PIXELS:,} pixels")


def _upright(image: Image.Image) -> Image.Image:
    method = UPRIGHT.get(image.getexif().get(ORIENTATION))
    return image if method is None else image.transpose(method)


def _flat(image: Image.Image) -> Image.Image:
    """In RGB, over white."""
    if image.mode.startswith("I"):  # grey PNGs of 16 bits
        levels = np.asarray(image)
        grey = (levels // 257).astype(np.uint8)
        grey[levels == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white
