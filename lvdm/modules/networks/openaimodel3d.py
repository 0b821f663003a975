"""The 3D U-Net of VideoCrafter: a 2D diffusion U-Net with temporal convolutions and temporal attention."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from lvdm.modules.attention import SpatialTransformer, TemporalTransformer
from lvdm.modules.layers import GroupNorm, Upsample, guidance_sinusoid, sinusoid, zero_module
from lvdm.modules.networks.blocks import Downsample, ResBlock, TimestepEmbedSequential, copied


class UNetModel(nn.Module):
    """Predict the noise (or v) of latent clips in which each frame may be at another noise level.

    The parameters have the names of VideoCrafter's YAML files, except `norm_num_groups`, which is always 32 there.
    DynamiCrafter's files have other names for two of them: `image_cross_attention` is `use_image_attention`, and
    `fs_condition` is `fps_cond`. With `image_cross_attention_scale_learnable` each attention to image tokens has a
    learned weight. `time_cond_proj_dim` and `motion_cond_proj_dim` are widths of T2V-Turbo's embeddings of guidance
    scales. The following are accepted without effect: `use_checkpoint` (recompute activations in training), `use_fp16`
    (see --precision) and `default_fs` (see --fps).
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
        image_cross_attention: bool = False,
        image_cross_attention_scale_learnable: bool = False,
        temporal_length: int = 16,
        addition_attention: bool = False,
        fps_cond: bool = False,
        fs_condition: bool = False,
        default_fs: int | None = None,
        time_cond_proj_dim: int | None = None,
        motion_cond_proj_dim: int | None = None,
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
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.fps_cond = fps_cond or fs_condition
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
                image_attention=use_image_attention or image_cross_attention,
                learnable_image_scale=image_cross_attention_scale_learnable,
                norm_num_groups=norm_num_groups,
            )
            if not temporal_attention:
                return [spatial]
            return [spatial, temporal_transformer(channels, heads=heads, linear=use_linear)]

        self.time_embed = embedding()
        if self.fps_cond:
            self.fps_embedding = embedding()
        self.time_cond_proj = self.motion_cond_proj = None
        if time_cond_proj_dim is not None:
            self.time_cond_proj = nn.Linear(time_cond_proj_dim, model_channels, bias=False)
        if motion_cond_proj_dim is not None:
            self.motion_cond_proj = nn.Linear(motion_cond_proj_dim, model_channels, bias=False)
            self.combine_proj = nn.Linear(2 * model_channels, model_channels, bias=False)

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

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        fps: Tensor,
        guidance: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction (K B, C, T, H, W) for x (B, C, T, H, W), in the dtype of x.

        Where a model takes a picture's latent, it stands in the last channels of x.

        Args:
            timesteps: (B, T), the training timestep 0..999 of each frame.
            context: (K B, T or 1, L, D), tokens to attend to, for each frame or for the whole clip. The first B belong
                to the B clips, the next B are others for the same clips, and so on. Layers before the first attention
                to them are computed once for all K: 6 % of VideoCrafter2's work, 22 % of the embedded models'.
            fps: (B,), frames a second; without effect on a model without `fps_cond`.
            guidance: (B,), the guidance scale w that a model with `time_cond_proj_dim` was distilled with; None leaves
                it out.
            motion: (B, T), the motion guidance scale of each frame of a model with `motion_cond_proj_dim`; None leaves
                it out, which is not the same as 0.
        """
        frames = x.shape[2]
        emb = self.embed(timesteps, fps, guidance, motion)  # (B, T, E)
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

    def embed(self, timesteps: Tensor, fps: Tensor, guidance: Tensor | None, motion: Tensor | None) -> Tensor:
        """Return the embedding (B, T, E) of each frame's timestep and guidance plus that of its clip's frame rate."""
        dtype = self.out[0].weight.dtype
        moment = sinusoid(timesteps, self.model_channels).to(dtype)  # (B, T, model_channels)
        if guidance is not None:
            moment = moment + self.embed_guidance(guidance, motion)
        emb = self.time_embed(moment)
        if self.fps_cond:
            emb = emb + self.fps_embedding(sinusoid(fps, self.model_channels).to(dtype))[:, None]
        return emb

    def embed_guidance(self, guidance: Tensor, motion: Tensor | None) -> Tensor:
        """Return the embedding of guidance scales (B,), and of motion guidance (B, T): (B, 1 or T, model_channels)."""

        def projected(layer: nn.Linear, values: Tensor) -> Tensor:
            return layer(guidance_sinusoid(values, layer.in_features).to(layer.weight.dtype))

        embedded = projected(self.time_cond_proj, guidance[:, None])
        if motion is None:
            return embedded
        moving = projected(self.motion_cond_proj, motion)
        return self.combine_proj(torch.cat([embedded.expand_as(moving), moving], dim=-1))
