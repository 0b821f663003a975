"""Make frames between the frames of a video, as it grows (--interpolate; Video LDM, arXiv 2304.08818)."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lvdm.diffusion.conditioning import EncodedPicture
from lvdm.diffusion.guidance import Denoise
from lvdm.diffusion.noise import Noise, RenamedNoise
from lvdm.pipeline.run import Run
from lvdm.pipeline.snapshot import Pass, Waiting
from lvdm.sampling.plan import between
from lvdm.sampling.queue import LatentQueue, arriving
from lvdm.sampling.sampler import denoise_period

IN_BETWEEN = {"enqueue": "between", "step": "between step", "context": "between context"}  # purposes of the noise


def interpolated(
    run: Run,
    passes: Iterator[Pass],
    waiting: Waiting | None,
    *,
    denoiser: Callable[[EncodedPicture | None], Denoise],
    noise: Noise,
) -> Iterator[Pass]:
    """Yield `passes` with frames in between among the finished ones: M - 1 between every two, with `--interpolate M`.

    Frames wait until a window of the U-Net is full. Each window that is filled is yielded at once, so that a run can
    stop behind it. At the end of the video the last window moves back over frames that are there already.

    Args:
        waiting: what an earlier run has left.
        denoiser: returns the denoiser under a picture, or under the user's for None.
        noise: of the video.
    """
    gaps = (run.options.video_length - 1) // run.options.interpolate  # of a full window
    for after in passes:
        waiting, first = arrived(waiting, after)
        ready = [first]
        while waiting is not None and (count := next_gaps(waiting, gaps, is_last=after.complete)):
            if ready:
                yield replace(after, finished=ready.pop(), pixels=None, waiting=waiting, complete=False)
            number = after.frames_done - waiting.frames.shape[2]
            denoise = denoiser(after.picture)
            waiting, made = fill_gaps(run, waiting, count, number=number, denoise=denoise, noise=noise)
            ready.append(made)
        yield replace(after, finished=ready.pop(), pixels=None, waiting=waiting)


def next_gaps(waiting: Waiting, gaps: int, *, is_last: bool) -> int:
    """Return how many gaps to fill next: those of a full window, at the end of the video those that there are."""
    count = waiting.frames.shape[2] - 1
    return gaps if count >= gaps else count * is_last


def arrived(waiting: Waiting | None, after: Pass) -> tuple[Waiting | None, Tensor]:
    """Return what waits after a pass, and those of its frames that the video gets at once: the first of the video."""
    frames = after.finished
    if waiting is not None:
        return replace(waiting, frames=torch.cat([waiting.frames, frames], dim=2)), frames[:, :, :0]
    if not frames.shape[2]:
        return None, frames
    return Waiting(frames, window=frames[:, :, :0]), frames[:, :, :1]


def fill_gaps(
    run: Run, waiting: Waiting, gaps: int, *, number: int, denoise: Denoise, noise: Noise
) -> tuple[Waiting, Tensor]:
    """Make the frames in the first `gaps` gaps; return what waits then, and the frames that the video gets.

    These are (1, C, gaps M, h, w): those in between, and the frame behind each gap.

    number: of the first frame that waits, counted without those in between.
    """
    every = run.options.interpolate
    schedule, noise = run.clip_schedule(), RenamedNoise(noise, IN_BETWEEN)
    queue = window_of(waiting, gaps, every, number=number, levels=len(schedule), noise=noise)

    def predict(x: Tensor, timesteps: Tensor, numbers: Tensor) -> Tensor:
        return denoise(x, timesteps, numbers.div(every, rounding_mode="floor"))  # prompts go by frames of the queue

    for after in denoise_period(predict, schedule, queue, noise=noise):
        queue = after
    left = Waiting(waiting.frames[:, :, gaps:], window=queue.latents)
    return left, queue.latents[:, :, -gaps * every :]


def window_of(waiting: Waiting, gaps: int, every: int, *, number: int, levels: int, noise: Noise) -> LatentQueue:
    """Return a window with noise in the first `gaps` gaps, behind as many frames of the window before as fit."""
    kept = waiting.window.shape[2] - gaps * every
    known = waiting.window[:, :, -kept:] if kept > 0 else waiting.frames[:, :, :1]
    plan = between(known.shape[2] + gaps * every, every, levels, known=known.shape[2])
    frames = torch.arange(plan.slots) + number * every - (known.shape[2] - 1)
    new = arriving(noise, frames[known.shape[2] :], plan)
    new[:, :, every - 1 :: every] = waiting.frames[:, :, 1 : gaps + 1]
    return LatentQueue(torch.cat([known, new], dim=2), frames, plan)
