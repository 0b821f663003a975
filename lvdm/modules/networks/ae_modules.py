"""Networks of the KL autoencoder (Rombach et al. 2022, arXiv 2112.10752): encode pictures to latents, decode them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lvdm.modules.attention import attend
from lvdm.modules.layers import Upsample


@dataclass(frozen=True)
class AutoencoderShape:
    """Hold the `ddconfig` of an AutoencoderKL, with the names that VideoCrafter's YAML files use.

    Only `norm_num_groups` is not in them: with few channels, 32 groups would have one channel each, and a norm over one
    channel of a picture in a single color removes the color.
    """

    ch: int
    ch_mult: Sequence[int]
    num_res_blocks: int
    z_channels: int
    in_channels: int = 3
    out_ch: int = 3
    resolution: int = 256
    attn_resolutions: Sequence[int] = ()
    double_z: bool = True
    dropout: float = 0.0
    norm_num_groups: int = 32

    @property
    def widths(self) -> list[int]:
        """Return the channels of each level, finest first."""
        return [self.ch * multiplier for multiplier in self.ch_mult]

    def has_attention(self, level: int) -> bool:
        """Return whether the blocks of a level are followed by attention; level 0 is the finest."""
        return self.resolution // 2**level in self.attn_resolutions

    def norm(self, channels: int) -> nn.GroupNorm:
        """Return a group norm for feature maps (B, C, H, W) with C = `channels`."""
        return nn.GroupNorm(self.norm_num_groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Compute x + conv(swish(norm(conv(swish(norm(x)))))), with a 1x1 shortcut where the number of channels changes."""

    def __init__(self, in_channels: int, out_channels: int, *, shape: AutoencoderShape):
        super().__init__()
        self.norm1 = shape.norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = shape.norm(out_channels)
        self.dropout = nn.Dropout(shape.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)
        else:
            self.nin_shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H, W) for x (B, in_channels, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Let the positions of a feature map attend to each other, with one head and 1x1 convolutions as projections."""

    def __init__(self, channels: int, *, shape: AutoencoderShape):
        super().__init__()
        self.norm = shape.norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W) plus the residual."""
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2).mT.unsqueeze(1) for conv in (self.q, self.k, self.v))  # (B, 1, H W, C)
        out = attend(q, k, v).squeeze(1).mT.reshape(x.shape)  # (B, C, H, W)
        return x + self.proj_out(out)


class Downsample(nn.Module):
    """Halve height and width; pad on the right and at the bottom only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H/2, W/2) for x (B, C, H, W)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Middle(nn.Module):
    """Apply residual block, attention and residual block at the coarsest resolution."""

    def __init__(self, channels: int, *, shape: AutoencoderShape):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, shape=shape)
        self.attn_1 = AttnBlock(channels, shape=shape)
        self.block_2 = ResnetBlock(channels, channels, shape=shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) for x (B, C, H, W)."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Apply the blocks of one resolution, each followed by attention if `shape` says so."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, level: int, shape: AutoencoderShape):
        super().__init__()
        self.block = nn.ModuleList()
        self.attn = nn.ModuleList()
        for index in range(blocks):
            self.block.append(ResnetBlock(out_channels if index else in_channels, out_channels, shape=shape))
            if shape.has_attention(level):
                self.attn.append(AttnBlock(out_channels, shape=shape))

    def run_blocks(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H, W) for x (B, in_channels, H, W); the size changes elsewhere."""
        attentions = self.attn or [nn.Identity()] * len(self.block)
        for block, attention in zip(self.block, attentions, strict=True):
            x = attention(block(x))
        return x


class Encoder(nn.Module):
    """Encode pictures (B, 3, H, W) to moments (B, 2 z_channels, H/8, W/8); the 8 is that of four levels."""

    def __init__(self, shape: AutoencoderShape):
        super().__init__()
        widths = shape.widths
        self.conv_in = nn.Conv2d(shape.in_channels, shape.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for level, (inner, outer) in enumerate(zip([shape.ch, *widths], widths, strict=False)):
            down = Level(inner, outer, shape.num_res_blocks, level=level, shape=shape)
            if level < len(widths) - 1:
                down.downsample = Downsample(outer)
            self.down.append(down)
        self.mid = Middle(widths[-1], shape=shape)
        self.norm_out = shape.norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], shape.z_channels * (2 if shape.double_z else 1), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the moments (B, 2 z_channels, H/8, W/8) of pictures x (B, 3, H, W)."""
        h = self.conv_in(x)  # (B, ch, H, W)
        for level, down in enumerate(self.down):
            h = down.run_blocks(h)
            if level < len(self.down) - 1:
                h = down.downsample(h)
        h = self.mid(h)  # (B, C, H/8, W/8)
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Decode latents (B, z_channels, h, w) to pictures (B, 3, 8h, 8w); one block a level more than the encoder."""

    def __init__(self, shape: AutoencoderShape):
        super().__init__()
        widths = shape.widths
        self.conv_in = nn.Conv2d(shape.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], shape=shape)
        self.up = nn.ModuleList()
        for level, (outer, inner) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            up = Level(inner, outer, shape.num_res_blocks + 1, level=level, shape=shape)
            if level > 0:
                up.upsample = Upsample(outer)
            self.up.append(up)
        self.norm_out = shape.norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], shape.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Return the pictures (B, 3, 8 h, 8 w) of latents z (B, z_channels, h, w)."""
        h = self.mid(self.conv_in(z))  # (B, C, h, w)
        for level in reversed(range(len(self.up))):
            h = self.up[level].run_blocks(h)
            if level > 0:
                h = self.up[level].upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))
