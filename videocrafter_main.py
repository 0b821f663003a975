"""Videos of any length from a 16-frame model, by FIFO-Diffusion: `python videocrafter_main.py --help`."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from lvdm.checkpoint import file_digest
from lvdm.config import load_model
from lvdm.fifo.base_clip import base_clip_key, cached_base_clip, sample_base_clip
from lvdm.fifo.conditioning import Conditioning, GuidedDenoiser
from lvdm.fifo.noise import KeyedNoise, Noise
from lvdm.fifo.options import Options, check_writable, one_line, parse_args
from lvdm.fifo.pictures import as_tensor
from lvdm.fifo.prompts import Prompt, read_prompts, share
from lvdm.fifo.queue import LatentQueue
from lvdm.fifo.record import Stopwatch, comment, write_record
from lvdm.fifo.sampler import fifo
from lvdm.fifo.sinks import GifSink, PngSink, open_sinks, to_uint8
from lvdm.fifo.workers import Workers, workers_of
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.models.samplers.ddim import DDIMSchedule
from lvdm.modules.query_reuse import QueryReuse, reuse_queries

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@torch.inference_mode()
def run(options: Options) -> None:
    """Make the video of every prompt that is this process's share."""
    prompts = read_prompts(options.prompt_file, experiment=options.experiment, with_pictures=options.mode.from_picture)
    device = torch.device(options.device)
    model = load_model(options.config, options.ckpt_path, device=device, unet_dtype=DTYPES[options.precision])
    digest = file_digest(options.ckpt_path)
    check_writable(options.results_root)
    rows = options.window_batch and 2 * options.window_batch  # a window's two halves
    with workers_of(device, rows=rows) as workers:
        for prompt in tqdm(share(prompts, rank=options.rank, num_processes=options.num_processes), desc="prompts"):
            make_video(model, prompt, options, digest=digest, workers=workers)


def make_video(model: LatentDiffusion, prompt: Prompt, options: Options, *, digest: str, workers: Workers) -> None:
    """One prompt: conditioning -> base clip -> latent queue -> diagonal denoising -> frames -> files."""
    device, f, steps, mode = model.betas.device, options.video_length, options.steps, options.mode
    seed = options.seed if prompt.seed is None else prompt.seed
    length = options.new_video_length if prompt.new_video_length is None else prompt.new_video_length
    folder = options.results_root / prompt.folder / prompt.experiment
    remark = comment(options, prompt, seed=seed)
    clock = Stopwatch()

    picture, conditioning = None, Conditioning.of_text(model, prompt.text, fps=options.fps)
    if prompt.picture is not None:
        picture = prompt.picture.read(options.height, options.width, fit=options.image_fit)
        conditioning = conditioning.with_picture(model.encode_pictures(as_tensor(picture).to(device)))
    denoise = GuidedDenoiser(model.unet, conditioning, options.unconditional_guidance_scale, workers)
    shape = model.latent_shape(options.height, options.width)
    noise = KeyedNoise(seed, prompt.text, prompt.repetition, shape, device)

    def sample() -> Tensor:
        base_schedule = DDIMSchedule.of_model(model, steps, spacing=options.base_spacing, eta=options.eta)
        return sample_base_clip(denoise, base_schedule, frames=f, noise=noise)

    if not options.save_queue:
        shutil.rmtree(folder / "queue", ignore_errors=True)  # of an earlier run
    key = base_clip_key(options, noise, digest=digest, picture=prompt.picture)
    clip = cached_base_clip(key, options.results_root / "latents", device=device, sample=sample)
    with GifSink(folder / "origin.gif", fps=options.output_fps, comment=remark) as origin:
        for frame in clip.unbind(2):
            origin.write(to_uint8(model.decode(frame)[0]))
    clock.lap("base clip")

    schedule = DDIMSchedule.of_model(model, steps, eta=options.eta, use_scale=options.queue_scale)
    stride = f // 2 if options.lookahead_denoising else f
    start = LatentQueue.from_clip(clip, schedule, noise=noise, stride=stride, uniform=mode.unilatent)
    rule = QueryReuse(*mode.qcache, options.qcache_weight) if mode.qcache else None
    if mode.seeded:
        denoise = denoise.with_picture(model.encode_pictures(model.decode(clip[:, :, 0])))
    total = steps - f + length  # the first steps - f passes are warm-up
    with ExitStack() as stack:
        stack.enter_context(reuse_queries(model.unet, rule))
        video = stack.enter_context(
            open_sinks(
                folder,
                prompt.experiment,
                formats=options.formats,
                frames=length,
                fps=options.output_fps,
                comment=remark,
                save_frames=options.save_frames,
                picture=picture,
            )
        )
        slots = stack.enter_context(PngSink(folder / "queue", slots=start.slots)) if options.save_queue else None
        bar = stack.enter_context(tqdm(total=total, desc="passes", leave=False))
        passes = decoded_passes(model, denoise, schedule, start, noise=noise, reseeded=mode.reseeded)
        for queue, frame in islice(passes, total):
            if frame is not None:
                video.write(to_uint8(frame[0]))
            if slots is not None:
                for latent in queue.latents.unbind(2):
                    slots.write(to_uint8(model.decode(latent)[0]))
            bar.update()
            pace = bar.format_dict["elapsed"] / bar.n
            bar.set_postfix_str(f"{max(0, queue.head_frame + 1)} of {length} frames written, {pace:.2f} s/frame")
    clock.lap("queue")
    path = folder / f"{prompt.experiment}.json"
    write_record(path, options, prompt=prompt, seed=seed, frames=length, checkpoint_digest=digest, seconds=clock.laps)


def decoded_passes(
    model: LatentDiffusion,
    denoise: GuidedDenoiser,
    schedule: DDIMSchedule,
    start: LatentQueue,
    *,
    noise: Noise,
    reseeded: bool,
) -> Iterator[tuple[LatentQueue, Tensor | None]]:
    """Each pass's queue, and the frame (1, 3, H, W) that it finished; None while the queue warms up.

    reseeded: a finished frame becomes the picture on which the passes after it are conditioned.
    """

    def newest(x: Tensor, timesteps: Tensor) -> Tensor:
        return denoise(x, timesteps)  # looked up at each pass

    for queue in fifo(newest, schedule, start, noise=noise):
        frame = model.decode(queue.head) if queue.head_frame >= 0 else None
        yield queue, frame
        if reseeded and frame is not None:
            denoise = denoise.with_picture(model.encode_pictures(frame))


def main(argv: Sequence[str]) -> int:
    options = None
    try:
        options = parse_args(argv)
        run(options)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        if options is not None and options.debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the unfinished video was discarded", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
