"""Where frames go as they are born: GIF, MP4, a folder of PNGs, a contact sheet.

Every sink writes beside the final name and takes that name when it is complete, so that a file with a final name is
whole. A stopped one goes on where it was last synchronised, and one that is complete where it ended. None of them holds
more than a few frames: memory does not grow with the video.
"""

import os
import shutil
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.GifImagePlugin import getdata
from torch import Tensor

from lvdm.io.files import remove, whole_file
from lvdm.io.mp4 import FRAGMENTED, WHOLE, encode, end_of, remux

CRF = 18  # of H.264: hard to tell from the frames
SEGMENT = 8  # frames of an MP4 that are encoded together
Progress = Mapping[str, Mapping[str, Tensor]]  # of each sink, by its name

SHEET_TILES = 24
SHEET_COLUMNS = 6
SHEET_GAP = 2  # pixels
TILE_WIDTH = 256  # pixels; larger frames are scaled down to it


def to_uint8(picture: Tensor) -> np.ndarray:
    """The frame (H, W, 3) uint8 of a picture (3, H, W), about in [-1, 1]: clamped, then cut off as the originals do."""
    levels = ((picture.float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()


class LostFileError(ValueError):
    """What a stopped video was growing in is no longer what it was."""

    def __init__(self, path: Path):
        fault = "is not what was written to it" if path.exists() else "is gone"
        super().__init__(f"{path}, in which this video was growing, {fault}; --overwrite begins the video anew")


@dataclass(frozen=True)
class VideoFiles:
    """All files of a video, by name; `queue` takes the slots of the queue, if they are wanted."""

    sinks: Mapping[str, "Sink"]
    queue: "PngSink | None" = None

    def write(self, frame: np.ndarray) -> None:
        """frame: (H, W, 3) uint8, of the same size each time."""
        for sink in self.sinks.values():
            sink.write(frame)

    def write_queue(self, slots: Iterable[np.ndarray]) -> None:
        """slots: a frame of each slot, after a pass."""
        for frame in slots:
            self.queue.write(frame)

    def sync(self) -> Progress:
        """Sees to it that what was written is on the disk; returns what `open_files` needs to go on from here."""
        progress = {name: sink.sync() for name, sink in self.sinks.items()}
        return progress if self.queue is None else progress | {"queue": self.queue.sync()}


NOWHERE = VideoFiles({})


@contextmanager
def open_files(
    folder: Path,
    name: str,
    *,
    formats: Sequence[str],
    fps: int,
    comment: str,
    crf: int = CRF,
    save_frames: bool = False,
    queue_slots: int | None = None,
    picture: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Iterator[VideoFiles]:
    """The files of a video: `name`.gif and .mp4 as `formats` say, `name`.png, fifo/ with save_frames, and queue/.

    fps: of the files. comment: what they say about themselves. crf: of the MP4, 0 (large) to 51. queue_slots: how many
    slots the queue has, if they are to be in queue/. picture: (H, W, 3) uint8, shown first on the contact sheet.
    progress: what `sync` returned; the files go on there, and what came behind it is cut off. Without it they begin
    anew.

    The files get their names when the block ends. After an exception they stay as they are, if `sync` was called and
    they can go on, and otherwise go away. What an earlier run left here and this one was not asked for goes away when
    the block ends: all files of a folder are of one video.
    """
    before = progress or {}
    with ExitStack() as stack:
        sheet = SheetSink(folder / f"{name}.png", picture=picture, progress=before.get("sheet"))
        sinks: dict[str, Sink] = {"sheet": stack.enter_context(sheet)}
        if "gif" in formats:
            gif = GifSink(folder / f"{name}.gif", fps=fps, comment=comment, progress=before.get("gif"))
            sinks["gif"] = stack.enter_context(gif)
        if "mp4" in formats:
            mp4 = Mp4Sink(folder / f"{name}.mp4", fps=fps, comment=comment, crf=crf, progress=before.get("mp4"))
            sinks["mp4"] = stack.enter_context(mp4)
        if save_frames:
            sinks["fifo"] = stack.enter_context(PngSink(folder / "fifo", progress=before.get("fifo")))
        queue = None
        if queue_slots is not None:
            queue = PngSink(folder / "queue", slots=queue_slots, progress=before.get("queue"))
            stack.enter_context(queue)
        yield VideoFiles(sinks, queue)
    for other in {"gif", "mp4"}.difference(formats):
        remove(folder / f"{name}.{other}")
    if not save_frames:
        remove(folder / "fifo")
    if queue_slots is None:
        remove(folder / "queue")


class Sink(ABC):
    """A file or folder that takes the frames of a video, in order. While it grows it is `name.partial.suffix`.

    A context manager: the block's end completes it and gives it its name; with an exception it ends as it is, if
    it can be taken up again, which is so when it was once synchronised, and otherwise goes away.
    """

    def __init__(self, path: Path, *, progress: Mapping[str, Tensor] | None):
        self.path = path
        self.partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self.count = 0  # frames written
        self.shape: tuple[int, ...] | None = None
        self.kept = progress is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        if progress is None:
            remove(self.partial)  # of a run that will not go on
        else:
            self.count = int(progress["count"])

    def write(self, frame: np.ndarray) -> None:
        """frame: (H, W, 3) uint8, of the same size each time."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"{self.path}: a frame is (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
        if frame.shape != (self.shape or frame.shape):
            raise ValueError(f"{self.path}: frames of {self.shape} do not change to {frame.shape}")
        self.shape = frame.shape
        self._write(frame)
        self.count += 1

    def sync(self) -> dict[str, Tensor]:
        """Brings what was written to the disk; returns what this sink needs to go on from here."""
        progress = {"count": torch.tensor(self.count)} | self._sync()
        self.kept = True
        return progress

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self.count == 0:
                self._leave()
                raise ValueError(f"{self.path}: no frame was written")
            self._end()
            self._rename()
        else:
            self._leave()

    def _leave(self) -> None:
        if self.kept:
            with suppress(OSError):  # it is what it is on a full disk; what was synchronised is there
                self._end()
        else:
            with suppress(OSError):
                self._let_go()
            remove(self.partial)

    @abstractmethod
    def _write(self, frame: np.ndarray) -> None:
        """Adds one frame."""

    @abstractmethod
    def _sync(self) -> dict[str, Tensor]:
        """See `sync`; without the count."""

    @abstractmethod
    def _end(self) -> None:
        """Makes `partial` complete as far as it goes, and lets go of it."""

    def _let_go(self) -> None:  # noqa: B027  (some hold nothing)
        """Closes what is open."""

    def _rename(self) -> None:
        """Gives the complete `partial` its name."""
        self.partial.replace(self.path)


class AppendedSink(Sink):
    """A file to which frames are appended. What stands behind the last synchronised byte is cut off to go on."""

    def __init__(self, path: Path, *, progress: Mapping[str, Tensor] | None):
        super().__init__(path, progress=progress)
        if progress is None:
            self.file = self.partial.open("xb")
            return
        if not self.partial.exists() and self.path.exists():
            with whole_file(self.partial) as copy:
                self._reopen(copy)
        if self.partial.is_symlink() or not self.partial.is_file():
            raise LostFileError(self.path if self.path.exists() or not self.partial.exists() else self.partial)
        self.file = self.partial.open("r+b")
        end = self._end_of(progress)
        if end is None:
            self.file.close()
            raise LostFileError(self.partial)
        self.file.truncate(end)
        self.file.seek(end)

    def _sync(self) -> dict[str, Tensor]:
        self.file.flush()
        os.fsync(self.file.fileno())
        return {}

    def _end(self) -> None:
        with self.file:
            self.file.write(self._last())

    def _let_go(self) -> None:
        self.file.close()

    @abstractmethod
    def _reopen(self, copy: Path) -> None:
        """Makes of the complete file one that grows, in `copy`."""

    @abstractmethod
    def _end_of(self, progress: Mapping[str, Tensor]) -> int | None:
        """Where to go on in `file`; None if it is not what it was."""

    @abstractmethod
    def _last(self) -> bytes:
        """What completes the file."""


class GifSink(AppendedSink):
    """An endless GIF with a palette for each frame.

    Median cut without dithering: frames of up to 256 colours are exact, flat colours stay flat. (With latent noise of
    deviation 1 the mean error is 0.01 levels; on a picture of 150,000 colours it is 5.)
    """

    def __init__(self, path: Path, *, fps: int, comment: str, progress: Mapping[str, Tensor] | None = None):
        super().__init__(path, progress=progress)
        self.fps = fps
        self.comment = comment

    def _write(self, frame: np.ndarray) -> None:
        if self.count == 0:
            height, width, _ = frame.shape
            self.file.write(_gif_header(width, height, self.comment))
        image = Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT)
        for block in getdata(image, duration=10 * self._delay(), include_color_table=True):
            self.file.write(block)
        self.file.flush()

    def _delay(self) -> int:
        """How long this frame stays, in hundredths of a second: whole, and right on average.

        Players take a delay below two hundredths for a missing one and show the frame for a tenth of a second.
        """
        return max(2, round(100 * (self.count + 1) / self.fps) - round(100 * self.count / self.fps))

    def _sync(self) -> dict[str, Tensor]:
        length = self.file.tell()
        return super()._sync() | {"length": torch.tensor(length), "tail": torch.tensor(list(self._tail(length)))}

    def _last(self) -> bytes:
        return b";"

    def _reopen(self, copy: Path) -> None:
        shutil.copyfile(self.path, copy)

    def _end_of(self, progress: Mapping[str, Tensor]) -> int | None:
        length = int(progress["length"])
        return length if self._tail(length) == bytes(progress["tail"].tolist()) else None

    def _tail(self, length: int) -> bytes:
        """The last bytes of the first `length`, by which another file is known."""
        start = max(0, length - 64)
        with self.partial.open("rb") as file:
            file.seek(start)
            return file.read(length - start)


class Mp4Sink(AppendedSink):
    """H.264 with 4:2:0 chroma, as every player takes it. While it grows, it is fragmented and can be played.

    SEGMENT frames at a time are encoded; those that wait for others are in the file when it ends, however it ends.
    """

    def __init__(
        self, path: Path, *, fps: int, comment: str, crf: int = CRF, progress: Mapping[str, Tensor] | None = None
    ):
        self.waiting: list[np.ndarray] = [] if progress is None else list(progress["waiting"].numpy())
        self.encoded = 0 if progress is None else int(progress["count"]) - len(self.waiting)
        self.fps = fps
        self.crf = crf
        self.comment = comment
        super().__init__(path, progress=progress)

    def _write(self, frame: np.ndarray) -> None:
        if frame.shape[0] % 2 or frame.shape[1] % 2:
            raise ValueError(
                f"{self.path}: an MP4 needs even sides, not {frame.shape[0]}x{frame.shape[1]}; use --formats gif"
            )
        self.waiting.append(frame.copy())
        if len(self.waiting) == SEGMENT:
            self.file.write(self._encoded())
            self.file.flush()
            self.encoded += SEGMENT
            self.waiting = []

    def _encoded(self) -> bytes:
        try:
            return encode(self.waiting, first=self.encoded, fps=self.fps, crf=self.crf, comment=self.comment)
        except OSError as error:
            raise OSError(f"{self.path}: {error}") from error

    def _sync(self) -> dict[str, Tensor]:
        frames = np.stack(self.waiting) if self.waiting else np.zeros((0, 0, 0, 3), np.uint8)
        return super()._sync() | {"waiting": torch.from_numpy(frames)}

    def _last(self) -> bytes:
        return self._encoded() if self.waiting else b""

    def _rename(self) -> None:
        with whole_file(self.path) as whole:
            remux(self.partial, whole, layout=WHOLE, fps=self.fps)
        self.partial.unlink()

    def _reopen(self, copy: Path) -> None:
        remux(self.path, copy, layout=FRAGMENTED, fps=self.fps)

    def _end_of(self, progress: Mapping[str, Tensor]) -> int | None:
        return end_of(self.file, self.encoded)


class PngSink(Sink):
    """A folder of 00000.png, 00001.png, ...; one that is there already is replaced.

    slots: with it the frames are the slots of a queue, pass after pass, and the names are {pass}_{slot}.png.
    """

    def __init__(self, path: Path, *, slots: int | None = None, progress: Mapping[str, Tensor] | None = None):
        super().__init__(path, progress=progress)
        self.slots = slots
        if progress is None:
            self.partial.mkdir()
            return
        if not self.partial.exists() and self.path.exists():
            with whole_file(self.partial) as copy:
                shutil.copytree(self.path, copy, copy_function=_link)
        if self.partial.is_symlink() or not all((self.partial / self._name(n)).is_file() for n in range(self.count)):
            raise LostFileError(self.partial)
        for path in set(self.partial.iterdir()) - {self.partial / self._name(n) for n in range(self.count)}:
            remove(path)

    def _name(self, number: int) -> str:
        if self.slots is None:
            return f"{number:05d}.png"
        return "{:05d}_{:03d}.png".format(*divmod(number, self.slots))

    def _write(self, frame: np.ndarray) -> None:
        with (self.partial / self._name(self.count)).open("xb") as file:
            Image.fromarray(frame).save(file, format="PNG")
            file.flush()
            os.fsync(file.fileno())

    def _sync(self) -> dict[str, Tensor]:
        return {}

    def _end(self) -> None:
        pass

    def _rename(self) -> None:
        remove(self.path)
        super()._rename()


class SheetSink(Sink):
    """A contact sheet: every k-th frame with its number, at most SHEET_TILES of them, k the smallest power of two.

    picture: (H, W, 3) uint8, what the video was made from, in the first place.
    """

    def __init__(self, path: Path, *, picture: np.ndarray | None = None, progress: Mapping[str, Tensor] | None = None):
        super().__init__(path, progress=progress)
        self.first = [] if picture is None else [_tile(picture, label="image")]
        self.tiles = [] if progress is None else [Image.fromarray(tile) for tile in progress["tiles"].numpy()]
        self.stride = 1 if progress is None else int(progress["stride"])

    def _write(self, frame: np.ndarray) -> None:
        if self.count % self.stride:
            return
        if len(self.first) + len(self.tiles) == SHEET_TILES:
            self.tiles = self.tiles[::2]
            self.stride *= 2
        if self.count % self.stride == 0:
            self.tiles.append(_tile(frame, label=str(self.count)))

    def _sync(self) -> dict[str, Tensor]:
        tiles = np.stack(self.tiles) if self.tiles else np.zeros((0, 0, 0, 3), np.uint8)
        return {"tiles": torch.from_numpy(tiles), "stride": torch.tensor(self.stride)}

    def _end(self) -> None:
        pass

    def _rename(self) -> None:
        tiles = self.first + self.tiles
        columns = min(SHEET_COLUMNS, len(tiles))
        rows = -(-len(tiles) // columns)
        width, height = (side + SHEET_GAP for side in tiles[0].size)
        sheet = Image.new("RGB", (columns * width - SHEET_GAP, rows * height - SHEET_GAP))
        for index, tile in enumerate(tiles):
            row, column = divmod(index, columns)
            sheet.paste(tile, (column * width, row * height))
        with whole_file(self.path) as whole:
            sheet.save(whole)


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


def _link(source: str, target: str) -> None:
    """Another name for the same file, where the disk can do that; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
