"""Build the model that a YAML file describes and load its weights. `target:` may name only what is on a list."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from lvdm.io.configs import read_config
from lvdm.models.checkpoint import Differences, WrongCheckpointError, load_strictly, read_state_dict
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
    *,
    device: torch.device,
    unet_dtype: torch.dtype = torch.float32,
    offloaded: Collection[str] = (),
) -> nn.Module:
    """Return the model of a YAML file with the weights of a checkpoint, ready to sample.

    The model is built without memory of its own and takes over the file's tensors, memory-mapped. Each is then moved to
    `device`. The tables of the noise schedule are computed, not read.

    Args:
        config, ckpt_path: the two files.
        unet_dtype: number format of the U-Net; everything else is in fp32.
        offloaded: names of the model's parts whose networks are on the device only while they compute; if the U-Net is
            among them ("model"), it stays there until another one computes.

    Raises:
        FileNotFoundError, ValueError: as `read_config`, `read_state_dict` and `instantiate_from_config`.
        WrongCheckpointError: the file belongs to another model; says which shipped config would fit, if one does.
    """
    model = build_on_meta(config)
    state = read_state_dict(ckpt_path)
    try:
        load_strictly(model, state)
    except WrongCheckpointError as error:
        fitting = fitting_config(state)
        advice = f"; it fits --config {fitting}" if fitting else ""
        message = f"--ckpt_path {str(ckpt_path)!r}: does not fit --config {str(config)!r}: {error}{advice}"
        raise WrongCheckpointError(message) from error
    homes = {name: HOST if name in offloaded else device for name, _ in model.named_children()}
    model.unet.to(homes["model"], unet_dtype)
    convolve_channels_last(model.unet)
    # What was not converted is mapped a second time, so that the first mapping, with the converted pages, can go.
    untouched = [name for name, tensor in model.state_dict().items() if tensor.data_ptr() == state[name].data_ptr()]
    del state
    second = read_state_dict(ckpt_path)
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


def build_on_meta(config: str | Path) -> nn.Module:
    """Return the model of a YAML file, with shapes but without weights."""
    content = read_config(config)
    if "model" not in content:
        raise ValueError(f"--config {str(config)!r}: there is no section `model:`")
    with torch.device("meta"):
        return instantiate_from_config(content["model"])


def fitting_config(state: Mapping[str, torch.Tensor]) -> Path | None:
    """Return the shipped inference config whose model has exactly the keys and shapes of `state`; None if none has."""
    for config in sorted(CONFIGS.glob("inference_*.yaml")):
        with suppress(ValueError):  # a config of the user's own may be unfinished
            if not Differences.between(build_on_meta(config).state_dict(), state):
                return config.relative_to(CONFIGS.parent)
    return None
