"""Draw noise by key instead of from a stream.

Every Gaussian is a function of (seed, prompt, repetition) and of its purpose, frame and level. A frame's noise
therefore does not depend on the batch layout, the order of the prompts, the number of processes or a restart.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """Provide Gaussians for the frames of one video."""

    def draw(self, purpose: str, frames: Sequence[int], levels: Sequence[int]) -> Tensor:
        """Return one Gaussian for each (frame, level), (1, C, len(frames), h, w)."""


@dataclass(frozen=True)
class KeyedNoise:
    """Draw the noise of one video, in fp32 on `device`.

    Numbers are drawn on the CPU, so that a video's noise is the same on every device.

    Args:
        seed, prompt, repetition: what tells this video from others; repetition numbers equal prompts of a file.
        shape: (C, h, w) of one latent frame.
    """

    seed: int
    prompt: str
    repetition: int
    shape: tuple[int, int, int]
    device: torch.device

    def draw(self, purpose: str, frames: Sequence[int], levels: Sequence[int]) -> Tensor:
        """Return one Gaussian for each (frame, level), (1, C, len(frames), h, w)."""
        drawn = [self._frame(purpose, frame, level) for frame, level in zip(frames, levels, strict=True)]
        return torch.stack(drawn, dim=1)[None].to(self.device, non_blocking=True)

    def _frame(self, purpose: str, frame: int, level: int) -> Tensor:
        key = repr((self.seed, self.prompt, self.repetition, purpose, int(frame), int(level)))
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return torch.randn(self.shape, generator=generator)


@dataclass(frozen=True)
class RenamedNoise:
    """Draw other Gaussians for the same frames: each purpose is replaced by what `names` says."""

    noise: Noise
    names: Mapping[str, str]

    def draw(self, purpose: str, frames: Sequence[int], levels: Sequence[int]) -> Tensor:
        """Return the Gaussians of the other purpose."""
        return self.noise.draw(self.names[purpose], frames, levels)
