"""The base clip: f frames sampled as the model was trained, from which the queue is filled."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from lvdm.config import read_config
from lvdm.fifo.noise import KeyedNoise, Noise
from lvdm.fifo.options import Options
from lvdm.fifo.pictures import Picture
from lvdm.files import whole_file
from lvdm.models.samplers.ddim import DDIMSchedule, Denoise, sample_clip


def sample_base_clip(denoise: Denoise, schedule: DDIMSchedule, *, frames: int, noise: Noise) -> Tensor:
    """A clean clip (1, C, frames, h, w), with a progress bar."""
    numbers = range(frames)
    x = noise.draw("base", numbers, [len(schedule)] * frames)
    stochastic = bool(schedule.sigmas.any())

    def step_noise(level: int) -> Tensor | None:
        return noise.draw("base step", numbers, [level] * frames) if stochastic else None

    steps = sample_clip(denoise, schedule, x, noise=step_noise)
    for latents in tqdm(steps, total=len(schedule) - schedule.ends_in_place, desc="base clip", leave=False):
        x = latents
    return x


def base_clip_key(options: Options, noise: KeyedNoise, *, digest: str, picture: Picture | None) -> dict:
    """Everything that changes the base clip; `digest` is the checkpoint's."""
    return {
        "picture": picture and (picture.digest, options.image_fit),
        "checkpoint": digest,
        "model": read_config(options.config)["model"],
        "noise": (noise.seed, noise.prompt, noise.repetition, noise.shape),
        "video_length": options.video_length,
        "steps": options.steps,
        "base_spacing": options.base_spacing,
        "eta": options.eta,
        "unconditional_guidance_scale": options.unconditional_guidance_scale,
        "fps": options.fps,
        "precision": options.precision,
        "device": torch.device(options.device).type,
        "torch": torch.__version__,
    }


def cached_base_clip(key: Mapping, folder: Path, *, device: torch.device, sample: Callable[[], Tensor]) -> Tensor:
    """The base clip of `key` from `folder`, or sampled and put there: a hit changes nothing but the time.

    A file that cannot be read is sampled anew and replaced. OSError if the clip cannot be written.
    """
    text = json.dumps(dict(key), sort_keys=True, default=str)
    path = folder / f"{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):
        return load_file(path)["latents"].to(device)
    latents = sample()
    try:
        with whole_file(path) as partial:
            save_file({"latents": latents.contiguous().cpu()}, partial)
    except (OSError, SafetensorError) as error:
        raise OSError(f"--output_dir: the base clip cannot be written to {path} ({error})") from error
    return latents
