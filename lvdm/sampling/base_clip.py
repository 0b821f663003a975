"""Sample the base clip: f frames, all at one noise level, as the model was trained. The queue is filled from it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lvdm.diffusion.guidance import Denoise
from lvdm.diffusion.noise import Noise
from lvdm.diffusion.schedule import NoiseSchedule


def sample_clip(denoise: Denoise, schedule: NoiseSchedule, *, frames: int, noise: Noise) -> Iterator[Tensor]:
    """Yield the latents (1, C, frames, h, w) of a clip after every step from pure noise; the last ones are clean.

    A last step that would change nothing is not taken.
    """
    numbers = torch.arange(frames)[None]
    x = noise.draw("base", range(frames), [len(schedule)] * frames)
    for level in reversed(range(int(schedule.ends_in_place), len(schedule))):
        levels = torch.full_like(numbers, level)
        output = denoise(x, schedule.timesteps[levels], numbers)
        drawn = noise.draw("base step", range(frames), [level] * frames) if schedule.stochastic else None
        x, _ = schedule.step(x, output, levels, levels - 1, drawn)
        yield x


def steps_of(schedule: NoiseSchedule) -> int:
    """Return how many steps `sample_clip` takes."""
    return len(schedule) - schedule.ends_in_place
