"""Where frames go as they are born: GIF, MP4, a folder of PNGs, a contact sheet.

Every sink writes beside the final name and takes that name when it is complete, so that a file with a final name is
whole. None of them holds frames: memory does not grow with the video.
"""

import shutil
import struct
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image, ImageDraw, ImageFont
from PIL.GifImagePlugin import getdata
from torch import Tensor

SHEET_TILES = 24
SHEET_COLUMNS = 6
SHEET_GAP = 2  # pixels
TILE_WIDTH = 256  # pixels; larger frames are scaled down to it


def to_uint8(picture: Tensor) -> np.ndarray:
    """The frame (H, W, 3) uint8 of a picture (3, H, W), about in [-1, 1]: clamped, then cut off as the originals do."""
    levels = ((picture.float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()


class FrameSink(Protocol):
    """Takes the frames of one video, in order."""

    def write(self, frame: np.ndarray) -> None:
        """frame: (H, W, 3) uint8, of the same size each time."""


@dataclass(frozen=True)
class _All:
    sinks: Sequence[FrameSink]

    def write(self, frame: np.ndarray) -> None:
        for sink in self.sinks:
            sink.write(frame)


@contextmanager
def open_sinks(
    folder: Path,
    name: str,
    *,
    formats: Sequence[str],
    frames: int,
    fps: int,
    comment: str,
    save_frames: bool,
    picture: np.ndarray | None = None,
) -> Iterator[FrameSink]:
    """One sink for all files of a video: `name`.gif and .mp4 as `formats` say, `name`.png, and fifo/ with save_frames.

    frames: how many will be written; the contact sheet is laid out for them. fps: of the files. comment: what the
    files say about themselves. picture: (H, W, 3) uint8, shown first on the contact sheet. The files appear when the
    block ends; with an exception they do not. What an earlier run left here and this one was not asked for goes away
    then: all files of a folder are of one video.
    """
    with ExitStack() as stack:
        sinks: list[FrameSink] = [
            stack.enter_context(SheetSink(folder / f"{name}.png", frames=frames, picture=picture))
        ]
        if "gif" in formats:
            sinks.append(stack.enter_context(GifSink(folder / f"{name}.gif", fps=fps, comment=comment)))
        if "mp4" in formats:
            sinks.append(stack.enter_context(Mp4Sink(folder / f"{name}.mp4", fps=fps, comment=comment)))
        if save_frames:
            sinks.append(stack.enter_context(PngSink(folder / "fifo")))
        yield _All(sinks)
    for other in {"gif", "mp4"}.difference(formats):
        _remove(folder / f"{name}.{other}")
    if not save_frames:
        _remove(folder / "fifo")


class Sink(ABC):
    """What all sinks share: a context manager that ends with `close`, or with `discard` if there was an exception."""

    def __init__(self, path: Path):
        self.path = path
        self.partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self.count = 0  # frames written
        self.shape: tuple[int, ...] | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(self.partial)  # of a run that was killed

    def write(self, frame: np.ndarray) -> None:
        """frame: (H, W, 3) uint8, of the same size each time."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"{self.path}: a frame is (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
        if frame.shape != (self.shape or frame.shape):
            raise ValueError(f"{self.path}: frames of {self.shape} do not change to {frame.shape}")
        self.shape = frame.shape
        self._write(frame)
        self.count += 1

    def close(self) -> None:
        """Completes the file and gives it its name."""
        try:
            if self.count == 0:
                raise ValueError(f"{self.path}: no frame was written")
            self._finish()
            self.partial.replace(self.path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._abandon()
        _remove(self.partial)

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    @abstractmethod
    def _write(self, frame: np.ndarray) -> None:
        """Adds one frame to `partial`."""

    @abstractmethod
    def _finish(self) -> None:
        """Completes and closes `partial`."""

    def _abandon(self) -> None:  # noqa: B027  (most sinks hold nothing)
        """Lets go of what holds `partial`; called at any time."""


class GifSink(Sink):
    """An endless GIF with a palette for each frame.

    Median cut without dithering: frames of up to 256 colours are exact, flat colours stay flat. (With latent noise of
    deviation 1 the mean error is 0.01 levels; on a picture of 150,000 colours it is 5.)
    """

    def __init__(self, path: Path, *, fps: int, comment: str):
        super().__init__(path)
        self.fps = fps
        self.comment = comment
        self.file = self.partial.open("wb")

    def _write(self, frame: np.ndarray) -> None:
        if self.count == 0:
            height, width, _ = frame.shape
            self.file.write(_gif_header(width, height, self.comment))
        image = Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT)
        for block in getdata(image, duration=10 * self._delay(), include_color_table=True):
            self.file.write(block)

    def _delay(self) -> int:
        """How long this frame stays, in hundredths of a second: whole, and right on average.

        Players take a delay below two hundredths for a missing one and show the frame for a tenth of a second.
        """
        return max(2, round(100 * (self.count + 1) / self.fps) - round(100 * self.count / self.fps))

    def _finish(self) -> None:
        self.file.write(b";")
        self.file.close()

    def _abandon(self) -> None:
        self.file.close()


class Mp4Sink(Sink):
    """H.264 with 4:2:0 chroma, as every player takes it; frames go to an ffmpeg process through a pipe.

    imageio_ffmpeg.write_frames would do the same, but does not tell when ffmpeg failed, and a cut-off file would get
    its final name.
    """

    def __init__(self, path: Path, *, fps: int, comment: str):
        super().__init__(path)
        self.fps = fps
        self.comment = comment
        self.messages = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        self.process: subprocess.Popen[bytes] | None = None

    def _write(self, frame: np.ndarray) -> None:
        if self.process is None:
            self.process = self._start(*frame.shape[:2])
        try:
            self.process.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            raise self._failure() from None

    def _start(self, height: int, width: int) -> "subprocess.Popen[bytes]":
        if height % 2 or width % 2:
            raise ValueError(f"{self.path}: an MP4 needs even sides, not {height}x{width}; use --formats gif")
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {self.fps} -i -"
        # BT.709, and said so: without a tag players guess the matrix from the size, and colours shift. Newer ffmpegs
        # take the tag from the frames, older ones from the command line.
        convert = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"
        frame_tag = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
        file_tag = "-colorspace bt709 -color_primaries bt709 -color_trc bt709"
        colors = f"-vf {convert},{frame_tag} {file_tag}"
        codec = "-c:v libx264 -crf 18 -pix_fmt yuv420p -movflags +faststart"
        command = [get_ffmpeg_exe(), *f"-v error -y {source} {colors} {codec}".split()]
        command += ["-metadata", f"comment={self.comment}", "-f", "mp4", str(self.partial.absolute())]
        # a session of its own: Ctrl-C is for this process, which then discards the file
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self.messages, start_new_session=True)

    def _finish(self) -> None:
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            raise self._failure() from None
        if self.process.wait() != 0:
            raise self._failure()
        self.messages.close()

    def _failure(self) -> OSError:
        status = self.process.wait()
        self.messages.seek(0)
        message = " ".join(self.messages.read().decode(errors="replace").split())
        return OSError(f"{self.path}: ffmpeg ended with status {status}: {message}")

    def _abandon(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            with suppress(BrokenPipeError):  # what is still buffered has no reader any more
                self.process.stdin.close()
        self.messages.close()


class PngSink(Sink):
    """A folder of 00000.png, 00001.png, ...; one that is there already is replaced.

    slots: with it the frames are the slots of a queue, pass after pass, and the names are {pass}_{slot}.png.
    """

    def __init__(self, path: Path, *, slots: int | None = None):
        super().__init__(path)
        self.slots = slots
        self.partial.mkdir()

    def _write(self, frame: np.ndarray) -> None:
        name = f"{self.count:05d}" if self.slots is None else "{:05d}_{:03d}".format(*divmod(self.count, self.slots))
        Image.fromarray(frame).save(self.partial / f"{name}.png")

    def _finish(self) -> None:
        _remove(self.path)


class SheetSink(Sink):
    """A contact sheet: every k-th frame with its number, at most SHEET_TILES of them.

    frames: how many frames the video has. picture: (H, W, 3) uint8, what the video was made from, in the first place.
    """

    def __init__(self, path: Path, *, frames: int, picture: np.ndarray | None = None):
        super().__init__(path)
        self.tiles = [] if picture is None else [_tile(picture, label="image")]
        self.stride = -(-frames // (SHEET_TILES - len(self.tiles)))

    def _write(self, frame: np.ndarray) -> None:
        if self.count % self.stride == 0 and len(self.tiles) < SHEET_TILES:
            self.tiles.append(_tile(frame, label=str(self.count)))

    def _finish(self) -> None:
        columns = min(SHEET_COLUMNS, len(self.tiles))
        rows = -(-len(self.tiles) // columns)
        width, height = (side + SHEET_GAP for side in self.tiles[0].size)
        sheet = Image.new("RGB", (columns * width - SHEET_GAP, rows * height - SHEET_GAP))
        for index, tile in enumerate(self.tiles):
            row, column = divmod(index, columns)
            sheet.paste(tile, (column * width, row * height))
        sheet.save(self.partial)


def _tile(frame: np.ndarray, *, label: str) -> Image.Image:
    tile = Image.fromarray(frame)
    if tile.width > TILE_WIDTH:
        tile = tile.resize((TILE_WIDTH, max(1, round(tile.height * TILE_WIDTH / tile.width))))
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default()
    left, top, right, bottom = draw.textbbox((2, 1), label, font=font)
    draw.rectangle((left - 2, top - 1, right + 1, bottom + 1), fill="black")
    draw.text((2, 1), label, fill="white", font=font)
    return tile


def _gif_header(width: int, height: int, comment: str) -> bytes:
    """The blocks of GIF89a that stand before the frames: no global palette, loop for ever, the comment."""
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x70, 0, 0)
    loop = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    text = comment.encode()
    chunks = (text[start : start + 255] for start in range(0, len(text), 255))
    return screen + loop + b"!\xfe" + b"".join(bytes([len(chunk)]) + chunk for chunk in chunks) + b"\x00"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
