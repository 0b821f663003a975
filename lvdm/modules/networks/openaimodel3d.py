"""The 3D U-Net of VideoCrafter: a 2D diffusion U-Net with temporal convolutions and temporal attention."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from lvdm.modules.attention import SpatialTransformer, TemporalTransformer
from lvdm.modules.layers import GroupNorm, TemporalConv, Upsample, sinusoid, zero_module


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


class UNetModel(nn.Module):
    """Predict the noise (or v) of latent clips in which each frame may be at another noise level.

    The parameters have the names of VideoCrafter's YAML files, except `norm_num_groups`, which is always 32 there.
    `use_checkpoint` (recompute activations in training) and `use_fp16` (see --precision) are accepted without effect.
    """

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float = 0.0,
        channel_mult: Sequence[float] = (1, 2, 4, 8),
        num_head_channels: int = 64,
        transformer_depth: int = 1,
        context_dim: int = 1024,
        use_linear: bool = False,
        use_checkpoint: bool = False,
        temporal_conv: bool = False,
        temporal_attention: bool = True,
        temporal_selfatt_only: bool = True,
        use_relative_position: bool = False,
        use_causal_attention: bool = False,
        use_image_attention: bool = False,
        temporal_length: int = 16,
        addition_attention: bool = False,
        fps_cond: bool = False,
        norm_num_groups: int = 32,
        dims: int = 2,
        conv_resample: bool = True,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        tempspatial_aware: bool = False,
        use_fp16: bool = False,
    ):
        super().__init__()
        unsupported = {
            "use_causal_attention": use_causal_attention,
            "temporal_selfatt_only: false": not temporal_selfatt_only,
            "dims other than 2": dims != 2,
            "conv_resample: false": not conv_resample,
            "use_scale_shift_norm": use_scale_shift_norm,
            "resblock_updown": resblock_updown,
            "tempspatial_aware": tempspatial_aware,
        }
        if any(unsupported.values()):
            named = ", ".join(name for name, asked in unsupported.items() if asked)
            raise ValueError(f"UNetModel: not supported, as no published VideoCrafter model needs it: {named}")
        self.model_channels = model_channels
        self.fps_cond = fps_cond
        emb_channels = 4 * model_channels
        relative_positions = temporal_length if use_relative_position else None

        def embedding() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
            )

        def res_block(channels: int, out_channels: int) -> ResBlock:
            return ResBlock(
                channels,
                emb_channels,
                out_channels,
                dropout=dropout,
                norm_num_groups=norm_num_groups,
                temporal_conv=temporal_conv,
            )

        def temporal_transformer(channels: int, *, heads: int, linear: bool) -> TemporalTransformer:
            return TemporalTransformer(
                channels,
                heads=heads,
                dim_head=num_head_channels,
                depth=transformer_depth,
                dropout=dropout,
                use_linear=linear,
                norm_num_groups=norm_num_groups,
                relative_positions=relative_positions,
            )

        def transformers(channels: int) -> list[nn.Module]:
            heads = channels // num_head_channels
            spatial = SpatialTransformer(
                channels,
                heads=heads,
                dim_head=num_head_channels,
                depth=transformer_depth,
                context_dim=context_dim,
                dropout=dropout,
                use_linear=use_linear,
                image_attention=use_image_attention,
                norm_num_groups=norm_num_groups,
            )
            if not temporal_attention:
                return [spatial]
            return [spatial, temporal_transformer(channels, heads=heads, linear=use_linear)]

        self.time_embed = embedding()
        if fps_cond:
            self.fps_embedding = embedding()

        ch, ds = model_channels, 1
        skip_channels = [ch]
        self.input_blocks = nn.ModuleList(
            [TimestepEmbedSequential(nn.Conv2d(in_channels, model_channels, 3, padding=1))]
        )
        self.init_attn = (
            TimestepEmbedSequential(temporal_transformer(model_channels, heads=8, linear=False))
            if addition_attention
            else None
        )
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers = [res_block(ch, int(mult * model_channels))]
                ch = int(mult * model_channels)
                if ds in attention_resolutions:
                    layers += transformers(ch)
                self.input_blocks.append(TimestepEmbedSequential(*layers))
                skip_channels.append(ch)
            if level < len(channel_mult) - 1:
                self.input_blocks.append(TimestepEmbedSequential(Downsample(ch)))
                skip_channels.append(ch)
                ds *= 2

        self.middle_block = TimestepEmbedSequential(res_block(ch, ch), *transformers(ch), res_block(ch, ch))

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for index in range(num_res_blocks + 1):
                layers = [res_block(ch + skip_channels.pop(), int(mult * model_channels))]
                ch = int(mult * model_channels)
                if ds in attention_resolutions:
                    layers += transformers(ch)
                if level and index == num_res_blocks:
                    layers.append(Upsample(ch))
                    ds //= 2
                self.output_blocks.append(TimestepEmbedSequential(*layers))

        self.out = nn.Sequential(
            GroupNorm(norm_num_groups, ch), nn.SiLU(), zero_module(nn.Conv2d(ch, out_channels, 3, padding=1))
        )

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, fps: Tensor) -> Tensor:
        """Return the prediction (K B, C, T, H, W) for x (B, C, T, H, W), in the dtype of x.

        Args:
            timesteps: (B, T), the training timestep 0..999 of each frame.
            context: (K B, T or 1, L, D), tokens to attend to, for each frame or for the whole clip. The first B belong
                to the B clips, the next B are others for the same clips, and so on. Layers before the first attention
                to them are computed once for all K: 6 % of VideoCrafter2's work, 22 % of the embedded models'.
            fps: (B,), frames a second; without effect on a model without `fps_cond`.
        """
        frames = x.shape[2]
        emb = self.embed(timesteps, fps)  # (B, T, E)
        h = rearrange(x, "b c t h w -> (b t) c h w")
        skips = []  # (B T, C, H, W) each, or (K B T, C, H, W) from the first attention to the context on
        for index, block in enumerate(self.input_blocks):
            h = block(h, emb, context)
            if index == 0 and self.init_attn is not None:
                h = self.init_attn(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)  # (K B T, C, H, W)
        for block in self.output_blocks:
            h = block(torch.cat([h, copied(skips.pop(), rows=len(h))], dim=1), emb, context)
        return rearrange(self.out(h), "(b t) c h w -> b c t h w", t=frames)

    def embed(self, timesteps: Tensor, fps: Tensor) -> Tensor:
        """Return the embedding (B, T, E) of each frame's timestep plus that of its clip's frame rate."""
        dtype = self.out[0].weight.dtype
        emb = self.time_embed(sinusoid(timesteps, self.model_channels).to(dtype))
        if self.fps_cond:
            emb = emb + self.fps_embedding(sinusoid(fps, self.model_channels).to(dtype))[:, None]
        return emb


def copied(x: Tensor, *, rows: int) -> Tensor:
    """Repeat x (N, ...) until it has `rows` rows; `rows` is a multiple of N."""
    return x if len(x) == rows else torch.cat([x] * (rows // len(x)))  # repeat() would not keep the layout
