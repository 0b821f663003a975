"""The base clip: f frames sampled as the model was trained, from which the queue is filled."""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from lvdm.config import read_config
from lvdm.fifo.noise import KeyedNoise, Noise
from lvdm.fifo.options import Options
from lvdm.fifo.prompts import Prompt
from lvdm.fifo.stop import NEVER, Stop
from lvdm.files import DamagedFileError, read_sealed, set_aside, write_sealed
from lvdm.models.samplers.ddim import DDIMSchedule, Denoise, sample_clip


def sample_base_clip(
    denoise: Denoise, schedule: DDIMSchedule, *, frames: int, noise: Noise, stop: Stop = NEVER
) -> Tensor:
    """A clean clip (1, C, frames, h, w), with a progress bar; Stopped if `stop` says so."""
    numbers = range(frames)
    x = noise.draw("base", numbers, [len(schedule)] * frames)
    stochastic = bool(schedule.sigmas.any())

    def step_noise(level: int) -> Tensor | None:
        return noise.draw("base step", numbers, [level] * frames) if stochastic else None

    steps = sample_clip(denoise, schedule, x, noise=step_noise)
    for latents in tqdm(steps, total=len(schedule) - schedule.ends_in_place, desc="base clip", leave=False):
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


def cached_base_clip(key: Mapping, folder: Path, *, device: torch.device, sample: Callable[[], Tensor]) -> Tensor:
    """The base clip of `key` from `folder`, or sampled and put there: a hit changes nothing but the time.

    A file that was damaged is set aside, with a warning, and sampled anew. OSError if the clip cannot be written.
    """
    text = json.dumps(dict(key), sort_keys=True, default=str)
    path = folder / f"{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.latents"
    try:
        return load(read_sealed(path))["latents"].to(device)
    except FileNotFoundError:
        pass
    except (DamagedFileError, SafetensorError, KeyError) as error:
        set_aside(path, error)
    latents = sample()
    try:
        write_sealed(path, save({"latents": latents.contiguous().cpu()}))
    except OSError as error:
        raise OSError(f"--output_dir: the base clip cannot be written to {path} ({error})") from error
    return latents
