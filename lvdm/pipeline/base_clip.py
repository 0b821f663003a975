"""Find what a video begins with: a base clip, sampled or kept by an earlier run, or the user's video."""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lvdm.diffusion.noise import KeyedNoise
from lvdm.io.files import DamagedFileError, read_sealed, set_aside, write_sealed
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.options import BASE_CLIP
from lvdm.pipeline.run import Run
from lvdm.pipeline.settings import identity_of
from lvdm.pipeline.source import encoded_source
from lvdm.pipeline.video import Video
from lvdm.runtime.progress import progress_bar
from lvdm.sampling.sampler import sample_clip


def first_clip(run: Run, conditions: Conditions, video: Video | None = None) -> Tensor:
    """Return what a video begins with: a base clip (1, C, f, h, w), or the frames of `encoded_source`.

    video: says where base clips are kept for other videos that begin with the same; None keeps none.
    """
    if run.options.continue_from is not None:
        return encoded_source(run)
    return sample_base_clip(run, conditions) if video is None else kept_base_clip(run, conditions, video)


def kept_base_clip(run: Run, conditions: Conditions, video: Video) -> Tensor:
    """Return the base clip (1, C, f, h, w) of a video, and keep it for other videos that begin with it."""
    path = base_clip_path(base_clip_key(video, conditions.noise), video.base_clips)
    clip = run.ranks.from_first(lambda: read_base_clip(path))
    if clip is None:
        clip = sample_base_clip(run, conditions)
        if run.ranks.first:
            write_base_clip(path, clip)
    return clip.to(run.device)


def sample_base_clip(run: Run, conditions: Conditions) -> Tensor:
    """Sample a clean clip (1, C, f, h, w), with a progress bar; Stopped if a signal asks for it."""
    schedule = run.clip_schedule()
    steps = sample_clip(conditions.denoiser, schedule, frames=run.options.video_length, noise=conditions.noise)
    clip = None
    for latents in progress_bar(steps, total=len(schedule), desc="base clip", disabled=not run.ranks.first):
        clip = latents
        run.stop.check()
    return clip


def base_clip_key(video: Video, noise: KeyedNoise) -> dict[str, object]:
    """Return everything that changes the base clip of a video."""
    within = tuple((start, text) for start, text in video.prompt.schedule if start < video.options.video_length)
    prompt = replace(video.prompt, scheduled=within)
    return identity_of(video.options, prompt, video.contents, affects=BASE_CLIP) | {
        "prompts": within,
        "picture": prompt.picture and prompt.picture.digest,
        "noise": (noise.seed, noise.prompt, noise.repetition, noise.shape),
        "torch": torch.__version__,
    }


def base_clip_path(key: Mapping[str, object], folder: Path) -> Path:
    """Return where in `folder` the base clip of `key` is kept."""
    text = json.dumps(dict(key), sort_keys=True, default=str)
    return folder / f"{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.latents"


def read_base_clip(path: Path) -> Tensor | None:
    """Read a clip (1, C, f, h, w) to the CPU; None if there is none. A damaged file is set aside, with a warning."""
    try:
        return load(read_sealed(path))["latents"]
    except FileNotFoundError:
        return None
    except (DamagedFileError, SafetensorError, KeyError) as error:
        set_aside(path, error)
        return None


def write_base_clip(path: Path, latents: Tensor) -> None:
    """Write a clip; OSError, with the flag's name, if it cannot be written."""
    try:
        write_sealed(path, save({"latents": latents.contiguous().cpu()}))
    except OSError as error:
        raise OSError(f"--output_dir: the base clip cannot be written to {path} ({error})") from error
