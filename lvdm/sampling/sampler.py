"""Denoise a queue pass after pass: FIFO-Diffusion's diagonal denoising (Kim et al. 2024, arXiv 2405.11473)."""

from collections.abc import Iterator

from einops import rearrange
from torch import Tensor

from lvdm.diffusion.guidance import Denoise
from lvdm.diffusion.noise import Noise
from lvdm.diffusion.schedule import NoiseSchedule
from lvdm.sampling.queue import LatentQueue


def denoise_queue(
    denoise: Denoise, schedule: NoiseSchedule, queue: LatentQueue, *, noise: Tensor | None
) -> LatentQueue:
    """Return the queue after one pass, in which every active slot goes down one level.

    All windows are read from the queue as it was before the pass. The originals write them one after the other from the
    tail to the head, where no window reads what another has written: the result is the same, and this is one batch.

    noise: Gaussians (1, C, S, h, w) of the active slots; may be None if eta is 0.
    """
    x, levels, frames = queue.windows()
    output = denoise(x, schedule.timesteps[levels], frames)
    output = rearrange(output[:, :, -queue.stride :], "w c s h v -> 1 c (w s) h v")
    level = queue.levels[None, queue.active]
    denoised, _ = schedule.step(queue.latents[:, :, queue.active], output, level, level - 1, noise)
    return queue.write_back(denoised)


def fifo(denoise: Denoise, schedule: NoiseSchedule, queue: LatentQueue, *, noise: Noise) -> Iterator[LatentQueue]:
    """Denoise `queue` for ever; yield it after every pass, when its `head` is a finished frame.

    The first S - window frames are warm-up: a video of N frames takes N + S - window passes. Nothing here waits for a
    device: the noise of the next pass is drawn while it computes this one.
    """
    drawn = step_noise(queue, noise) if schedule.stochastic else None
    while True:
        queue = denoise_queue(denoise, schedule, queue, noise=drawn)
        following = advance(queue, noise=noise)
        drawn = step_noise(following, noise) if schedule.stochastic else None
        yield queue
        queue = following


def step_noise(queue: LatentQueue, noise: Noise) -> Tensor:
    """Return the Gaussians (1, C, S, h, w) that a pass over `queue` adds to its active slots."""
    return noise.draw("step", queue.frames[queue.active].tolist(), queue.levels[queue.active].tolist())


def advance(queue: LatentQueue, *, noise: Noise) -> LatentQueue:
    """Return the queue that the next pass begins with: shifted by one slot, with fresh noise at its tail."""
    tail = noise.draw("enqueue", [int(queue.frames[-1]) + 1], [int(queue.levels[-1]) + 1])
    return queue.shift(tail)
