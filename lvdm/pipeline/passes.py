"""Fill the queue and denoise it step after step: one video as a generator, without files."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lvdm.diffusion.conditioning import EncodedPicture
from lvdm.diffusion.guidance import Denoise, GuidedDenoiser
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.interpolate import interpolated
from lvdm.pipeline.run import Run
from lvdm.pipeline.snapshot import Pass, Snapshot
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import denoise_queue
from lvdm.sampling.taps.query_reuse import QueryReuse, Tap, attached, query_taps


def fill_queue(run: Run, conditions: Conditions, clip: Tensor) -> Snapshot:
    """Return what the first pass begins with, for a video that begins with the base clip (1, C, f, h, w).

    With `--continue_from` the clip holds the frames that `encoded_source` keeps, and the new video goes on there.
    """
    options, mode, plan = run.options, run.options.mode, run.options.queue_plan
    schedule, noise = run.queue_schedule(), conditions.noise
    if options.continue_from is None:
        queue = LatentQueue.from_clip(clip, plan, schedule, noise=noise, uniform=mode.unilatent)
        ready, first = clip[:, :, : max(0, plan.start)], clip[:, :, 0]
    else:
        queue = LatentQueue.from_known(clip, plan, schedule, noise=noise)
        ready, first = clip if options.keep_source else clip[:, :, :0], clip[:, :, -1]
    picture = EncodedPicture.of(run.model, run.model.decode(first)) if mode.begins_from_own_frame else None
    return Snapshot(queue, picture, ready)


def denoise_video(run: Run, conditions: Conditions, begin: Snapshot, *, frames: int | None) -> Iterator[Pass]:
    """Take the steps of the plan from `begin` until the video has `frames` frames, or for ever; yield after each.

    Where frames are ready before the first pass, they are yielded without one. With `--interpolate` there are frames
    between the frames, which do not count.
    """
    options = run.options
    rule = QueryReuse(*options.mode.qcache, options.qcache_weight) if options.mode.qcache else None
    taps = query_taps(run.model.unet, rule)
    passes = _passes(run, conditions, begin, taps, frames=frames)
    if options.interpolate is not None:
        under = partial(with_taps, conditions.denoiser.with_frame_rate(options.interpolate), taps)
        passes = interpolated(run, passes, begin.waiting, denoiser=under, noise=conditions.noise)
    for after in passes:
        if decodes_at_once(run) and after.pixels is None and after.finished.shape[2]:
            after = replace(after, pixels=torch.stack([*decoded_one_by_one(run.model, after.finished)]))
        yield after


def with_taps(denoiser: GuidedDenoiser, taps: Sequence[Tap], picture: EncodedPicture | None) -> Denoise:
    """Return `denoiser` with taps in the U-Net while it computes, under another picture if there is one."""
    conditioned = denoiser if picture is None else denoiser.with_picture(picture)

    def predict(x: Tensor, timesteps: Tensor, numbers: Tensor) -> Tensor:
        with attached(taps):  # in a pass only: between two, another video may use the same model
            return conditioned(x, timesteps, numbers)

    return predict


def _passes(
    run: Run, conditions: Conditions, begin: Snapshot, taps: Sequence[Tap], *, frames: int | None
) -> Iterator[Pass]:
    """Yield the passes of `denoise_video` without frames in between.

    The first is none where frames of an earlier run wait for others between, which are made before the next pass.
    """
    nothing, done = begin.ready[:, :, :0], begin.given_out
    after = Pass(begin.queue, nothing, None, begin.picture, begin.ready, done, complete=done == frames)
    if begin.waiting is not None:
        yield after
    while after.ready.shape[2] and not after.complete:
        after = _pass(run, after, begin.queue, after.ready.split(run.options.video_length, dim=2), frames=frames)
        yield after
    if after.complete:
        return
    denoiser = compiled_denoiser(run, conditions, begin)

    def predict(x: Tensor, timesteps: Tensor, numbers: Tensor) -> Tensor:
        return with_taps(denoiser, taps, after.picture)(x, timesteps, numbers)

    for queue in denoise_queue(predict, run.queue_schedule(), begin.queue, noise=conditions.noise):
        after = _pass(run, after, queue, [queue.finished], frames=frames)
        yield after
        if after.complete:
            return


def _pass(run: Run, before: Pass, queue: LatentQueue, ready: Sequence[Tensor], *, frames: int | None) -> Pass:
    """Return what a pass has left.

    Args:
        before: the pass before it.
        ready: finished frames, each (1, C, K, h, w). Those of the first that the video is to have are given out.
    """
    first, picture, pixels = ready[0], before.picture, None
    wanted = first.shape[2] if frames is None else min(first.shape[2], frames - before.frames_done)
    finished, ready = first[:, :, :wanted], torch.cat([first[:, :, wanted:], *ready[1:]], dim=2)
    if run.options.mode.renews_picture and wanted:
        pixels = torch.stack([*decoded_one_by_one(run.model, finished)])
        picture = EncodedPicture.of(run.model, pixels[-1:])
    done = before.frames_done + wanted
    return Pass(queue, finished, pixels, picture, ready, done, complete=done == frames)


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


def compiled_denoiser(run: Run, conditions: Conditions, begin: Snapshot) -> GuidedDenoiser:
    """Return the denoiser with the compiled U-Net, if it is wanted.

    A pass of the plain U-Net, whose result is thrown away, first shows how many rows fit into memory: otherwise a batch
    would be compiled for that alone. Ranks take it together if one of them has to know.
    """
    if run.compiled is None:
        return conditions.denoiser
    if run.ranks.any(run.workers.undecided):
        plain = with_taps(conditions.denoiser, (), begin.picture)
        next(denoise_queue(plain, run.queue_schedule(), begin.queue, noise=conditions.noise))
    return replace(conditions.denoiser, unet=run.compiled)
