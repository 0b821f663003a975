"""Hold FIFO-Diffusion's queue: one latent frame per slot, each at a noise level of its own, cleanest first."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lvdm.diffusion.noise import Noise
from lvdm.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class LatentQueue:
    """Hold the latents of all slots with their noise levels and frame numbers.

    A window reads `window` slots and denoises the last `stride` of them; `window - stride` clean slots stand in front,
    as context for the first window. Stride window/2 is lookahead denoising, stride window is none. Frame 0 is the first
    of the video; the S - window frames before it are warm-up and have negative numbers.

    Args:
        latents: (1, C, slots, h, w) fp32.
        levels, frames: (slots,) int64, on the CPU wherever the latents are, so that reading them waits for no device.
    """

    latents: Tensor
    levels: Tensor
    frames: Tensor
    window: int
    stride: int

    @classmethod
    def from_clip(
        cls, clip: Tensor, schedule: NoiseSchedule, *, noise: Noise, stride: int, uniform: bool = False
    ) -> "LatentQueue":
        """Fill the first queue from a clean clip (1, C, window, h, w).

        By default the last `window` slots hold the clip and those before it its first frame. With `uniform` the clip is
        spread evenly over the queue (uniform latents of FIFO-Diffusion+).
        """
        window, length = clip.shape[2], len(schedule)
        slots = torch.arange(-(window - stride), length)
        levels = slots.clamp(min=0)
        frames = slots - (length - window)
        source = levels // (length // window) if uniform else frames.clamp(min=0)
        drawn = noise.draw("queue", frames.tolist(), levels.tolist())
        return cls(schedule.q_sample(clip[:, :, source], levels[None], drawn), levels, frames, window, stride)

    @property
    def slots(self) -> int:
        """How many slots there are, clean ones included."""
        return len(self.levels)

    @property
    def warm_up(self) -> int:
        """How many passes at the beginning finish no frame of the video: S - window."""
        return self.slots - (self.window - self.stride) - self.window

    @property
    def active(self) -> slice:
        """The slots that a pass denoises; those in front are clean context, which is only read."""
        return slice(self.window - self.stride, None)

    @property
    def head(self) -> Tensor:
        """The frame that the last pass finished, (1, C, h, w)."""
        return self.latents[:, :, self.window - self.stride]

    @property
    def head_frame(self) -> int:
        """The number of the frame at the head."""
        return int(self.frames[self.window - self.stride])

    def windows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the W windows read: latents (W, C, window, h, w), levels and frame numbers (W, window)."""
        latents = self.latents[0].unfold(1, self.window, self.stride)  # (C, W, h, w, window)
        levels, frames = (numbers.unfold(0, self.window, self.stride) for numbers in (self.levels, self.frames))
        return latents.permute(1, 0, 4, 2, 3), levels, frames

    def write_back(self, denoised: Tensor) -> "LatentQueue":
        """Return the queue with `denoised` (1, C, S, h, w) in its active slots."""
        front = self.latents[:, :, : self.window - self.stride]
        return replace(self, latents=torch.cat([front, denoised], dim=2))

    def shift(self, tail: Tensor) -> "LatentQueue":
        """Drop the foremost frame, move every other one a slot towards the head, and append `tail`.

        Levels belong to slots and do not move.

        tail: (1, C, 1, h, w) ~ N(0, I).
        """
        return replace(self, latents=torch.cat([self.latents[:, :, 1:], tail], dim=2), frames=self.frames + 1)
