"""Write an MP4, a few frames at a time."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvdm.io.files import whole_file
from lvdm.io.mp4 import FRAGMENTED, WHOLE, encode, end_of, remux
from lvdm.io.writers.base import AppendingWriter, WriterState

CRF = 18  # quality of H.264: hard to tell from the frames
SEGMENT = 8  # frames that are encoded together


class Mp4Writer(AppendingWriter):
    """Write H.264 with 4:2:0 chroma, which every player takes. The growing file is fragmented and can be played.

    SEGMENT frames at a time are encoded. Those that still wait for others are written when the file is closed, whether
    the video is complete or was interrupted.
    """

    def __init__(self, path: Path, *, fps: int, comment: str, crf: int = CRF, resume_from: WriterState | None = None):
        self.waiting: list[np.ndarray] = [] if resume_from is None else list(resume_from["waiting"].numpy())
        self.encoded = 0 if resume_from is None else int(resume_from["count"]) - len(self.waiting)
        self.fps = fps
        self.crf = crf
        self.comment = comment
        super().__init__(path, resume_from=resume_from)

    def _write(self, frame: np.ndarray) -> None:
        if frame.shape[0] % 2 or frame.shape[1] % 2:
            raise ValueError(
                f"{self.path}: an MP4 needs even sides, not {frame.shape[0]}x{frame.shape[1]}; use --formats gif"
            )
        self.waiting.append(frame.copy())
        if len(self.waiting) == SEGMENT:
            self.file.write(self._encode_waiting())
            self.file.flush()
            self.encoded += SEGMENT
            self.waiting = []

    def _encode_waiting(self) -> bytes:
        try:
            return encode(self.waiting, first=self.encoded, fps=self.fps, crf=self.crf, comment=self.comment)
        except OSError as error:
            raise OSError(f"{self.path}: {error}") from error

    def _sync(self) -> dict[str, Tensor]:
        frames = np.stack(self.waiting) if self.waiting else np.zeros((0, 0, 0, 3), np.uint8)
        return super()._sync() | {"waiting": torch.from_numpy(frames)}

    def _trailer(self) -> bytes:
        return self._encode_waiting() if self.waiting else b""

    def _rename(self) -> None:
        with whole_file(self.path) as whole:
            remux(self.partial, whole, layout=WHOLE, fps=self.fps)
        self.partial.unlink()

    def _reopen(self, copy: Path) -> None:
        remux(self.path, copy, layout=FRAGMENTED, fps=self.fps)

    def _resume_position(self, resume_from: WriterState) -> int | None:
        return end_of(self.file, self.encoded)
