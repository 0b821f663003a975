"""The blocks that the 3D U-Net is made of: residual blocks, temporal convolutions, and a sequence of layers."""

import torch
from einops import rearrange
from torch import Tensor, nn

from lvdm.modules.attention import SpatialTransformer, TemporalTransformer
from lvdm.modules.layers import GroupNorm, TemporalConv, zero_module


class TemporalConvBlock(nn.Module):
    """Apply four temporal convolutions to the whole clip, with one residual around them."""

    def __init__(self, channels: int, *, dropout: float, norm_num_groups: int):
        super().__init__()

        def norm() -> GroupNorm:
            return GroupNorm(norm_num_groups, channels)

        self.conv1 = nn.Sequential(norm(), nn.SiLU(), TemporalConv(channels))
        self.conv2 = nn.Sequential(norm(), nn.SiLU(), nn.Dropout(dropout), TemporalConv(channels))
        self.conv3 = nn.Sequential(norm(), nn.SiLU(), nn.Dropout(dropout), TemporalConv(channels))
        self.conv4 = nn.Sequential(norm(), nn.SiLU(), nn.Dropout(dropout), zero_module(TemporalConv(channels)))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return x (B T, C, H, W) plus the residual; a clip has T = `frames` frames."""
        height, width = x.shape[2:]
        h = rearrange(x, "(b t) c h w -> b c t (h w)", t=frames)  # (B, C, T, H W)
        h = self.conv4(self.conv3(self.conv2(self.conv1(h))))
        return x + rearrange(h, "b c t (h w) -> (b t) c h w", h=height, w=width)


class ResBlock(nn.Module):
    """Apply a residual block with the frames' embeddings to x (B T, C, H, W), then the temporal convolutions.

    The embeddings (B', T, E) may belong to fewer clips; then x consists of B / B' copies of these.
    """

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        out_channels: int,
        *,
        dropout: float,
        norm_num_groups: int,
        temporal_conv: bool,
    ):
        super().__init__()
        self.in_layers = nn.Sequential(
            GroupNorm(norm_num_groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        self.out_layers = nn.Sequential(
            GroupNorm(norm_num_groups, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_module(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)
        self.temopral_conv = (
            TemporalConvBlock(out_channels, dropout=dropout, norm_num_groups=norm_num_groups) if temporal_conv else None
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return (B T, out_channels, H, W) for x (B T, channels, H, W) and the embeddings emb (B', T, E)."""
        h = self.in_layers(x)
        h = h + copied(self.emb_layers(emb.flatten(0, 1)), rows=len(h))[:, :, None, None]
        h = self.skip_connection(x) + self.out_layers(h)
        return h if self.temopral_conv is None else self.temopral_conv(h, emb.shape[1])


class Downsample(nn.Module):
    """Halve height and width."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H/2, W/2) for x (N, C, H, W)."""
        return self.op(x)


class TimestepEmbedSequential(nn.Sequential):
    """Apply layers one after another, and pass each what it takes: embeddings, context or the number of frames.

    The first layer that takes contexts copies the clips once for each of their contexts.
    """

    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """Return features (B T, C', H', W') for x (B T, C, H, W), emb (B', T, E) and context (B, T or 1, M, D)."""
        frames = emb.shape[1]
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(copied(x, rows=len(context) * frames), context)
            elif isinstance(layer, TemporalTransformer):
                x = layer(x, frames)
            else:
                x = layer(x)
        return x


def copied(x: Tensor, *, rows: int) -> Tensor:
    """Repeat x (N, ...) until it has `rows` rows; `rows` is a multiple of N."""
    return x if len(x) == rows else torch.cat([x] * (rows // len(x)))  # repeat() would not keep the layout
