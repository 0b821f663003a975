"""Fill the queue and denoise it pass after pass: one video as a generator, without files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor

from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.run import Run
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import fifo
from lvdm.sampling.taps.query_reuse import QueryReuse, attached, query_taps


@dataclass(frozen=True)
class Pass:
    """Hold what a pass over the queue has left.

    Args:
        queue: as the pass left it; its head is a finished frame.
        pixels: (1, 3, H, W), the finished frame, if it was decoded already.
        image_tokens: (1, 1, N, D), those that the next pass is conditioned on in place of the user's picture, if any.
    """

    queue: LatentQueue
    pixels: Tensor | None
    image_tokens: Tensor | None

    @property
    def number(self) -> int:
        """Which pass of the video this is, from 1, with those of the warm-up."""
        return self.queue.head_frame + self.queue.warm_up + 1

    @property
    def frames_done(self) -> int:
        """How many frames of the video are finished; 0 in the warm-up."""
        return max(0, self.queue.head_frame + 1)


def fill_queue(run: Run, conditions: Conditions, clip: Tensor) -> tuple[LatentQueue, Tensor | None]:
    """Return the first queue, and the image tokens of the base clip's first frame if the mode is conditioned on it.

    clip: the base clip (1, C, f, h, w).
    """
    mode = run.options.mode
    queue = LatentQueue.from_clip(
        clip, run.queue_schedule(), noise=conditions.noise, stride=run.options.stride, uniform=mode.unilatent
    )
    return queue, run.model.encode_pictures(run.model.decode(clip[:, :, 0])) if mode.begins_from_own_frame else None


def denoise(
    run: Run, conditions: Conditions, queue: LatentQueue, image_tokens: Tensor | None, *, frames: int | None
) -> Iterator[Pass]:
    """Denoise `queue` until the video has `frames` frames, or for ever; yield after every pass, warm-up included.

    image_tokens: (1, 1, N, D), which take the place of the user's picture, if any.
    """
    options, model = run.options, run.model
    denoiser = compiled_denoiser(run, conditions, queue)
    rule = QueryReuse(*options.mode.qcache, options.qcache_weight) if options.mode.qcache else None
    taps = query_taps(model.unet, rule)

    def predict(x: Tensor, timesteps: Tensor, numbers: Tensor) -> Tensor:
        conditioned = denoiser if image_tokens is None else denoiser.with_picture(image_tokens)
        with attached(taps):  # in a pass only: between two, another video may use the same model
            return conditioned(x, timesteps, numbers)

    passes = fifo(predict, run.queue_schedule(), queue, noise=conditions.noise)
    if frames is not None:
        passes = islice(passes, max(0, frames - queue.head_frame))
    for after in passes:
        pixels = decoded_head(model, after) if decodes_at_once(run) else None
        if options.mode.renews_picture and pixels is not None:
            image_tokens = model.encode_pictures(pixels)
        yield Pass(after, pixels, image_tokens)


def decodes_at_once(run: Run) -> bool:
    """Return whether a frame is decoded before the next pass instead of beside it.

    True where the frame becomes the picture of later ones (t2v_seed_ar), on a GPU, which would compute both one after
    the other anyway and need memory for both, and with --offload, where one network at a time is on the device.
    """
    return run.options.mode.renews_picture or run.options.offload or run.device.type != "cpu"


def decoded_head(model: LatentDiffusion, queue: LatentQueue) -> Tensor | None:
    """Return the finished frame (1, 3, H, W); None in the warm-up."""
    return model.decode(queue.head) if queue.head_frame >= 0 else None


def compiled_denoiser(run: Run, conditions: Conditions, queue: LatentQueue) -> GuidedDenoiser:
    """Return the denoiser with the compiled U-Net, if it is wanted.

    A pass of the plain U-Net, whose result is thrown away, first shows how many rows fit into memory: otherwise a batch
    would be compiled for that alone. Ranks take it together if one of them has to know.
    """
    if run.compiled is None:
        return conditions.denoise
    if run.ranks.any(run.workers.undecided):
        next(fifo(conditions.denoise, run.queue_schedule(), queue, noise=conditions.noise))
    return replace(conditions.denoise, unet=run.compiled)
