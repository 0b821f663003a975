"""What all writers have in common.

A writer writes beside the final name and takes that name when the file is complete, so a file under its final name is
always whole. It holds only a few frames: memory does not grow with the length of the video.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from lvdm.io.files import remove, whole_file

WriterState = Mapping[str, Tensor]  # what a writer needs to resume


class LostFileError(ValueError):
    """The file of an interrupted video is gone or was changed, so the video cannot be resumed."""

    def __init__(self, path: Path):
        fault = "is not what was written to it" if path.exists() else "is gone"
        super().__init__(f"{path}, in which this video was growing, {fault}; --overwrite begins the video anew")


class Writer(ABC):
    """Write the frames of a video, in order, to a file or folder that is called `name.partial.suffix` until it is done.

    Use it as a context manager. At the end of the block the file is completed and takes its final name. After an
    exception it is kept as `partial` if `sync` was called before, so that it can be resumed, and is removed otherwise.
    """

    may_be_empty = False  # whether it is no error if no frame comes

    def __init__(self, path: Path, *, resume_from: WriterState | None):
        """Begin the file, or resume it.

        Args:
            path: The final name.
            resume_from: What `sync` returned, to resume there; None to begin anew.
        """
        self.path = path
        self.partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self.count = 0  # frames written
        self.shape: tuple[int, ...] | None = None
        self.resumable = resume_from is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume_from is None:
            remove(self.partial)  # of an earlier run that will not be resumed
        else:
            self.count = int(resume_from["count"])

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8; all frames have the same size."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"{self.path}: a frame is (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
        if frame.shape != (self.shape or frame.shape):
            raise ValueError(f"{self.path}: frames of {self.shape} do not change to {frame.shape}")
        self.shape = frame.shape
        self._write(frame)
        self.count += 1

    def sync(self) -> WriterState:
        """Flush what was written to the disk and return the state to resume from."""
        state = {"count": torch.tensor(self.count)} | self._sync()
        self.resumable = True
        return state

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self.count == 0 and not self.may_be_empty:
                self._abandon()
                raise ValueError(f"{self.path}: no frame was written")
            self._finish()
            self._rename()
        else:
            self._abandon()

    def _abandon(self) -> None:
        """Keep `partial` if it can be resumed; remove it otherwise."""
        if self.resumable:
            with suppress(OSError):  # the disk may be full; everything up to the last `sync` is on it
                self._finish()
        else:
            with suppress(OSError):
                self._close()
            remove(self.partial)

    @abstractmethod
    def _write(self, frame: np.ndarray) -> None:
        """Append one frame."""

    @abstractmethod
    def _sync(self) -> dict[str, Tensor]:
        """Flush, and return the state without the count."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what `partial` needs to be a valid file, and close it."""

    def _close(self) -> None:  # noqa: B027  (not every writer keeps a file open)
        """Close what is open."""

    def _rename(self) -> None:
        """Give the finished `partial` its final name."""
        self.partial.replace(self.path)


class AppendingWriter(Writer):
    """Append frames to one file. To resume, everything after the last synchronised byte is cut off."""

    def __init__(self, path: Path, *, resume_from: WriterState | None):
        super().__init__(path, resume_from=resume_from)
        if resume_from is None:
            self.file = self.partial.open("xb")
            return
        if not self.partial.exists() and self.path.exists():
            with whole_file(self.partial) as copy:
                self._reopen(copy)
        if self.partial.is_symlink() or not self.partial.is_file():
            raise LostFileError(self.path if self.path.exists() or not self.partial.exists() else self.partial)
        self.file = self.partial.open("r+b")
        end = self._resume_position(resume_from)
        if end is None:
            self.file.close()
            raise LostFileError(self.partial)
        self.file.truncate(end)
        self.file.seek(end)

    def _sync(self) -> dict[str, Tensor]:
        self.file.flush()
        os.fsync(self.file.fileno())
        return {}

    def _finish(self) -> None:
        with self.file:
            self.file.write(self._trailer())

    def _close(self) -> None:
        self.file.close()

    @abstractmethod
    def _reopen(self, copy: Path) -> None:
        """Turn the complete file into one that can be appended to, at `copy`."""

    @abstractmethod
    def _resume_position(self, resume_from: WriterState) -> int | None:
        """Return the byte to resume at; None if the file is not the one that was synchronised."""

    @abstractmethod
    def _trailer(self) -> bytes:
        """Return the bytes that complete the file."""
