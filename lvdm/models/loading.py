"""Build the model that a YAML file describes and load its weights. `target:` may name only what is on a list."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from lvdm.io.configs import read_config
from lvdm.models.checkpoint import (
    UNET,
    Checkpoint,
    Differences,
    WrongCheckpointError,
    load_strictly,
    part_of,
    read_checkpoint,
)
from lvdm.models.lora import lora_differences, merge_lora
from lvdm.modules.layers import convolve_channels_last
from lvdm.runtime.errors import one_line, shortened
from lvdm.runtime.offload import networks_of, offload_to_host

ALLOWED_TARGETS = frozenset(
    {
        "lvdm.models.ddpm3d.LatentDiffusion",
        "lvdm.models.ddpm3d.LatentVisualDiffusion",
        "lvdm.models.autoencoder.AutoencoderKL",
        "lvdm.modules.networks.openaimodel3d.UNetModel",
        "lvdm.modules.encoders.condition.FrozenOpenCLIPEmbedder",
        "lvdm.modules.encoders.condition.FrozenOpenCLIPImageEmbedderV2",
        "lvdm.modules.encoders.resampler.Resampler",
        "torch.nn.Identity",
    }
)
GUIDANCE_LAYER = f"{UNET}time_cond_proj.weight"
HOST = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "configs"


def instantiate_from_config(config: Mapping) -> nn.Module:
    """Build `config["target"]` with `config["params"]`; a target outside the allow-list is a ValueError."""
    target = config.get("target") if isinstance(config, Mapping) else None
    if target not in ALLOWED_TARGETS:
        raise ValueError(
            f"--config: target is {shortened(repr(target))}, allowed are {', '.join(sorted(ALLOWED_TARGETS))}"
        )
    module, name = target.rsplit(".", 1)
    try:
        return getattr(import_module(module), name)(**(config.get("params") or {}))
    except (TypeError, KeyError, ArithmeticError, RuntimeError, ValueError) as error:
        if str(error).startswith("--config"):  # a part of this model has said what is wrong
            raise
        reason = one_line(error) or type(error).__name__
        raise ValueError(f"--config: the params of {target} do not fit it: {reason}") from error


def load_network(
    config: str | Path,
    ckpt_path: str | Path,
    base_ckpt_path: str | Path | None = None,
    *,
    device: torch.device,
    unet_dtype: torch.dtype = torch.float32,
    offloaded: Collection[str] = (),
) -> nn.Module:
    """Return the model of a YAML file with the weights of a checkpoint, ready to sample.

    The model is built without memory of its own and takes over the files' tensors, memory-mapped. Each is then moved to
    `device`. The tables of the noise schedule are computed, not read.

    Args:
        config, ckpt_path: the two files.
        base_ckpt_path: the checkpoint that has what the other one lacks: whole parts of the model, or everything that a
            LoRA is added to. It is not read if the other one is complete.
        unet_dtype: number format of the U-Net; everything else is in fp32.
        offloaded: names of the model's parts whose networks are on the device only while they compute; if the U-Net is
            among them ("model"), it stays there until another one computes.

    Raises:
        FileNotFoundError, ValueError: as `read_config`, `read_checkpoint` and `instantiate_from_config`.
        WrongCheckpointError: the file belongs to another model; says which shipped config would fit, if one does.
    """
    model = build_on_meta(config)
    state, factors = matching_weights(model, config, ckpt_path, base_ckpt_path)
    load_strictly(model, state)
    homes = {name: HOST if name in offloaded else device for name, _ in model.named_children()}
    if factors:
        merge_lora(model.unet, factors, device=homes["model"], dtype=unet_dtype)
    model.unet.to(homes["model"], unet_dtype)
    convolve_channels_last(model.unet)
    # What was not converted is mapped a second time, so that the first mapping, with the converted pages, can go.
    untouched = [name for name, tensor in model.state_dict().items() if tensor.data_ptr() == state[name].data_ptr()]
    del state, factors
    second, _ = matching_weights(model, config, ckpt_path, base_ckpt_path)
    rest = {name: second[name] for name in untouched}
    tables = model.fresh_tables()  # a file in half precision has rounded them
    model.load_state_dict(rest | tables, strict=False, assign=True)
    for name, module in model.named_children():
        if module is not model.model:
            module.to(homes[name], torch.float32)
    waiting = [network for name, part in model.named_children() if name in offloaded for network in networks_of(part)]
    offload_to_host(device, waiting, stay="model" in offloaded)
    for name, buffer in model.named_buffers(recurse=False):
        model.register_buffer(name, buffer.to(device))
    return model.eval().requires_grad_(False)


def matching_weights(
    model: nn.Module, config: str | Path, ckpt_path: str | Path, base_ckpt_path: str | Path | None
) -> tuple[dict[str, torch.Tensor], tuple[torch.Tensor, ...]]:
    """Read all tensors of a model from its checkpoint, or from that and its base, and the factors of a LoRA, if any.

    Raises:
        WrongCheckpointError: the file belongs to another model; names the configs that it fits.
        ValueError: as of `completed`.
    """
    checkpoint = read_checkpoint(ckpt_path)
    if differences := differences_of(model, checkpoint):
        message = f"--ckpt_path {str(ckpt_path)!r}: does not fit --config {str(config)!r}: {differences}"
        raise WrongCheckpointError(f"{message}{advice(fitting_configs(checkpoint))}")
    return completed(model, checkpoint, ckpt_path, base_ckpt_path), checkpoint.factors


def completed(
    model: nn.Module, checkpoint: Checkpoint, ckpt_path: str | Path, base_ckpt_path: str | Path | None
) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, and those of the parts that it lacks altogether from the base's file.

    A LoRA's base has no layer for the guidance scale. In the original program its weights are drawn anew in every run;
    here they are 0, so that the LoRA's product is all of it.

    Raises:
        ValueError: there is no base, or it lacks what is needed.
    """
    if not checkpoint.partial:
        return dict(checkpoint.tensors)
    if base_ckpt_path is None:
        raise ValueError(
            f"--base_ckpt_path is missing: --ckpt_path {str(ckpt_path)!r} has only "
            f"{', '.join(sorted(checkpoint.parts & dict(model.named_children()).keys())) or 'a LoRA'}; give a "
            "checkpoint that has the rest"
        )
    expected = model.state_dict()
    base = read_checkpoint(base_ckpt_path, flag="--base_ckpt_path").tensors
    wanted = {name: tensor for name, tensor in expected.items() if part_of(name) not in checkpoint.parts}
    found = {name: base[name] for name in wanted if name in base}
    if checkpoint.factors:
        found = {GUIDANCE_LAYER: torch.zeros(expected[GUIDANCE_LAYER].shape)} | found
    if differences := Differences.between(wanted, found):
        raise WrongCheckpointError(f"--base_ckpt_path {str(base_ckpt_path)!r}: lacks what is needed: {differences}")
    return found | dict(checkpoint.tensors)


def build_on_meta(config: str | Path) -> nn.Module:
    """Return the model of a YAML file, with shapes but without weights."""
    content = read_config(config)
    if "model" not in content:
        raise ValueError(f"--config {str(config)!r}: there is no section `model:`")
    with torch.device("meta"):
        return instantiate_from_config(content["model"])


def differences_of(model: nn.Module, checkpoint: Checkpoint) -> Differences:
    """Compare a checkpoint with a model: all of it, the parts that it has if it is partial, or a LoRA's layers."""
    if checkpoint.factors:
        return lora_differences(model.unet, checkpoint.factors)
    expected, parts = model.state_dict(), checkpoint.parts | {"model"}
    if checkpoint.partial:
        expected = {name: tensor for name, tensor in expected.items() if part_of(name) in parts}
    differences = Differences.between(expected, checkpoint.tensors)
    found = checkpoint.tensors.get("scale_arr")
    if model.use_dynamic_rescale and not differences and found is not None:
        # Nothing else tells DynamiCrafter's sizes apart.
        file, ours = found[-1].item(), model.tables["scale_arr"][-1]
        if not math.isclose(file, ours, rel_tol=1e-2):
            return replace(differences, other=[f"scale_arr (ends at {file:.2g} in the file, {ours:.2g} in the model)"])
    return differences


def fitting_configs(checkpoint: Checkpoint) -> list[Path]:
    """Return the shipped inference configs whose models the checkpoint fits, as of `differences_of`."""
    fitting = []
    for config in sorted(CONFIGS.glob("inference_*.yaml")):
        with suppress(ValueError):  # a config of the user's own may be unfinished
            if not differences_of(_shipped(config), checkpoint):
                fitting.append(config.relative_to(CONFIGS.parent))
    return fitting


@cache
def _shipped(config: Path) -> nn.Module:
    """Return the model of a shipped config, built once: there are many, and each takes a second."""
    return build_on_meta(config)


def advice(fitting: Sequence[Path]) -> str:
    """Say, behind a message, which configs a checkpoint fits; nothing if it fits none."""
    names = " or ".join(map(str, fitting))
    apart = ", which names and shapes do not tell apart" if len(fitting) > 1 else ""
    return f"; it fits --config {names}{apart}" if fitting else ""
