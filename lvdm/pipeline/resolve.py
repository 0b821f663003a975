"""Fill in what the model's config and the machine say, and check that all settings fit each other."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lvdm.diffusion.schedule import TRAIN_STEPS
from lvdm.io.images import FITS
from lvdm.io.prompts import safe_experiment
from lvdm.pipeline.config_facts import DISTILLED, ConfigFacts, config_facts
from lvdm.pipeline.mode import Mode
from lvdm.pipeline.options import LARGEST_SIDE, QCACHE_WEIGHT, Options
from lvdm.pipeline.settings import check_each
from lvdm.runtime.cpu import has_bf16_units
from lvdm.runtime.distributed import global_rank, local_rank, local_world_size, world_size
from lvdm.runtime.errors import shortened

EMBEDDED = Path("configs/inference_t2v_tiny.yaml")
EMBEDDED_WITH_PICTURES = Path("configs/inference_i2v_tiny.yaml")


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
    _check_picture(options, facts)
    _check_distilled(options, facts)
    f, n, steps = options.video_length, options.num_partitions, options.num_inference_steps
    if f % 2 or not 2 <= f <= facts.temporal_length:
        raise ValueError(
            f"--video_length {f}: must be even and from 2 to {facts.temporal_length}, the model's temporal_length"
        )
    if f * n > TRAIN_STEPS and not options.timesteps:
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
    _check_plan(options, facts)
    _check_source(options)
    for side in ("height", "width"):
        pixels, factor = _needed(options, side), facts.size_factor
        if pixels < 1 or pixels % factor:
            below = pixels // factor * factor
            nearest = [str(size) for size in (below, below + factor) if 0 < size <= LARGEST_SIDE] or [str(factor)]
            raise ValueError(
                f"--{side} {pixels}: must be a positive multiple of {factor} for this model; "
                f"the nearest {'are' if len(nearest) > 1 else 'is'} {' and '.join(nearest)}"
            )


def _check_picture(options: Options, facts: ConfigFacts) -> None:
    """Check what a model that takes a picture's latent, or frames between two pictures, can make."""
    mode, config, end, f = options.mode, str(options.config), options.picture_end, options.video_length
    if facts.needs_picture and not mode.from_picture and (options.continue_from is None or not mode.needs_image):
        raise ValueError(
            f"--mode {str(mode)!r}: this model makes nothing without a picture (the U-Net of --config {config!r} takes "
            "its latent); allowed with it: i2v and i2v_ar, and with --continue_from t2v_seed and t2v_seed_ar"
        )
    if facts.between_pictures and end is None:
        raise ValueError(
            f"--picture_end is missing: --config {config!r} makes the frames between two pictures; the same one as "
            "--image makes a loop"
        )
    if facts.told_stride and options.interpolate is not None:
        raise ValueError(
            f"--interpolate {options.interpolate}: the model of --config {config!r} is told the stride between frames, "
            "which is no whole number for frames in between; leave it out"
        )
    if end is None:
        return
    if not facts.needs_picture or not mode.from_picture:
        raise ValueError(
            f"--picture_end {str(end)!r}: needs a model that takes a picture's latent (as "
            f"configs/inference_dynamicrafter_512_interp.yaml) and --mode i2v; here are --config {config!r} and "
            f"--mode {str(mode)!r}"
        )
    single = options.plan == "full" and not options.endless and options.new_video_length <= f
    if not single or options.continue_from is not None or options.interpolate is not None:
        raise ValueError(
            f"--picture_end {str(end)!r}: says how a clip of {f} frames ends, and has no meaning in a queue; give "
            f"--plan full --new_video_length {f} ({f - 1} for a loop), without --endless, --continue_from and "
            "--interpolate"
        )


def _check_distilled(options: Options, facts: ConfigFacts) -> None:
    if "distilled_guidance" in facts.told:
        _needed(options, "distilled_guidance")
    for name in DISTILLED:
        value = getattr(options, name)
        if value is not None and name not in facts.told:
            raise ValueError(
                f"--{name} {value}: the U-Net of --config {str(options.config)!r} is not told it; leave it out, and "
                "use --unconditional_guidance_scale"
            )


def _check_plan(options: Options, facts: ConfigFacts) -> None:
    plan, source = options.queue_plan, options.continue_from
    if plan.levels > TRAIN_STEPS:
        raise ValueError(f"--plan {options.plan}: has {plan.levels} noise levels; at most {TRAIN_STEPS} are allowed")
    if options.mode.unilatent and (plan.start > 0 or source is not None):
        what = f"--plan {options.plan}" if source is None else f"--continue_from {str(source)!r}"
        raise ValueError(
            f"--mode {str(options.mode)!r} {what}: unilatent spreads a base clip over the queue, and here new frames "
            "follow finished ones; leave one of them out"
        )
    asked = options.context_level != facts.defaults["context_level"]
    if asked and options.context_level and not plan.front and options.interpolate is None:
        raise ValueError(
            f"--context_level {options.context_level} --plan {options.plan}: with it (and without lookahead) the U-Net "
            "sees no clean frames; leave one of them out"
        )
    if options.timesteps and options.base_spacing != "fifo":
        raise ValueError(
            f"--base_spacing {options.base_spacing!r}: has no effect with --timesteps; leave one of them out"
        )


def _check_source(options: Options) -> None:
    plan, source = options.queue_plan, options.continue_from
    only_between = options.new_video_length == 0 and not options.endless
    if source is None and not options.keep_source:
        raise ValueError("--no-keep_source: has no effect without --continue_from; leave it out")
    if only_between and (source is None or options.interpolate is None or not options.keep_source):
        raise ValueError(
            "--new_video_length 0: must be at least 1; 0 is for --continue_from with --interpolate, which then only "
            "makes frames between those that there are"
        )
    if source is not None and plan.in_blocks and not plan.front and not only_between:
        raise ValueError(
            f"--continue_from {str(source)!r} --plan {options.plan}: this plan looks at no earlier frame, so nothing "
            "would go on; choose another plan"
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
            f"--image_fit {options.image_fit!r}: only --mode i2v, i2v_ar and --continue_from read pictures, and --mode "
            f"is {str(options.mode)!r}; leave it out"
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
