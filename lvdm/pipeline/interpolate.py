"""Make frames between the frames of a video, as it grows (--interpolate; Video LDM, arXiv 2304.08818)."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lvdm.diffusion.noise import RenamedNoise
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.run import Run
from lvdm.pipeline.snapshot import Pass, Waiting
from lvdm.sampling.plan import between
from lvdm.sampling.queue import LatentQueue, arriving
from lvdm.sampling.sampler import denoise_period

IN_BETWEEN = {"enqueue": "between", "step": "between step", "context": "between context"}  # purposes of the noise
FillIn = Callable[[Tensor, Tensor, int], Tensor]


def interpolated(run: Run, conditions: Conditions, passes: Iterator[Pass], waiting: Waiting | None) -> Iterator[Pass]:
    """Yield `passes` with `--interpolate` times as many finished frames: M - 1 between every two.

    Frames wait until a window of the U-Net is full. At the end of the video the last window moves back over frames that
    are there already.

    waiting: what an earlier run has left.
    """
    every = run.options.interpolate
    gaps = (run.options.video_length - 1) // every  # of a full window
    for after in passes:
        parts = [after.finished[:, :, :0]]
        waiting, first = arrived(waiting, after.finished, first_number=after.frames_done - after.finished.shape[2])
        parts.append(first)
        while waiting is not None and (count := waiting.frames.shape[2] - 1) and (count >= gaps or after.complete):
            waiting, made = filled(run, conditions, waiting, min(gaps, count))
            parts.append(made)
        yield replace(after, finished=torch.cat(parts, dim=2), pixels=None, waiting=waiting)


def arrived(waiting: Waiting | None, frames: Tensor, *, first_number: int) -> tuple[Waiting | None, Tensor]:
    """Return what waits after `frames` (1, C, K, h, w) came, and those of them that the video gets at once: the first.

    first_number: of the first of `frames`.
    """
    nothing = frames[:, :, :0]
    if waiting is not None:
        return replace(waiting, frames=torch.cat([waiting.frames, frames], dim=2)), nothing
    if not frames.shape[2]:
        return None, nothing
    return Waiting(frames, first_number, nothing), frames[:, :, :1]


def filled(run: Run, conditions: Conditions, waiting: Waiting, gaps: int) -> tuple[Waiting, Tensor]:
    """Make the frames in the first `gaps` gaps; return what waits then, and the frames that the video gets.

    These are (1, C, gaps M, h, w): those in between, and the frame behind each gap.
    """
    every = run.options.interpolate
    given = waiting.frames[:, :, 1 : gaps + 1]
    past = waiting.window if waiting.window.shape[2] > gaps * every else waiting.frames[:, :, :1]
    known = past[:, :, gaps * every :] if past.shape[2] > 1 else past
    plan = between(known.shape[2] + gaps * every, every, run.options.steps, known=known.shape[2])
    noise = RenamedNoise(conditions.noise, IN_BETWEEN)
    frames = torch.arange(plan.slots) + waiting.number * every - (known.shape[2] - 1)
    new = arriving(noise, frames[known.shape[2] :], plan)
    new[:, :, every - 1 :: every] = given
    queue = LatentQueue(torch.cat([known, new], dim=2), frames, plan)
    conditioning = conditions.denoise.conditioning
    denoiser = replace(conditions.denoise, conditioning=replace(conditioning, fps=conditioning.fps * every))

    def predict(x: Tensor, timesteps: Tensor, numbers: Tensor) -> Tensor:
        return denoiser(x, timesteps, numbers.div(every, rounding_mode="floor"))

    for after in denoise_period(predict, run.clip_schedule(), queue, noise=noise):
        run.stop.check()
        queue = after
    return Waiting(waiting.frames[:, :, gaps:], waiting.number + gaps, queue.latents), queue.latents[
        :, :, -gaps * every :
    ]
