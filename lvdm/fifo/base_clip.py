"""The base clip: f frames sampled as the model was trained, from which the queue is filled."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
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


def base_clip_key(options: Options, noise: KeyedNoise, *, digest: str) -> dict:
    """Everything that changes the base clip; `digest` is the checkpoint's."""
    return {
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


@dataclass(frozen=True)
class LatentCache:
    """Base clips on disk, below `folder`, by everything that changes them: a hit changes nothing but the time."""

    folder: Path

    def path(self, key: Mapping) -> Path:
        text = json.dumps(dict(key), sort_keys=True, default=str)
        return self.folder / f"{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.safetensors"

    def load(self, key: Mapping, *, device: torch.device) -> Tensor | None:
        """The clip, or None if it is not there or cannot be read."""
        try:
            return load_file(self.path(key))["latents"].to(device)
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def save(self, key: Mapping, latents: Tensor) -> None:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}.{os.getpid()}.partial")  # processes may sample the same clip
        save_file({"latents": latents.contiguous().cpu()}, partial)
        os.replace(partial, path)
