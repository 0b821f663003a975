"""Reduce the many tokens of a picture to a few for the context, by learned queries that attend to them.

This is the perceiver of Flamingo (Alayrac et al. 2022, arXiv 2204.14198), as IP-Adapter (arXiv 2308.06721) uses it.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from lvdm.modules.attention import attend


class PerceiverAttention(nn.Module):
    """Let queries (N, Q, D) attend to image tokens (N, L, D) and to themselves."""

    def __init__(self, dim: int, *, heads: int, dim_head: int):
        super().__init__()
        inner_dim = heads * dim_head
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)  # of image tokens
        self.norm2 = nn.LayerNorm(dim)  # of queries
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.to_out = nn.Linear(inner_dim, dim, bias=False)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Return what the queries (N, Q, D) gather from the tokens (N, L, D): (N, Q, D)."""
        tokens, queries = self.norm1(tokens), self.norm2(queries)
        k, v = self.to_kv(torch.cat([tokens, queries], dim=1)).chunk(2, dim=-1)  # (N, L + Q, heads D_head) each
        q, k, v = (rearrange(x, "n l (heads d) -> n heads l d", heads=self.heads) for x in (self.to_q(queries), k, v))
        return self.to_out(rearrange(attend(q, k, v), "n heads l d -> n l (heads d)"))


class Resampler(nn.Module):
    """Map image tokens (N, L, embedding_dim) to `groups` groups of tokens. The defaults are VideoCrafter1's.

    A group has `num_queries` tokens. VideoCrafter1 has one for all frames, DynamiCrafter (`video_length`, the name in
    its YAML files) one for each position in the window.
    """

    def __init__(
        self,
        *,
        dim: int = 1024,
        depth: int = 4,
        dim_head: int = 64,
        heads: int = 12,
        num_queries: int = 16,
        embedding_dim: int = 1280,
        output_dim: int = 1024,
        ff_mult: int = 4,
        video_length: int | None = None,
    ):
        super().__init__()
        self.groups = video_length or 1
        self.latents = nn.Parameter(torch.randn(1, self.groups * num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, heads=heads, dim_head=dim_head), feed_forward(dim, mult=ff_mult)])
            for _ in range(depth)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N, Q, output_dim) for image tokens (N, L, embedding_dim), Q = groups num_queries, group by group."""
        tokens = self.proj_in(tokens)  # (N, L, D)
        queries = self.latents.expand(len(tokens), -1, -1)  # (N, Q, D)
        for attention, ff in self.layers:
            queries = queries + attention(queries, tokens)
            queries = queries + ff(queries)
        return self.norm_out(self.proj_out(queries))


def feed_forward(dim: int, *, mult: int) -> nn.Sequential:
    """Return a norm and two linear layers with a GELU between them, for tokens (N, L, D)."""
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, dim * mult, bias=False), nn.GELU(), nn.Linear(dim * mult, dim, bias=False)
    )
