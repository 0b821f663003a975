"""The simple layers that networks are made of: embeddings, norms, upsampling, temporal convolution, feed-forward."""

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


def guidance_sinusoid(values: Tensor, width: int) -> Tensor:
    """Return the embedding (..., width) of guidance scales (...) in fp32: sines, then cosines (LCM, arXiv 2310.04378).

    Angles reach 15,000. In half precision they would be off by a tenth of a turn, hence fp32 whatever comes in.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, device=values.device, dtype=torch.float32) * (-math.log(10000) / (half - 1)))
    angles = 1000 * values.float()[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


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
        """Return x (N, C, ...), normed over the channels of each group and all positions."""
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
        """Return (N, C, 2 H, 2 W) for x (N, C, H, W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class TemporalConv(nn.Conv3d):
    """Apply a (3, 1, 1) convolution to x (B, C, T, H W), as a 2D one: the same sums with a faster kernel."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T, H W) for x (B, C, T, H W)."""
        return F.conv2d(x, self.weight[..., 0], self.bias, padding=(1, 0))


class GEGLU(nn.Module):
    """Compute value * gelu(gate), where value and gate are linear in x (Shazeer 2020)."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., dim_out) for x (..., dim_in)."""
        # Two products instead of one that is split afterwards: element-wise kernels are faster on contiguous tensors.
        (value_weight, gate_weight), (value_bias, gate_bias) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return F.linear(x, value_weight, value_bias) * F.gelu(F.linear(x, gate_weight, gate_bias))


class FeedForward(nn.Module):
    """Apply a GEGLU of `mult` times the width, then a linear layer, to each token."""

    def __init__(self, dim: int, *, mult: int = 4, dropout: float = 0.0):
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, dim * mult), nn.Dropout(dropout), nn.Linear(dim * mult, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (..., D) for tokens (..., D)."""
        return self.net(x)
