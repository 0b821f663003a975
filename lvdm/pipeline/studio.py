"""How one video is made, in stages: conditioning, base clip and queue, passes and files."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lvdm.cli.options import Options
from lvdm.diffusion.conditioning import Conditioning
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise, Noise
from lvdm.diffusion.schedule import DDIMSchedule
from lvdm.io.images import as_tensor, to_uint8
from lvdm.io.writers.gif import GifWriter
from lvdm.io.writers.video_files import NO_FILES, VideoFiles, open_files
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.pipeline.base_clip import base_clip_key, base_clip_path, read_base_clip, sample_base_clip, write_base_clip
from lvdm.pipeline.record import Stopwatch
from lvdm.pipeline.state import RunState, write_state
from lvdm.pipeline.video import Video
from lvdm.runtime.background import background_writer
from lvdm.runtime.batching import Workers
from lvdm.runtime.compile import Compiled
from lvdm.runtime.distributed import Ranks
from lvdm.runtime.signals import Stop
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import advance, fifo
from lvdm.sampling.taps.query_reuse import QueryReuse, reuse_queries


@dataclass(frozen=True)
class Studio:
    """What the videos of a run share. digest: the checkpoint's. compiled: the U-Net for the queue, if it is wanted."""

    model: LatentDiffusion
    options: Options
    digest: str
    workers: Workers
    ranks: Ranks
    stop: Stop
    compiled: Compiled | None


def conditioned(studio: Studio, video: Video) -> tuple[GuidedDenoiser, KeyedNoise, np.ndarray | None]:
    """The denoiser under the video's prompts and picture, its noise, and the picture (H, W, 3) uint8, if any."""
    model, options, prompt = studio.model, studio.options, video.prompt
    device, picture = model.betas.device, None
    for text in dict.fromkeys([*(text for _, text in prompt.schedule), options.negative_prompt]):
        if studio.ranks.first and (unread := model.cond_stage_model.unread(text)):
            tqdm.write(
                f"warning: the text encoder does not read the last {unread} tokens of {text[:60]!r}...", file=sys.stderr
            )
    conditioning = Conditioning.of_text(
        model, prompt.schedule, fps=options.fps, negative=options.negative_prompt, blend=options.prompt_blend
    )
    if prompt.picture is not None:
        picture = prompt.picture.read(options.height, options.width, fit=options.image_fit)
        conditioning = conditioning.with_picture(model.encode_pictures(as_tensor(picture).to(device)))
    shape = model.latent_shape(options.height, options.width)
    # A schedule has the noise of its first prompt: until it switches, it can be compared with that.
    noise = KeyedNoise(video.seed, prompt.schedule[0][1], prompt.repetition, shape, device)
    scale = options.unconditional_guidance_scale
    return GuidedDenoiser(model.unet, conditioning, scale, studio.workers, studio.ranks), noise, picture


def first_state(studio: Studio, video: Video, *, denoise: GuidedDenoiser, noise: KeyedNoise) -> RunState:
    """The base clip, sampled or from the cache, and the queue that it fills."""
    model, options, clock = studio.model, studio.options, Stopwatch()
    key = base_clip_key(options, noise, digest=studio.digest, prompt=video.prompt)
    path = base_clip_path(key, video.base_clips)
    clip = studio.ranks.from_first(lambda: read_base_clip(path))
    if clip is None:
        schedule = DDIMSchedule.of_model(model, options.steps, spacing=options.base_spacing, eta=options.eta)
        clip = sample_base_clip(denoise, schedule, frames=options.video_length, noise=noise, stop=studio.stop)
        if studio.ranks.first:
            write_base_clip(path, clip)
    clip = clip.to(noise.device)
    if studio.ranks.first:
        with GifWriter(video.folder / "origin.gif", fps=options.output_fps, comment=video.comment) as origin:
            for frame in clip.unbind(2):
                origin.write(to_uint8(model.decode(frame)[0]))
    seed = model.encode_pictures(model.decode(clip[:, :, 0])) if options.mode.seeded else None
    stride = options.video_length // 2 if options.lookahead_denoising else options.video_length
    schedule = queue_schedule(studio)
    queue = LatentQueue.from_clip(clip, schedule, noise=noise, stride=stride, uniform=options.mode.unilatent)
    clock.lap("base clip")
    return RunState(video.settings, queue, seed, files={}, seconds=clock.laps)


def queue_schedule(studio: Studio) -> DDIMSchedule:
    options = studio.options
    return DDIMSchedule.of_model(studio.model, options.steps, eta=options.eta, use_scale=options.queue_scale)


def denoise_to_files(
    studio: Studio,
    video: Video,
    *,
    state: RunState,
    denoise: GuidedDenoiser,
    noise: KeyedNoise,
    picture: np.ndarray | None,
    log: Callable[[str], None],
) -> RunState:
    """Pass after pass from `state` on, until the video has all of its frames; returns the state it ends in.

    Stopped if a signal asks for it, with the state saved.
    """
    model, options, stop, first = studio.model, studio.options, studio.stop, studio.ranks.first
    clock, pass_clock = Stopwatch(state.seconds), Stopwatch()
    schedule = queue_schedule(studio)
    if studio.compiled is not None:
        # A pass of the plain U-Net shows how many rows fit: else one would be compiled for it alone. Ranks take it
        # together if one has to know: who had a share of the base clip, a single window, knows by now.
        if studio.ranks.any(studio.workers.undecided):
            next(fifo(denoise, schedule, state.queue, noise=noise))
        denoise = replace(denoise, unet=studio.compiled)
    rule = QueryReuse(*options.mode.qcache, options.qcache_weight) if options.mode.qcache else None
    warm_up = options.steps - options.video_length  # passes that finish no frame of the video
    total = None if video.frames is None else warm_up + video.frames
    with ExitStack() as stack:
        stack.enter_context(reuse_queries(model.unet, rule))
        files = stack.enter_context(files_of(studio, video, state, picture=picture)) if first else NO_FILES
        write = stack.enter_context(background_writer(partial(write_frame, model, files)))
        done = state.queue.head_frame + warm_up
        bar = stack.enter_context(tqdm(initial=done, total=total, desc="passes", leave=False, disable=not first))
        passes = decoded_passes(
            model,
            state,
            denoise=denoise,
            schedule=schedule,
            noise=noise,
            reseeded=options.mode.reseeded,
            # Behind one's back only on a CPU: a GPU keeps the order and would need memory for both; offloaded networks
            # take turns, in this thread.
            decoded=options.mode.reseeded or options.offload or noise.device.type != "cpu",
        )
        if total is not None:
            passes = islice(passes, max(0, total - done))
        for number, (queue, frame, seed) in enumerate(passes, start=done + 1):
            stopped = stop.requested()  # ranks ask one another while their devices compute
            if first and queue.head_frame >= 0:
                write(queue.head, frame)
            if files.queue is not None:
                files.write_queue(to_uint8(model.decode(latent)[0]) for latent in queue.latents.unbind(2))
            bar.update()
            finished = max(0, queue.head_frame + 1)
            pace = bar.format_dict["elapsed"] / (number - done)
            bar.set_postfix_str(f"{finished} of {video.frames or 'many'} frames written, {pace:.2f} s/frame")
            log(f"pass {number}: {pass_clock.lap('pass'):.3f} s, {finished} frames finished")
            ends = stopped and finished > 0 if total is None else number == total
            if ends or stopped or number % options.save_every == 0:
                write.wait()
                clock.lap("queue")
                state = RunState(video.settings, advance(queue, noise=noise), seed, files.sync(), clock.laps)
                if first:
                    write_state(video.state, state)
            if ends:
                break
            if stopped:
                stop.check()
    return state


def write_frame(model: LatentDiffusion, files: VideoFiles, latent: Tensor, frame: Tensor | None) -> None:
    """Writes the finished frame (1, 3, H, W), after decoding `latent` (1, C, h, w) if it is None."""
    with torch.inference_mode():  # it is known in the thread that entered it only
        files.write(to_uint8((model.decode(latent) if frame is None else frame)[0]))


def files_of(
    studio: Studio, video: Video, state: RunState, *, picture: np.ndarray | None
) -> AbstractContextManager[VideoFiles]:
    """The files of `video` as the options want them, to go on with where `state` is."""
    options = studio.options
    return open_files(
        video.folder,
        video.name,
        formats=options.formats,
        fps=options.output_fps,
        comment=video.comment,
        crf=options.crf,
        save_frames=options.save_frames,
        queue_slots=state.queue.slots if options.save_queue else None,
        picture=picture,
        resume_from=state.files or None,
    )


def decoded_passes(
    model: LatentDiffusion,
    state: RunState,
    *,
    denoise: GuidedDenoiser,
    schedule: DDIMSchedule,
    noise: Noise,
    reseeded: bool,
    decoded: bool,
) -> Iterator[tuple[LatentQueue, Tensor | None, Tensor | None]]:
    """Each pass's queue, the frame (1, 3, H, W) that it finished, if any, and the image tokens for the next pass.

    The frame is None, too, unless frames are to be `decoded` before the next pass. Tokens, those of `state` to begin
    with, take the place of the picture. reseeded: they are those of the newest frame, which is to be decoded for that.
    """
    seed = state.seed

    def seeded(x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
        return (denoise if seed is None else denoise.with_picture(seed))(x, timesteps, frames)

    for queue in fifo(seeded, schedule, state.queue, noise=noise):
        frame = model.decode(queue.head) if decoded and queue.head_frame >= 0 else None
        if reseeded and frame is not None:
            seed = model.encode_pictures(frame)
        yield queue, frame, seed
