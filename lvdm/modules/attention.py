"""Attention, and the spatial and temporal transformers of the 3D U-Net.

Feature maps of B clips of T frames have the shape (B T, C, H, W). In a spatial transformer the positions of a frame
attend to each other and to the context. In a temporal transformer the T frames at a position attend to each other; its
attn2 is self-attention too.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lvdm.modules.layers import FeedForward, GroupNorm, zero_module

TEXT_TOKENS = 77  # text tokens at the beginning of the context; any further tokens are image tokens
LONGEST_BATCH = 2**16 - 1  # CUDA's limit for the y and z size of a grid, where attention kernels put the batch
SHORT = 128  # keys up to which matrix products are faster than the flash kernel on a CPU, above all backwards


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v (B, heads, L, D) for q (B, heads, L, D) and k, v (B, heads, M, D)."""
    if q.device.type == "cpu" and k.shape[2] <= SHORT:
        logits = (q * q.shape[-1] ** -0.5) @ k.mT
        return logits.softmax(-1, dtype=torch.float32).to(v.dtype) @ v  # a softmax in bf16 takes twice as long
    if len(q) <= LONGEST_BATCH:
        return F.scaled_dot_product_attention(q, k, v)
    parts = zip(*(tensor.split(LONGEST_BATCH) for tensor in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])


class RelativePosition(nn.Module):
    """Hold a learned vector for each distance between two tokens, clamped to +-max_distance (Shaw et al. 2018)."""

    def __init__(self, width: int, *, max_distance: int):
        super().__init__()
        self.max_distance = max_distance
        self.embeddings_table = nn.Parameter(torch.empty(2 * max_distance + 1, width))
        nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, queries: int, keys: int) -> Tensor:
        """Return the vectors of key index - query index, (queries, keys, width)."""
        device = self.embeddings_table.device
        distance = torch.arange(keys, device=device)[None, :] - torch.arange(queries, device=device)[:, None]
        return self.embeddings_table[distance.clamp(-self.max_distance, self.max_distance) + self.max_distance]


class CrossAttention(nn.Module):
    """Let tokens x (N, L, C) attend to a context (N, M, D), or to themselves, with several heads.

    With `image_attention`, the image tokens of the context (those after the 77 text tokens) have their own keys and
    values; the result is the sum of the attention to text and to image tokens. With `learnable_image_scale` the image's
    part counts 1 + tanh(alpha) times. `query_tap`, if set, gets the queries (N, L, heads D_head) and returns those to
    use instead: see lvdm/sampling/taps/query_reuse.py.
    """

    def __init__(
        self,
        query_dim: int,
        *,
        context_dim: int | None = None,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
        image_attention: bool = False,
        learnable_image_scale: bool = False,
        relative_positions: int | None = None,
    ):
        super().__init__()
        inner_dim = heads * dim_head
        context_dim = query_dim if context_dim is None else context_dim
        self.heads = heads
        self.to_q = nn.Linear(query_dim, inner_dim, bias=False)
        self.to_k = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, query_dim), nn.Dropout(dropout))
        self.relative = relative_positions is not None
        if self.relative:
            self.relative_position_k = RelativePosition(dim_head, max_distance=relative_positions)
            self.relative_position_v = RelativePosition(dim_head, max_distance=relative_positions)
        self.image_attention = image_attention
        if image_attention:
            self.to_k_ip = nn.Linear(context_dim, inner_dim, bias=False)
            self.to_v_ip = nn.Linear(context_dim, inner_dim, bias=False)
        self.alpha = nn.Parameter(torch.zeros(())) if learnable_image_scale else None
        self.query_tap: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the tokens (N, L, C) that x (N, L, C) becomes by attending to context (N, M, D), or to itself."""
        q = self.to_q(x)  # (N, L, heads D_head)
        if self.query_tap is not None:
            q = self.query_tap(q)
        q = self.split_heads(q)  # (N, heads, L, D_head)
        context = x if context is None else context
        text = context[:, :TEXT_TOKENS] if self.image_attention else context
        k, v = self.split_heads(self.to_k(text)), self.split_heads(self.to_v(text))
        out = self.attend_relative(q, k, v) if self.relative else attend(q, k, v)
        if self.image_attention and context.shape[1] > TEXT_TOKENS:
            image = context[:, TEXT_TOKENS:]
            part = attend(q, self.split_heads(self.to_k_ip(image)), self.split_heads(self.to_v_ip(image)))
            out = out + (part if self.alpha is None else part * (1 + self.alpha.tanh()))
        return self.to_out(rearrange(out, "n heads l d -> n l (heads d)"))

    def split_heads(self, tokens: Tensor) -> Tensor:
        """Reshape tokens (N, L, heads D_head) to (N, heads, L, D_head)."""
        return rearrange(tokens, "n l (heads d) -> n heads l d", heads=self.heads)

    def attend_relative(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return softmax(q (k + R_k)^T / sqrt(D)) (v + R_v), where R depends on the distance from query to key."""
        to_k, to_v = (
            relative(q.shape[2], k.shape[2]).to(q.dtype)
            for relative in (self.relative_position_k, self.relative_position_v)
        )
        q = q * q.shape[-1] ** -0.5  # before the products, which could overflow in fp16
        logits = q @ k.mT + torch.einsum("nhid,ijd->nhij", q, to_k)
        weights = logits.softmax(-1, dtype=torch.float32).to(q.dtype)
        return weights @ v + torch.einsum("nhij,ijd->nhid", weights, to_v)


class BasicTransformerBlock(nn.Module):
    """Apply self-attention, attention to the context (without one, self-attention) and feed-forward, all residual.

    In a spatial transformer x is (B T, L, C) and the context (B, T or 1, M, D), one for each frame or one for the clip.
    In a temporal transformer x is (B H W, T, C) and there is no context.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        dim_head: int,
        context_dim: int | None = None,
        dropout: float = 0.0,
        image_attention: bool = False,
        learnable_image_scale: bool = False,
        relative_positions: int | None = None,
    ):
        super().__init__()
        shared = {"heads": heads, "dim_head": dim_head, "dropout": dropout, "relative_positions": relative_positions}
        self.attn1 = CrossAttention(dim, **shared)
        self.ff = FeedForward(dim, dropout=dropout)
        self.attn2 = CrossAttention(
            dim,
            context_dim=context_dim,
            image_attention=image_attention,
            learnable_image_scale=learnable_image_scale,
            **shared,
        )
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return tokens of the shape of x: (B T, L, C) with a context (B, T or 1, M, D), or (B H W, T, C)."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attend_to_context(self.norm2(x), context)
        return x + self.ff(self.norm3(x))

    def attend_to_context(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return attn2 of x (B T, L, C) to the context (B, T or 1, M, D); without a context, to x itself."""
        if context is None:
            return self.attn2(x)
        # Frames that share a context become one long row of queries, so that its keys are computed once.
        context = context.flatten(0, 1)  # (B T', M, D), T' = T or 1
        queries = x.reshape(context.shape[0], -1, x.shape[-1])  # (B T', T/T' L, C)
        return self.attn2(queries, context).reshape(x.shape)


class Transformer(nn.Module):
    """Apply norm, projection, blocks and a projection back, zero-initialised: the part that both transformers share.

    `convolution` is the layer that checkpoints store the projections as without `use_linear`.
    """

    def __init__(
        self,
        channels: int,
        blocks: Iterable[BasicTransformerBlock],
        *,
        inner_dim: int,
        convolution: type[nn.Conv1d] | type[nn.Conv2d],
        use_linear: bool,
        norm_num_groups: int,
    ):
        super().__init__()

        def projection(dim_in: int, dim_out: int) -> nn.Module:
            return nn.Linear(dim_in, dim_out) if use_linear else convolution(dim_in, dim_out, 1)

        self.norm = GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.proj_in = projection(channels, inner_dim)
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = zero_module(projection(inner_dim, channels))

    def transform(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the residual (N, L, C) to add to the features, from their normed tokens (N, L, C)."""
        tokens = project(self.proj_in, tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return project(self.proj_out, tokens)


class SpatialTransformer(Transformer):
    """Apply a transformer to the H W positions of each frame."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        dim_head: int,
        depth: int,
        context_dim: int,
        dropout: float,
        use_linear: bool,
        image_attention: bool,
        learnable_image_scale: bool,
        norm_num_groups: int,
    ):
        inner_dim = heads * dim_head
        blocks = (
            BasicTransformerBlock(
                inner_dim,
                heads=heads,
                dim_head=dim_head,
                context_dim=context_dim,
                dropout=dropout,
                image_attention=image_attention,
                learnable_image_scale=learnable_image_scale,
            )
            for _ in range(depth)
        )
        super().__init__(
            channels,
            blocks,
            inner_dim=inner_dim,
            convolution=nn.Conv2d,
            use_linear=use_linear,
            norm_num_groups=norm_num_groups,
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return x (B T, C, H, W) plus the residual; context is (B, T or 1, M, D)."""
        height, width = x.shape[2:]
        h = self.transform(rearrange(self.norm(x), "bt c h w -> bt (h w) c"), context)  # (B T, H W, C)
        return x + rearrange(h, "bt (h w) c -> bt c h w", h=height, w=width)


class TemporalTransformer(Transformer):
    """Apply a transformer to the T frames at each position; its norm takes statistics over the whole clip."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        dim_head: int,
        depth: int,
        dropout: float,
        use_linear: bool,
        norm_num_groups: int,
        relative_positions: int | None,
    ):
        inner_dim = heads * dim_head
        blocks = (
            BasicTransformerBlock(
                inner_dim, heads=heads, dim_head=dim_head, dropout=dropout, relative_positions=relative_positions
            )
            for _ in range(depth)
        )
        super().__init__(
            channels,
            blocks,
            inner_dim=inner_dim,
            convolution=nn.Conv1d,
            use_linear=use_linear,
            norm_num_groups=norm_num_groups,
        )

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return x (B T, C, H, W) plus the residual; a clip has T = `frames` frames."""
        height, width = x.shape[2:]
        h = self.norm(rearrange(x, "(b t) c h w -> b c t (h w)", t=frames))  # (B, C, T, H W)
        h = self.transform(rearrange(h, "b c t hw -> (b hw) t c"))  #          (B H W, T, C)
        return x + rearrange(h, "(b h w) t c -> (b t) c h w", h=height, w=width)


def project(layer: nn.Linear | nn.Conv1d, tokens: Tensor) -> Tensor:
    """Apply a linear layer, or a convolution of kernel size 1, to tokens (N, L, C)."""
    weight = layer.weight if layer.weight.ndim == 2 else layer.weight.flatten(1)
    return F.linear(tokens, weight, layer.bias)
