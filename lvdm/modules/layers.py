"""Layers that several networks share: embeddings, norms, upsampling."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_PICTURE = 1024  # pixels up to which GroupNorm has its own formula on a CPU
WIDE_GROUP = 16  # channels of a group from which it does not need it


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Return the sinusoidal embedding (..., width) of values (...) in fp32: cosines, then sines (Ho et al. 2020)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=values.device, dtype=torch.float32) * (-math.log(10000) / half))
    angles = values.float()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def zero_module(module: nn.Module) -> nn.Module:
    """Set all parameters of `module` to zero and return it: at the start of training its branch adds nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def convolve_channels_last(module: nn.Module) -> nn.Module:
    """Bring the 2D convolutions of `module` into the layout of the samplers' inputs, channels last, and return it."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    return module


class GroupNorm(nn.GroupNorm):
    """Compute nn.GroupNorm, with a faster formula for small pictures with few channels a group on a CPU.

    There torch's kernel for the channels-last layout goes through the pixels once for each group, and takes up to 50
    times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        pixels = math.prod(x.shape[2:])
        if x.device.type != "cpu" or pixels > SMALL_PICTURE or self.num_channels >= WIDE_GROUP * self.num_groups:
            return super().forward(x)
        tokens = x.movedim(1, -1).float()
        rows = tokens.reshape(len(x), pixels, self.num_channels)
        sums, squares = (
            part.sum(1).view(len(x), self.num_groups, -1).sum(-1, keepdim=True) for part in (rows, rows * rows)
        )
        count = pixels * self.num_channels // self.num_groups
        mean = sums / count  # (N, groups, 1)
        variance = (squares / count - mean * mean).clamp(min=0)
        scale = (variance + self.eps).rsqrt() * self.weight.float().view(self.num_groups, -1)
        shift = self.bias.float().view(self.num_groups, -1) - mean * scale
        normed = torch.addcmul(shift.view(len(x), 1, -1), rows, scale.view(len(x), 1, -1))
        return normed.to(x.dtype).view(tokens.shape).movedim(-1, 1)


class Upsample(nn.Module):
    """Double height and width: repeat each position four times, then apply a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
