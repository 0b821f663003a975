"""Replay queries of an encoder attention in the decoder attention of the same resolution (Q-caches, FIFO-Diffusion+).

Q* = (1 - w) Q_decoder + w Q_encoder within one forward of the U-Net. The U-Net knows nothing of it: a tap on each
paired attention's queries (`query_taps`) is there within a context (`attached`).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lvdm.modules.attention import CrossAttention, SpatialTransformer, TemporalTransformer
from lvdm.modules.layers import Upsample
from lvdm.modules.networks.blocks import Downsample
from lvdm.modules.networks.openaimodel3d import UNetModel

Tap = tuple[CrossAttention, Callable[[Tensor], Tensor]]
TRANSFORMERS = {"ST": SpatialTransformer, "TT": TemporalTransformer}


@dataclass(frozen=True)
class QueryReuse:
    """Say which queries are replayed.

    Args:
        transformer: "ST" (spatial) or "TT" (temporal).
        attention: "attn1" or "attn2".
        weight: share of the encoder's query, 0 to 1.
    """

    transformer: str
    attention: str
    weight: float

    def __post_init__(self):
        if self.transformer not in TRANSFORMERS:
            raise ValueError(f"transformer is {self.transformer!r}, allowed are 'ST' and 'TT'")
        if self.attention not in ("attn1", "attn2"):
            raise ValueError(f"attention is {self.attention!r}, allowed are 'attn1' and 'attn2'")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight}, allowed are 0 to 1")


class Memory(threading.local):
    """Keep the queries that one encoder attention made last, apart for every thread that runs the U-Net."""

    queries: Tensor

    def record(self, queries: Tensor) -> Tensor:
        """Keep queries (B, L, D), and return them as they are."""
        self.queries = queries
        return queries


@dataclass(frozen=True)
class Replay:
    """Blend a decoder attention's queries with the recorded ones."""

    memory: Memory
    weight: float

    def __call__(self, queries: Tensor) -> Tensor:
        """Return queries (B, L, D) blended with the recorded ones."""
        return torch.lerp(queries, self.memory.queries, self.weight)


def block_pairs(unet: UNetModel, transformer: str) -> list[tuple[int, int]]:
    """Return (decoder block, encoder block), by index, for every decoder block that replays queries.

    Within a level the j-th decoder block takes the j-th encoder block from the end; the last one, one more than the
    encoder has, repeats the first encoder block.
    """
    kind = TRANSFORMERS[transformer]

    def holds(block: torch.nn.Module, what: type) -> bool:
        return any(isinstance(layer, what) for layer in block)

    level = 0
    encoders: dict[int, list[int]] = {}
    for index, block in enumerate(unet.input_blocks):
        level += holds(block, Downsample)
        if holds(block, kind):
            encoders.setdefault(level, []).append(index)
    pairs = []
    remaining = {key: list(indices) for key, indices in encoders.items()}
    for index, block in enumerate(unet.output_blocks):
        if holds(block, kind):
            waiting = remaining[level]
            pairs.append((index, waiting.pop() if len(waiting) > 1 else waiting[0]))
        level -= holds(block, Upsample)
    return pairs


def attention_of(block: torch.nn.Module, rule: QueryReuse) -> list[CrossAttention]:
    """Return the attentions that `rule` names in one U-Net block, one for each transformer layer."""
    kind = TRANSFORMERS[rule.transformer]
    return [
        getattr(layer, rule.attention)
        for transformer in block
        if isinstance(transformer, kind)
        for layer in transformer.transformer_blocks
    ]


def query_taps(unet: UNetModel, rule: QueryReuse | None) -> list[Tap]:
    """Return the attentions of `unet` that `rule` taps, each with its tap; none if it is None."""
    memories: dict[CrossAttention, Memory] = {}
    replays: list[Tap] = []
    for decoder_index, encoder_index in block_pairs(unet, rule.transformer) if rule else ():
        encoders = attention_of(unet.input_blocks[encoder_index], rule)
        decoders = attention_of(unet.output_blocks[decoder_index], rule)
        for encoder, decoder in zip(encoders, decoders, strict=True):
            memory = memories.setdefault(encoder, Memory())
            replays.append((decoder, Replay(memory, rule.weight)))
    return [*((encoder, memory.record) for encoder, memory in memories.items()), *replays]


@contextmanager
def attached(taps: Sequence[Tap]) -> Iterator[None]:
    """Attach `taps` within this context. The same taps may be attached again: compiled kernels stay valid."""
    try:
        for attention, tap in taps:
            attention.query_tap = tap
        yield
    finally:
        for attention, _ in taps:
            attention.query_tap = None


@contextmanager
def reuse_queries(unet: UNetModel, rule: QueryReuse | None) -> Iterator[None]:
    """Make every forward of `unet` within this context replay queries by `rule`; None changes nothing."""
    with attached(query_taps(unet, rule)):
        yield
