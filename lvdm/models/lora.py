"""Merge T2V-Turbo's LoRA into the U-Net that it was trained on (Hu et al. 2021, arXiv 2106.09685).

The file is a list without names: up and down of every linear layer and every convolution in two or three dimensions, in
the order in which the U-Net holds them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lvdm.models.checkpoint import Differences

ADAPTED = (nn.Linear, nn.Conv2d, nn.Conv3d)


def adapted_layers(unet: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers that a LoRA changes, with their names, in its order."""
    return [(name, module) for name, module in unet.named_modules() if isinstance(module, ADAPTED)]


def lora_differences(unet: nn.Module, factors: Sequence[Tensor]) -> Differences:
    """Compare a LoRA's factors with the layers of `unet`: how many there are, and their shapes."""
    layers = adapted_layers(unet)
    pairs = [*zip(factors[::2], factors[1::2], strict=False)]
    missing = [name for name, _ in layers[len(pairs) :]]
    unexpected = [f"number {2 * number} of the list" for number in range(len(layers), (len(factors) + 1) // 2)]
    reshaped = [
        f"{name} (file {list(up.shape)} and {list(down.shape)}, model {list(layer.weight.shape)})"
        for (name, layer), (up, down) in zip(layers, pairs, strict=False)
        if not _fits(layer, up, down)
    ]
    return Differences(missing, unexpected, reshaped)


def _fits(layer: nn.Module, up: Tensor, down: Tensor) -> bool:
    out, *inputs = layer.weight.shape
    rank = up.shape[1] if up.ndim > 1 else 0
    return up.shape == (out, rank, *[1] * (layer.weight.ndim - 2)) and down.shape == (rank, *inputs)


@torch.no_grad()
def merge_lora(unet: nn.Module, factors: Sequence[Tensor], *, device: torch.device, dtype: torch.dtype) -> None:
    """Add up times down to the weight of each adapted layer, in fp32; weights are then on `device` in `dtype`.

    factors: without differences from `unet`, as of `lora_differences`.
    """
    for (_, layer), up, down in zip(adapted_layers(unet), factors[::2], factors[1::2], strict=True):
        change = (up.flatten(1).float() @ down.flatten(1).float()).view(layer.weight.shape)
        layer.weight = nn.Parameter((layer.weight.float() + change).to(device, dtype), requires_grad=False)
