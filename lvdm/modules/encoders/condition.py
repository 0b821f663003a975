"""Text encoders: OpenCLIP towers whose weights come with the model's checkpoint."""

from collections.abc import Mapping, Sequence

import open_clip
from torch import Tensor, nn


def clip_model(arch: str | Mapping) -> open_clip.CLIP:
    """An OpenCLIP model without pretrained weights; `arch` is a name that open_clip knows, or a configuration."""
    if isinstance(arch, str):
        known = open_clip.get_model_config(arch)
        if known is None:
            raise ValueError(f"arch is {arch!r}, which open_clip does not know; try 'ViT-H-14' or give a configuration")
        arch = known
    return open_clip.CLIP(
        embed_dim=arch["embed_dim"], vision_cfg=dict(arch["vision_cfg"]), text_cfg=dict(arch["text_cfg"])
    )


class FrozenOpenCLIPEmbedder(nn.Module):
    """The tokens of the text tower's last or last but one layer, after the final norm.

    `layer` is "last" or "penultimate". `version`, `device` and `freeze` may stand in official YAML files; weights come
    from the checkpoint, devices from the caller, and whoever trains decides what is frozen.
    """

    def __init__(
        self,
        arch: str | Mapping = "ViT-H-14",
        version: str | None = None,
        device: str | None = None,
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "last",
    ):
        super().__init__()
        if layer not in ("last", "penultimate"):
            raise ValueError(f"FrozenOpenCLIPEmbedder: layer is {layer!r}, allowed are 'last' and 'penultimate'")
        self.model = clip_model(arch)
        del self.model.visual
        self.model.attn_mask = None  # ours is made on the fly; theirs would stay behind on the meta device
        self.max_length = max_length
        self.skipped_layers = 1 if layer == "penultimate" else 0

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Features (B, 77, D) of B texts; texts longer than 75 tokens are cut."""
        return self.encode_tokens(open_clip.tokenize(list(texts), self.max_length))

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Features (B, 77, D) of token ids (B, 77)."""
        embedding, length = self.model.token_embedding.weight, tokens.shape[1]
        x = self.model.token_embedding(tokens.to(embedding.device)) + self.model.positional_embedding[:length]
        causal = x.new_full((length, length), float("-inf")).triu(1)
        blocks = self.model.transformer.resblocks
        for block in blocks[: len(blocks) - self.skipped_layers]:
            x = block(x, attn_mask=causal)
        return self.model.ln_final(x)
