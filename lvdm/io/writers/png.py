"""Write each frame as a PNG."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lvdm.io.files import remove, whole_file
from lvdm.io.writers.base import LostFileError, Writer, WriterState


class PngWriter(Writer):
    """Write a folder of 00000.png, 00001.png, ... An existing folder of that name is replaced."""

    def __init__(self, path: Path, *, slots: int | None = None, resume_from: WriterState | None = None):
        """Begin the folder, or resume it.

        Args:
            path: The folder.
            slots: If given, the frames are the slots of a queue, pass after pass, and are named {pass}_{slot}.png.
            resume_from: What `sync` returned, to resume there.
        """
        super().__init__(path, resume_from=resume_from)
        self.slots = slots
        self.may_be_empty = slots is not None  # a video that is its base clip has no pass over a queue
        if resume_from is None:
            self.partial.mkdir()
            return
        if not self.partial.exists() and self.path.exists():
            with whole_file(self.partial) as copy:
                shutil.copytree(self.path, copy, copy_function=_link)
        written = [self.partial / self._name(number) for number in range(self.count)]
        if self.partial.is_symlink() or not all(path.is_file() for path in written):
            raise LostFileError(self.partial)
        for path in set(self.partial.iterdir()).difference(written):
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

    def _finish(self) -> None:
        pass

    def _rename(self) -> None:
        remove(self.path)
        super()._rename()


def _link(source: str, target: str) -> None:
    """Hard-link a file, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
