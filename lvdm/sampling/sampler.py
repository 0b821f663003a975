"""Diagonal denoising: FIFO-Diffusion (Kim et al. 2024, arXiv 2405.11473) as a generator of queues."""

from collections.abc import Iterator

from einops import rearrange
from torch import Tensor

from lvdm.diffusion.noise import Noise
from lvdm.diffusion.schedule import DDIMSchedule, Denoise
from lvdm.sampling.queue import LatentQueue


def denoise_queue(denoise: Denoise, schedule: DDIMSchedule, queue: LatentQueue, *, noise: Tensor | None) -> LatentQueue:
    """One pass: every active slot goes one level down, by `noise` (1, C, S, h, w), None for eta 0.

    All windows are read from the queue as it was before the pass. The originals write them one after the other from the
    tail to the head, where no window reads what another has written: the result is the same, and this is one batch.
    """
    x, levels, frames = queue.windows()
    output = denoise(x, schedule.timesteps[levels], frames)
    written = rearrange(output[:, :, -queue.stride :], "w c s h v -> 1 c (w s) h v")
    active = queue.latents[:, :, queue.active]
    return queue.write_back(schedule.step(active, written, queue.levels[None, queue.active], noise))


def fifo(denoise: Denoise, schedule: DDIMSchedule, queue: LatentQueue, *, noise: Noise) -> Iterator[LatentQueue]:
    """Denoise `queue` for ever; yields it after every pass, its `head` a finished frame.

    The first S - window frames are warm-up: a video of N frames takes N + S - window passes. Nothing here waits for a
    device: the noise of the next pass is drawn while it computes this one.
    """
    stochastic = bool(schedule.sigmas.any())
    drawn = step_noise(queue, noise) if stochastic else None
    while True:
        queue = denoise_queue(denoise, schedule, queue, noise=drawn)
        following = advance(queue, noise=noise)
        drawn = step_noise(following, noise) if stochastic else None
        yield queue
        queue = following


def step_noise(queue: LatentQueue, noise: Noise) -> Tensor:
    """The Gaussians (1, C, S, h, w) of a pass over `queue`."""
    return noise.draw("step", queue.frames[queue.active].tolist(), queue.levels[queue.active].tolist())


def advance(queue: LatentQueue, *, noise: Noise) -> LatentQueue:
    """The queue as the pass after the one that made `queue` finds it: shifted, with fresh noise at its tail."""
    tail = noise.draw("enqueue", [int(queue.frames[-1]) + 1], [int(queue.levels[-1]) + 1])
    return queue.shift(tail)
