"""Find the pictures that videos begin from, check them, and fit them to the size of the video."""

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
from lvdm.runtime.errors import one_line, shortened

FITS = ("crop", "pad", "stretch")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # in Pillow's words; some of its other formats run programs
MIN_SIDE, MAX_SIDE, MAX_PIXELS = 16, 16384, 100_000_000


@dataclass(frozen=True)
class Picture:
    """The file of a picture, and the SHA-256 of that file as hex digits."""

    path: Path
    digest: str

    @classmethod
    def find(cls, name: str, *, folder: Path) -> "Picture":
        """Return the picture `name`, looked up in `folder` and then in the working directory; it is opened to check it.

        Raises:
            ValueError: The message begins with the name.
        """
        places = list(dict.fromkeys([folder / name, Path(name)]))  # once if that is the same
        try:
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                other = next((f"{place} is no file" for place in places if place.exists()), "")
                raise ValueError(other or f"there is no such picture; looked for {' and '.join(map(str, places))}")
            picture = cls(path, file_digest(path))
            picture.open()
        except OSError as error:
            raise ValueError(f"{shortened(name, 200)!r}: cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            raise ValueError(f"{shortened(name, 200)!r}: {error}") from error
        return picture

    def open(self) -> Image.Image:
        """Return the picture, upright, in RGB, on white where it is transparent; of a video the first frame.

        Raises:
            ValueError: It cannot be read, or is too small or too large.
        """
        with _damages_as_errors():
            image = _first_frame(self.path)
        _check_size(*image.size)
        with _damages_as_errors():
            return _flat(ImageOps.exif_transpose(image))

    def read(self, height: int, width: int, *, fit: str) -> np.ndarray:
        """Return the picture as (height, width, 3) uint8.

        Args:
            height: In pixels.
            width: In pixels.
            fit: What to do with a picture of another shape: "crop", "pad" (with black) or "stretch" it.

        Raises:
            ValueError: The file has changed since it was found.
        """
        if file_digest(self.path) != self.digest:
            raise ValueError(f"the picture {str(self.path)!r} was changed after this run had begun; begin again")
        return np.asarray(fitted(self.open(), height, width, fit=fit))


def fitted(image: Image.Image, height: int, width: int, *, fit: str) -> Image.Image:
    """Return `image` resized to height x width, with its centre in the centre; see Picture.read for `fit`."""
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


def as_tensor(frames: np.ndarray) -> Tensor:
    """Return frames (..., H, W, 3) uint8 as a tensor (..., 3, H, W) in [-1, 1]."""
    return torch.tensor(frames).movedim(-1, -3).float() / 127.5 - 1


def to_uint8(picture: Tensor) -> np.ndarray:
    """Return a picture (3, H, W) in about [-1, 1] as a frame (H, W, 3) uint8; levels are cut off, not rounded."""
    levels = ((picture.float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()


@contextmanager
def _damages_as_errors() -> Iterator[None]:
    """Raise what Pillow raises as ValueError."""
    try:
        yield
    except Image.DecompressionBombError:
        raise ValueError(f"has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(
            "cannot be read: its content is no PNG, JPEG, WebP, GIF or BMP picture, and no video"
        ) from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        reason = one_line(error)[-200:]  # ffmpeg says the important thing last
        raise ValueError(f"cannot be read as a picture or video: {reason}") from error


def _first_frame(path: Path) -> Image.Image:
    """Open a picture, or the first frame of a video."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked next
            return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        if not _is_video(path):
            raise
    first = ["-frames:v", "1", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    return Image.open(BytesIO(run_ffmpeg(["-i", f"file:{path}", *first])), formats=["PPM"])


def _is_video(path: Path) -> bool:
    """Return whether a file begins as MP4, MOV, WebM, Matroska or AVI. (ffmpeg would draw any text as a picture.)"""
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] in (b"ftyp", b"moov", b"mdat") or head[:4] == b"\x1a\x45\xdf\xa3" or head[8:] == b"AVI "


def _check_size(width: int, height: int) -> None:
    if not MIN_SIDE <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise ValueError(f"is {width} x {height} pixels; sides may have from {MIN_SIDE} to {MAX_SIDE}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"has {width} x {height}, more than {MAX_PIXELS:,} pixels")


def _flat(image: Image.Image) -> Image.Image:
    """Return an image in RGB, over white where it is transparent."""
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
