"""The base clip: f frames sampled as the model was trained, from which the queue is filled."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from lvdm.cli.options import Options
from lvdm.diffusion.noise import KeyedNoise, Noise
from lvdm.diffusion.schedule import DDIMSchedule, Denoise, sample_clip
from lvdm.io.configs import read_config
from lvdm.io.files import DamagedFileError, read_sealed, set_aside, write_sealed
from lvdm.io.prompts import Prompt
from lvdm.runtime.signals import Stop


def sample_base_clip(denoise: Denoise, schedule: DDIMSchedule, *, frames: int, noise: Noise, stop: Stop) -> Tensor:
    """A clean clip (1, C, frames, h, w), with a progress bar; Stopped if `stop` says so."""
    numbers = range(frames)
    x = noise.draw("base", numbers, [len(schedule)] * frames)
    stochastic = bool(schedule.sigmas.any())

    def step_noise(level: int) -> Tensor | None:
        return noise.draw("base step", numbers, [level] * frames) if stochastic else None

    steps = sample_clip(denoise, schedule, x, noise=step_noise)
    total, first = len(schedule) - schedule.ends_in_place, stop.ranks.first
    for latents in tqdm(steps, total=total, desc="base clip", leave=False, disable=not first):
        x = latents
        stop.check()
    return x


def base_clip_key(options: Options, noise: KeyedNoise, *, digest: str, prompt: Prompt) -> dict:
    """Everything that changes the base clip; `digest` is the checkpoint's."""
    within = [(start, text) for start, text in prompt.schedule if start < options.video_length]
    return {
        "picture": prompt.picture and (prompt.picture.digest, options.image_fit),
        "prompts": (within, options.prompt_blend if len(within) > 1 else 0, options.negative_prompt),
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


def base_clip_path(key: Mapping, folder: Path) -> Path:
    """Where in `folder` the base clip of `key` is kept: used again, it changes nothing but the time."""
    text = json.dumps(dict(key), sort_keys=True, default=str)
    return folder / f"{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.latents"


def read_base_clip(path: Path) -> Tensor | None:
    """The clip (1, C, f, h, w), on the CPU; None if there is none. A damaged file is set aside, with a warning."""
    try:
        return load(read_sealed(path))["latents"]
    except FileNotFoundError:
        return None
    except (DamagedFileError, SafetensorError, KeyError) as error:
        set_aside(path, error)
        return None


def write_base_clip(path: Path, latents: Tensor) -> None:
    """OSError, with the flag's name, if it cannot be written."""
    try:
        write_sealed(path, save({"latents": latents.contiguous().cpu()}))
    except OSError as error:
        raise OSError(f"--output_dir: the base clip cannot be written to {path} ({error})") from error
