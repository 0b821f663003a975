"""Fill the queue and denoise it step after step: one video as a generator, without files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.run import Run
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import advance, denoise_queue
from lvdm.sampling.taps.query_reuse import QueryReuse, attached, query_taps


@dataclass(frozen=True)
class Snapshot:
    """Hold what the next pass begins with.

    Args:
        queue: its latents, and where in its plan it is.
        image_tokens: (1, 1, N, D), which take the place of the user's picture, if any.
        ready: (1, C, K, h, w), frames in front of the queue that are finished, and that the video does not have yet.
    """

    queue: LatentQueue
    image_tokens: Tensor | None
    ready: Tensor

    @property
    def frames(self) -> int:
        """How many frames the video has."""
        return max(0, self.queue.head_frame) - self.ready.shape[2]


@dataclass(frozen=True)
class Pass:
    """Hold what a pass over the queue has left.

    Args:
        queue: as the pass left it.
        finished: (1, C, K, h, w), frames that the video gets now; K is 0 in the warm-up and within a period.
        pixels: (K, 3, H, W), the same frames, if they were decoded already.
        image_tokens, ready: as of Snapshot, for the next pass.
        frames_done: how many frames the video has, with these.
    """

    queue: LatentQueue
    finished: Tensor
    pixels: Tensor | None
    image_tokens: Tensor | None
    ready: Tensor
    frames_done: int

    def snapshot(self, conditions: Conditions) -> Snapshot:
        """Return what the next pass begins with."""
        return Snapshot(advance(self.queue, noise=conditions.noise), self.image_tokens, self.ready)


def fill_queue(run: Run, conditions: Conditions, clip: Tensor) -> Snapshot:
    """Return what the first pass begins with, for a video that begins with the base clip (1, C, f, h, w)."""
    mode, plan = run.options.mode, run.options.queue_plan
    queue = LatentQueue.from_clip(clip, plan, run.queue_schedule(), noise=conditions.noise, uniform=mode.unilatent)
    tokens = run.model.encode_pictures(run.model.decode(clip[:, :, 0])) if mode.begins_from_own_frame else None
    return Snapshot(queue, tokens, ready=clip[:, :, : max(0, plan.start)])


def denoise(run: Run, conditions: Conditions, begin: Snapshot, *, frames: int | None) -> Iterator[Pass]:
    """Take the steps of the plan from `begin` until the video has `frames` frames, or for ever; yield after each.

    Where frames are ready before the first pass, they are yielded without one.
    """
    queue, image_tokens, ready, done = begin.queue, begin.image_tokens, begin.ready, begin.frames
    if ready.shape[2]:
        after = _pass(run, queue, ready, image_tokens, done=done, frames=frames)
        yield after
        done, image_tokens, ready = after.frames_done, after.image_tokens, after.ready
    if done == frames:
        return
    options, model = run.options, run.model
    denoiser = compiled_denoiser(run, conditions, queue)
    rule = QueryReuse(*options.mode.qcache, options.qcache_weight) if options.mode.qcache else None
    taps = query_taps(model.unet, rule)

    def predict(x: Tensor, timesteps: Tensor, numbers: Tensor) -> Tensor:
        conditioned = denoiser if image_tokens is None else denoiser.with_picture(image_tokens)
        with attached(taps):  # in a pass only: between two, another video may use the same model
            return conditioned(x, timesteps, numbers)

    for left in denoise_queue(predict, run.queue_schedule(), queue, noise=conditions.noise):
        after = _pass(run, left, left.finished, image_tokens, done=done, frames=frames)
        done, image_tokens = after.frames_done, after.image_tokens
        yield after
        if done == frames:
            return


def _pass(
    run: Run, queue: LatentQueue, finished: Tensor, image_tokens: Tensor | None, *, done: int, frames: int | None
) -> Pass:
    """Return what a pass has left, with those of the `finished` frames (1, C, K, h, w) that the video is to have."""
    wanted = finished.shape[2] if frames is None else min(finished.shape[2], frames - done)
    finished, ready = finished[:, :, :wanted], finished[:, :, wanted:]
    pixels = torch.stack([*decoded_one_by_one(run.model, finished)]) if wanted and decodes_at_once(run) else None
    if run.options.mode.renews_picture and pixels is not None:
        image_tokens = run.model.encode_pictures(pixels[-1:])
    return Pass(queue, finished, pixels, image_tokens, ready, done + wanted)


def decodes_at_once(run: Run) -> bool:
    """Return whether a frame is decoded before the next pass instead of beside it.

    True where the frame becomes the picture of later ones (t2v_seed_ar), on a GPU, which would compute both one after
    the other anyway and need memory for both, and with --offload, where one network at a time is on the device.
    """
    return run.options.mode.renews_picture or run.options.offload or run.device.type != "cpu"


def decoded_one_by_one(model: LatentDiffusion, latents: Tensor) -> Iterator[Tensor]:
    """Yield the pixels (3, H, W) of each of the frames (1, C, K, h, w)."""
    for frame in latents.unbind(2):
        yield model.decode(frame)[0]


def compiled_denoiser(run: Run, conditions: Conditions, queue: LatentQueue) -> GuidedDenoiser:
    """Return the denoiser with the compiled U-Net, if it is wanted.

    A pass of the plain U-Net, whose result is thrown away, first shows how many rows fit into memory: otherwise a batch
    would be compiled for that alone. Ranks take it together if one of them has to know.
    """
    if run.compiled is None:
        return conditions.denoise
    if run.ranks.any(run.workers.undecided):
        next(denoise_queue(conditions.denoise, run.queue_schedule(), queue, noise=conditions.noise))
    return replace(conditions.denoise, unet=run.compiled)
