"""Denoise a queue by its plan of noise levels: the one loop of base clips, FIFO-Diffusion and every other plan."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from lvdm.diffusion.guidance import Denoise
from lvdm.diffusion.noise import Noise, RenamedNoise
from lvdm.diffusion.schedule import CLEAN, NoiseSchedule
from lvdm.sampling.plan import full
from lvdm.sampling.queue import LatentQueue, arriving, at_levels

OF_CLIP = {"enqueue": "base", "step": "base step"}  # purposes of a base clip's noise


def denoise_queue(
    denoise: Denoise, schedule: NoiseSchedule, queue: LatentQueue, *, noise: Noise
) -> Iterator[LatentQueue]:
    """Take the steps of the queue's plan, period after period, for ever; yield the queue after every step.

    Nothing here waits for a device: the noise of the next step is drawn while it computes this one.
    """
    drawn = step_noise(schedule, queue, noise=noise)
    while True:
        queue = take_step(denoise, schedule, queue, drawn=drawn, noise=noise)
        following = advance(queue, noise=noise)
        drawn = step_noise(schedule, following, noise=noise)
        yield queue
        queue = following


def denoise_period(
    denoise: Denoise, schedule: NoiseSchedule, queue: LatentQueue, *, noise: Noise
) -> Iterator[LatentQueue]:
    """Take the steps of one period; yield the queue after every step."""
    for after in denoise_queue(denoise, schedule, queue, noise=noise):
        yield after
        if after.ended:
            return


def sample_clip(denoise: Denoise, schedule: NoiseSchedule, *, frames: int, noise: Noise) -> Iterator[Tensor]:
    """Yield the latents (1, C, frames, h, w) of a clip after every step from pure noise; the last ones are clean."""
    noise = RenamedNoise(noise, OF_CLIP)
    queue = LatentQueue.of_noise(full(frames, len(schedule)), noise=noise)
    for after in denoise_period(denoise, schedule, queue, noise=noise):
        yield after.latents


def take_step(
    denoise: Denoise, schedule: NoiseSchedule, queue: LatentQueue, *, drawn: Tensor | None, noise: Noise
) -> LatentQueue:
    """Return the queue after one step of its plan.

    All windows are read from the queue as it was before the step. The originals write them one after the other from the
    tail to the head, where no window reads what another has written: the result is the same, and this is one batch
    (which `Workers` may compute in parts).

    drawn: Gaussians (1, C, S - front, h, w) that the step adds to active slots, as of `step_noise`.
    """
    x, level, next_level = (
        queue.latents[:, :, queue.active],
        queue.levels[queue.active],
        queue.next_levels[queue.active],
    )
    falling = next_level < level
    if schedule.ends_in_place and (level[falling] == 0).all():  # nothing to compute, only levels fall
        return queue.stepped(x)
    output = predict(denoise, schedule, queue, noise=noise)
    after, _ = schedule.step(x, output, level[None], next_level[None], drawn)
    if not falling.all():
        after = torch.where(falling[:, None, None].to(x.device), after, x)
    after = queue.stepped(after)
    return after if queue.known is None else with_known(after, schedule, noise=noise)


def predict(denoise: Denoise, schedule: NoiseSchedule, queue: LatentQueue, *, noise: Noise) -> Tensor:
    """Return what the network predicts for the active slots, (1, C, S - front, h, w)."""
    levels = queue.levels
    if schedule.context[0] and (levels == CLEAN).any():
        ages = torch.arange(queue.slots) * queue.plan.steps + queue.row  # no frame is seen twice with the same noise
        drawn = noise.draw("context", queue.frames.tolist(), ages.tolist())
        queue = replace(queue, latents=schedule.with_context_noise(queue.latents, levels[None], drawn))
    x, levels, frames = queue.windows()
    output = denoise(x, schedule.timesteps_of(levels), frames)
    return rearrange(output[:, :, -queue.plan.stride :], "w c s h v -> 1 c (w s) h v")


def step_noise(schedule: NoiseSchedule, queue: LatentQueue, *, noise: Noise) -> Tensor | None:
    """Return the Gaussians (1, C, S - front, h, w) that the next step of `queue` adds; None if eta is 0."""
    if not schedule.stochastic:
        return None
    return noise.draw("step", queue.frames[queue.active].tolist(), queue.levels[queue.active].tolist())


def advance(queue: LatentQueue, *, noise: Noise) -> LatentQueue:
    """Return the queue that the next step begins with: at the end of a period shifted, with fresh noise at its tail."""
    if not queue.ended:
        return queue
    leaving = queue.plan.leaving
    return queue.shift(arriving(noise, queue.frames[-leaving:] + leaving, queue.plan))


def with_known(queue: LatentQueue, schedule: NoiseSchedule, *, noise: Noise) -> LatentQueue:
    """Return the queue with the frames that are known at their levels in place of what the network made of them."""
    count = queue.known.shape[2]
    known = at_levels(queue.known, queue.frames[:count], queue.levels[:count], schedule, noise=noise)
    return replace(queue, latents=torch.cat([known, queue.latents[:, :, count:]], dim=2))
