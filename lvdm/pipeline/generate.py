"""Make a video from Python: the same stages as the command line's, without files."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lvdm.io.images import to_uint8
from lvdm.io.prompts import Prompt, prompts_from_words
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.pipeline.base_clip import first_clip
from lvdm.pipeline.conditions import condition
from lvdm.pipeline.mode import Mode
from lvdm.pipeline.options import Options
from lvdm.pipeline.passes import decoded_one_by_one, denoise_video, fill_queue
from lvdm.pipeline.resolve import EMBEDDED, resolved
from lvdm.pipeline.run import Run, loaded_model
from lvdm.pipeline.settings import GENERATE, settings_of
from lvdm.runtime.batching import workers_of
from lvdm.runtime.compile import Compiled
from lvdm.runtime.process import process_settings

ROOT = Path(__file__).parents[2]
OF_MODEL = ("config", "ckpt_path", "base_ckpt_path", "device", "precision", "offload")
INSTEAD = "prompt, image and frames are arguments of their own, and what is yielded can be written as you like"


@dataclass(frozen=True)
class Model:
    """Hold a model that can sample, and the settings that it was loaded with.

    Args:
        network: U-Net, autoencoder and encoders, with their weights, on the device.
        options: resolved for this model: its size in pixels, guidance, device and more.
    """

    network: LatentDiffusion
    options: Options


def load_model(
    config: str | Path = EMBEDDED,
    ckpt_path: str | Path | None = None,
    base_ckpt_path: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    offload: bool = False,
) -> Model:
    """Load a model; without arguments the embedded one.

    Args:
        config: YAML file of the model. A relative path is looked up in the working directory, then beside `lvdm`.
        ckpt_path: its checkpoint; by default the one that the config names.
        base_ckpt_path: the checkpoint that has what that one lacks, or that its LoRA is added to; likewise.
        device: "auto", "cpu", "cuda" or "cuda:N"; auto is CUDA where there is one.
        precision: "auto", "fp32", "bf16" or "fp16", the number format of the U-Net; auto is the fastest one.
        offload: whether only the network that computes is on the device: less memory, slower.

    Raises:
        FileNotFoundError, ValueError: a file that is not there or cannot be read, or a value that is not allowed; the
            message names the flag of the command line that the argument is.
    """
    config = _found(config)
    given = Options(config=config, device=device, precision=precision, offload=offload)
    paths = {"ckpt_path": ckpt_path, "base_ckpt_path": base_ckpt_path}
    options = resolved(replace(given, **{name: path and Path(path) for name, path in paths.items()}))
    options = replace(options, **{name: getattr(options, name) and _found(getattr(options, name)) for name in paths})
    return Model(loaded_model(options), options)


@torch.inference_mode()
def generate(
    model: Model,
    prompt: str | Mapping[int, str],
    *,
    frames: int | None = None,
    image: str | Path | None = None,
    options: Options | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of a video, (H, W, 3) uint8, as they are finished; without end if `frames` is None.

    The frames are those of the command line with the same settings, byte for byte on the same machine. Whenever a frame
    is yielded, the caller's threads, TF32 and gradient mode are as they were.

    Args:
        prompt: what is in the video, or a schedule {frame: prompt} that begins with frame 0.
        frames: how many new ones; those of `continue_from` and those that `interpolate` makes come on top.
        image: picture to begin from; the model must take pictures.
        options: settings other than the defaults, for example `Options(seed=7, num_partitions=2)`. Model, device and
            precision are those that `model` was loaded with. What is about files, or an argument here, is an error.

    Raises:
        ValueError, FileNotFoundError: a value that is not allowed; the message names the flag that the field is.
    """
    if frames is not None and (not isinstance(frames, int) or frames < 1):
        raise ValueError(f"frames is {frames!r}: must be a whole number from 1, or None for a video without end")
    if not isinstance(prompt, (str, Mapping)):
        raise ValueError(f"prompt is {prompt!r}: must be a text, or a schedule {{frame: text}}")
    options = _options_for(model, options or Options(), with_picture=image is not None)
    entry = _entry(prompt, image)
    with workers_of(torch.device(options.device), rows=options.rows) as workers:
        compiled = Compiled(model.network.unet) if options.compile else None
        video = _frames(Run(model.network, options, workers, compiled=compiled), entry, frames)
        while True:
            with process_settings(model.network.betas.device, allow_tf32=options.precision != "fp32"):
                frame = next(video, None)
            if frame is None:
                return
            yield frame


def _frames(run: Run, prompt: Prompt, frames: int | None) -> Iterator[np.ndarray]:
    """Yield the frames of a video: conditioning, base clip, queue, denoising, frames."""
    conditions = condition(run, prompt, run.options)
    clip = first_clip(run, conditions)
    for after in denoise_video(run, conditions, fill_queue(run, conditions, clip), frames=frames):
        yield from map(
            to_uint8, decoded_one_by_one(run.model, after.finished) if after.pixels is None else after.pixels
        )


def _options_for(model: Model, options: Options, *, with_picture: bool) -> Options:
    """Return `options` with everything that they leave open as `model` was loaded."""
    loaded = model.options
    for name, setting in settings_of(Options).items():
        value = getattr(options, name)
        read_at = name == "output_fps" and options.continue_from is not None  # the rate at which that video is read
        meaningless = GENERATE in setting.set_by and not read_at
        if meaningless and value not in (getattr(Options(), name), getattr(loaded, name)):
            raise ValueError(f"--{name} {value!r}: means nothing to generate; {INSTEAD}")
    mode = Mode("i2v") if with_picture and options.mode == Mode("t2v") else options.mode
    if with_picture != mode.from_picture:
        raise ValueError(
            f"--mode {str(mode)!r}: begins {'from' if mode.from_picture else 'without'} a picture; give image="
            f"{'...' if mode.from_picture else 'None'} with it"
        )
    same = {name: getattr(loaded, name) for name in OF_MODEL}
    return resolved(replace(options, mode=mode, prompt=(), image=(), **same))


def _entry(prompt: str | Mapping[int, str], image: str | Path | None) -> Prompt:
    """Return what the command line makes of --prompt and --image."""
    if isinstance(prompt, Mapping):
        prompt = json.dumps({str(frame): text for frame, text in prompt.items()}, ensure_ascii=False)
    images = () if image is None else (Path(image),)
    (entry,) = prompts_from_words([prompt], images, with_pictures=image is not None)
    return entry


def _found(path: str | Path) -> Path:
    """Return `path`, or where it is below the folder that holds `lvdm`, if it is only there."""
    path = Path(path)
    return ROOT / path if not path.exists() and (ROOT / path).exists() else path
