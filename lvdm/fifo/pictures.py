"""Pictures that a video begins from: found, checked, and made the size of the video."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FITS = ("crop", "pad", "stretch")
MIN_SIDE, MAX_SIDE = 16, 16384  # pixels
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")


@dataclass(frozen=True)
class Picture:
    """Where a picture comes from: its file, and the SHA-256 of that file as hex digits."""

    path: Path
    digest: str

    @classmethod
    def find(cls, name: str, *, folder: Path) -> "Picture":
        """The picture `name`, looked up in `folder` and then in the working directory, read once to see that it can be.

        Raises FileNotFoundError or ValueError with a sentence that begins with the name.
        """
        places = [Path(name)] if Path(name).is_absolute() else [folder / name, Path(name)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"{name!r}: there is no such picture; looked for {' and '.join(map(str, places))}")
        try:
            picture = cls(path, hashlib.sha256(path.read_bytes()).hexdigest())
            picture.open()
        except (OSError, ValueError) as error:
            raise ValueError(f"{name!r}: {error}") from error
        return picture

    def open(self) -> Image.Image:
        """The picture, upright, in RGB, on white where it is transparent; the first one of a video.

        Raises ValueError if it cannot be read, or is too small or too large.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about many pixels: the size is checked here
                image = _first_frame(self.path)
                _check_size(image.size)
                return _flat(ImageOps.exif_transpose(image))
        except Image.DecompressionBombError:
            raise ValueError(f"has too many pixels; sides may have up to {MAX_SIDE}") from None
        except (OSError, SyntaxError, EOFError, RuntimeError, IndexError, StopIteration) as error:  # of damaged files
            reason = " ".join(str(error).split())
            raise ValueError(f"cannot be read as a picture (PNG, JPEG, WebP, GIF or a video): {reason}") from error

    def read(self, height: int, width: int, *, fit: str) -> Tensor:
        """(1, 3, height, width) in [-1, 1]. fit: "crop", "pad" (with black) or "stretch" what has another shape."""
        return as_tensor(fitted(self.open(), height, width, fit=fit))


def fitted(image: Image.Image, height: int, width: int, *, fit: str) -> Image.Image:
    """`image` resized to height x width, centred."""
    size, method = (width, height), Image.Resampling.BICUBIC
    if fit == "crop":
        return ImageOps.fit(image, size, method)
    if fit == "pad":
        return ImageOps.pad(image, size, method)
    return image.resize(size, method)


def as_tensor(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [-1, 1] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def _first_frame(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise OSError("the file's content is of no picture format") from None
        return Image.fromarray(next(iio.imiter(path, plugin="FFMPEG")))


def _check_size(size: tuple[int, int]) -> None:
    if not MIN_SIDE <= min(size) <= max(size) <= MAX_SIDE:
        width, height = size
        raise ValueError(f"is {width} x {height} pixels; sides may have from {MIN_SIDE} to {MAX_SIDE}")


def _flat(image: Image.Image) -> Image.Image:
    """In RGB, over white. Sixteen bits a level become eight."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
