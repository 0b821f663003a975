"""Fill in what the model's config and the machine say, and check that all settings fit each other."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lvdm.diffusion.schedule import TRAIN_STEPS
from lvdm.io.configs import read_config
from lvdm.io.images import FITS
from lvdm.io.prompts import safe_experiment
from lvdm.pipeline.mode import Mode
from lvdm.pipeline.options import LARGEST_SIDE, QCACHE_WEIGHT, Options
from lvdm.pipeline.settings import check_each, settings_of, value_type
from lvdm.runtime.cpu import has_bf16_units
from lvdm.runtime.distributed import global_rank, local_rank, local_world_size, world_size
from lvdm.runtime.errors import shortened

EMBEDDED = Path("configs/inference_t2v_tiny.yaml")
EMBEDDED_WITH_PICTURES = Path("configs/inference_i2v_tiny.yaml")

# Where a config says nothing.
INFERENCE_DEFAULTS = {"fps": 8, "output_fps": 10, "unconditional_guidance_scale": 12.0, "plan": "fifo", "eta": 1.0}
INFERENCE = {name: setting for name, setting in settings_of(Options).items() if setting.from_config}


@dataclass(frozen=True)
class ConfigFacts:
    """Hold the part of a model's config that settings depend on.

    Args:
        target: class of the model.
        temporal_length: frames that it was trained on.
        size_factor: sides in pixels are multiples of this.
        defaults: of the settings that depend on the model, by their names.
        trained_levels: kinds of noise levels in clips of its training, as `lvdm.training.levels` names them.
    """

    target: str
    temporal_length: int
    size_factor: int
    defaults: Mapping[str, Any]
    trained_levels: tuple[str, ...]


def resolved(options: Options) -> Options:
    """Return `options` with every default filled in.

    Raises:
        ValueError, FileNotFoundError: values that do not fit each other, the model or the machine; one line that names
            the flag and the value.
    """
    config = options.config or embedded_config(options.mode)
    facts = config_facts(config)
    missing = {name: value for name, value in facts.defaults.items() if getattr(options, name) is None}
    if options.prompt:
        missing.pop("prompt_file", None)
    options = replace(options, config=config, **missing)
    options = _with_torchrun(options)
    check_each(options)
    _check_model(options, facts)
    _check_combinations(options)
    device = device_named(
        options.device,
        rank=local_rank() if world_size() > 1 else options.rank,
        sharing=local_world_size() if options.parallel == "windows" else 1,
    )
    _needed(options, "ckpt_path")
    experiment = str(options.mode) if options.experiment is None else options.experiment
    return replace(
        options,
        qcache_weight=_qcache_weight(options),
        device=device,
        precision=_precision(options.precision, device),
        experiment=safe_experiment(experiment),
        formats=tuple(dict.fromkeys(options.formats)),
    )


def embedded_config(mode: Mode) -> Path:
    """Return the config of the embedded model that can do `mode`."""
    return EMBEDDED_WITH_PICTURES if mode.needs_image else EMBEDDED


def config_facts(path: Path) -> ConfigFacts:
    """Read what settings depend on from a model's config; ValueError or FileNotFoundError name --config and the key."""
    where = f"--config {str(path)!r}"
    config = read_config(path)
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{where}: there is no section `model:`")
    unet = "model.params.unet_config.params"
    ddconfig = "model.params.first_stage_config.params.ddconfig"
    vae_factor = 2 ** (len(_lookup(config, f"{ddconfig}.ch_mult", list, where)) - 1)
    unet_factor = 2 ** (len(_lookup(config, f"{unet}.channel_mult", list, where)) - 1)
    temporal_length = _lookup(config, f"{unet}.temporal_length", int, where)
    return ConfigFacts(
        target=_lookup(config, "model.target", str, where),
        temporal_length=temporal_length,
        size_factor=vae_factor * unet_factor,
        defaults={"video_length": temporal_length, **_inference(config, vae_factor, where)},
        trained_levels=tuple(_lookup(config, "trained_levels", list, where) if "trained_levels" in config else ()),
    )


def _inference(config: Mapping[str, Any], vae_factor: int, where: str) -> dict[str, Any]:
    """Return what the `inference:` section says, or what is known without it."""
    section = config.get("inference") or {}
    if not isinstance(section, dict):
        given = shortened(repr(section))
        raise ValueError(f"{where}: inference is {given}, expected keys among {', '.join(INFERENCE)}")
    if unknown := section.keys() - INFERENCE.keys():
        unknown = shortened(", ".join(sorted(map(str, unknown))))
        raise ValueError(f"{where}: inference has the unknown {unknown}; allowed are {', '.join(INFERENCE)}")
    image_size = config["model"]["params"].get("image_size")  # of latents; all that official configs say
    sides = {}
    if isinstance(image_size, list) and list(map(type, image_size)) == [int, int]:
        sides = {"height": vae_factor * image_size[0], "width": vae_factor * image_size[1]}
    return INFERENCE_DEFAULTS | sides | {key: _setting_in(config, key, where) for key in section}


def _setting_in(config: Mapping[str, Any], key: str, where: str) -> Any:
    """Return the value that the `inference:` section gives a setting, with the type that Options wants."""
    kind, setting, place = value_type(Options, key), INFERENCE[key], f"inference.{key}"
    if config["inference"][key] in setting.words:
        return config["inference"][key]
    if setting.separator:
        values = _lookup(config, place, list, where)
        if any(type(value) is not kind for value in values):
            raise ValueError(f"{where}: {place} is {values!r}, expected a list of {kind.__name__}")
        return tuple(values)
    return kind(_lookup(config, place, str if kind is Path else kind, where))


def _lookup(config: Any, key: str, kind: type, where: str) -> Any:
    """Return the value at a dotted key, of the type `kind` (an int will do for a float); else ValueError."""
    value = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not fits or value == []:
        expected = "a list that is not empty" if kind is list else kind.__name__
        raise ValueError(f"{where}: {key} is {shortened(repr(value))}, expected {expected}")
    return value


def _with_torchrun(options: Options) -> Options:
    """Return the options with the share of this process, where torchrun started several that share the prompts."""
    if options.parallel != "prompts" or world_size() == 1:
        return options
    if options.num_processes > 1:
        raise ValueError(
            f"--num_processes {options.num_processes}: torchrun already sets it with --parallel prompts; leave it out"
        )
    return replace(options, num_processes=world_size(), rank=global_rank())


def _check_model(options: Options, facts: ConfigFacts) -> None:
    if options.mode.needs_image and not facts.target.endswith("LatentVisualDiffusion"):
        raise ValueError(
            f"--mode {str(options.mode)!r}: this model takes no image (the target of --config {str(options.config)!r} "
            f"is {facts.target}); allowed with it: t2v, alone or with qcache, weightedNN and unilatent; "
            f"the embedded model that takes images is --config {EMBEDDED_WITH_PICTURES}"
        )
    f, n, steps = options.video_length, options.num_partitions, options.num_inference_steps
    if f % 2 or not 2 <= f <= facts.temporal_length:
        raise ValueError(
            f"--video_length {f}: must be even and from 2 to {facts.temporal_length}, the model's temporal_length"
        )
    if f * n > TRAIN_STEPS:
        raise ValueError(
            f"--num_partitions {n}: must be at most {TRAIN_STEPS // f} for windows of {f} frames, as the queue has "
            f"{f}*{n} = {f * n} noise levels and the model knows {TRAIN_STEPS}"
        )
    if steps not in (None, options.steps):
        allowed = "as many as --timesteps" if options.timesteps else f"f*n = {f}*{n}"
        raise ValueError(
            f"--num_inference_steps {steps}: must be {allowed} = {options.steps}, or left out; --video_length sets f "
            "and --num_partitions n"
        )
    _check_plan(options)
    for side in ("height", "width"):
        pixels, factor = _needed(options, side), facts.size_factor
        if pixels < 1 or pixels % factor:
            below = pixels // factor * factor
            nearest = [str(size) for size in (below, below + factor) if 0 < size <= LARGEST_SIDE] or [str(factor)]
            raise ValueError(
                f"--{side} {pixels}: must be a positive multiple of {factor} for this model; "
                f"the nearest {'are' if len(nearest) > 1 else 'is'} {' and '.join(nearest)}"
            )


def _check_plan(options: Options) -> None:
    plan = options.queue_plan
    if options.continue_from is not None and plan.in_blocks and not plan.front:
        raise ValueError(
            f"--continue_from {str(options.continue_from)!r} --plan {options.plan}: this plan looks at no earlier "
            "frame, so nothing would go on; choose another plan"
        )
    if options.continue_from is not None and options.mode.unilatent:
        raise ValueError(
            f"--continue_from {str(options.continue_from)!r} --mode {str(options.mode)!r}: unilatent spreads a base "
            "clip over the queue, and there is none; leave one of them out"
        )
    if plan.in_blocks and options.mode.unilatent:
        raise ValueError(
            f"--mode {str(options.mode)!r} --plan {options.plan}: unilatent spreads the base clip over the queue, and "
            "this plan does not begin from a clip; leave one of them out"
        )
    if plan.levels > TRAIN_STEPS:
        raise ValueError(f"--plan {options.plan}: has {plan.levels} noise levels; at most {TRAIN_STEPS} are allowed")
    if options.new_video_length < 1 and (options.continue_from is None or options.interpolate is None):
        raise ValueError(
            f"--new_video_length {options.new_video_length}: must be at least 1; 0 is for --continue_from with "
            "--interpolate, which then only makes frames between those that there are"
        )
    if options.interpolate is not None and options.interpolate >= options.video_length:
        raise ValueError(
            f"--interpolate {options.interpolate}: must be from 2 to {options.video_length - 1}, as two given frames "
            f"and those between them must fit into a window of {options.video_length} frames (--video_length)"
        )


def _check_combinations(options: Options) -> None:
    if options.compile and options.offload:
        raise ValueError(
            "--compile --offload: cannot be combined, as compiled kernels need the weights in one place; leave one out"
        )
    if not 0 <= options.rank < options.num_processes:
        allowed = f"from 0 to {options.num_processes - 1}"
        raise ValueError(f"--rank {options.rank}: must be {allowed} with --num_processes {options.num_processes}")
    if options.negative_prompt and options.unconditional_guidance_scale == 1:
        raise ValueError(
            f"--negative_prompt {shortened(options.negative_prompt)!r}: it has no effect with "
            "--unconditional_guidance_scale 1, which is no guidance; leave it out or give another scale"
        )
    if options.image_fit != FITS[0] and not options.mode.from_picture and options.continue_from is None:
        raise ValueError(
            f"--image_fit {options.image_fit!r}: only --mode i2v and --continue_from read pictures, and --mode is "
            f"{str(options.mode)!r}; leave it out"
        )
    if options.image and not options.prompt:
        raise ValueError(
            f"--image {str(options.image[0])!r}: goes with --prompt; in a --prompt_file, lines name pictures"
        )


def _needed(options: Options, name: str) -> Any:
    if getattr(options, name) is None:
        raise ValueError(f"--{name} is missing: give it, as --config {str(options.config)!r} has no inference.{name}")
    return getattr(options, name)


def _qcache_weight(options: Options) -> float:
    given, said = options.qcache_weight, options.mode.qcache_weight
    if said is None:
        return QCACHE_WEIGHT if given is None else given
    if given is not None and not math.isclose(given, said):
        raise ValueError(f"--qcache_weight {given}: --mode {str(options.mode)!r} says {said}; give one of them")
    return said


def device_named(name: str, *, rank: int = 0, sharing: int = 1) -> str:
    """Return the device that --device means here: processes of one machine spread over its CUDA devices.

    Args:
        rank: which of this machine's processes this is.
        sharing: how many of them share the windows of a video, for which NCCL wants a device each.
    """
    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", name):
        raise ValueError(f"--device {shortened(name)!r}: must be auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return "cpu"
    index = name.partition(":")[2]
    if int(index or 0) >= count:
        allowed = f"auto, cpu, cuda or cuda:N with N from 0 to {count - 1}" if count else "auto or cpu"
        raise ValueError(f"--device {name!r}: there are {count} CUDA devices here; use {allowed}")
    if index and sharing > 1:
        raise ValueError(f"--device {name!r} --parallel windows: {sharing} ranks need a device each; use --device cuda")
    if sharing > count:
        raise ValueError(
            f"--parallel windows: {sharing} ranks need a CUDA device each, and there are {count} here; "
            f"start at most {count} (--nproc_per_node), or use --parallel prompts or --device cpu"
        )
    return name if index else f"cuda:{rank % count}"


def _precision(name: str, device: str) -> str:
    if device == "cpu":
        if name == "fp16":
            raise ValueError("--precision 'fp16': not on a CPU (--device cpu); use fp32 or bf16")
        if name == "auto":
            return "bf16" if has_bf16_units() else "fp32"
        return name
    if name == "auto":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return name
