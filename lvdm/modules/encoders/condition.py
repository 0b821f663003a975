"""Encoders of texts and pictures: OpenCLIP towers whose weights come with the model's checkpoint."""

from collections.abc import Mapping, Sequence

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn


def clip_model(arch: str | Mapping) -> open_clip.CLIP:
    """An OpenCLIP model without pretrained weights; `arch` is a name that open_clip knows, or a configuration."""
    if isinstance(arch, str):
        known = open_clip.get_model_config(arch)
        if known is None:
            raise ValueError(f"arch is {arch!r}, which open_clip does not know; try 'ViT-H-14' or give a configuration")
        arch = known
    return open_clip.CLIP(
        embed_dim=arch["embed_dim"],
        vision_cfg=dict(arch["vision_cfg"]),
        text_cfg=dict(arch["text_cfg"]),
        quick_gelu=arch.get("quick_gelu", False),
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

    def unread(self, text: str) -> int:
        """How many tokens at the end of `text` are cut."""
        (tokens,) = open_clip.tokenize([text], 2 * len(text.encode()) + 2)
        return max(0, int(tokens.argmax()) + 1 - self.max_length)  # the largest one is the end

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Features (B, 77, D) of token ids (B, 77)."""
        embedding, length = self.model.token_embedding.weight, tokens.shape[1]
        x = self.model.token_embedding(tokens.to(embedding.device)) + self.model.positional_embedding[:length]
        causal = x.new_full((length, length), float("-inf")).triu(1)
        blocks = self.model.transformer.resblocks
        for block in blocks[: len(blocks) - self.skipped_layers]:
            x = block(x, attn_mask=causal)
        return self.model.ln_final(x)


class FrozenOpenCLIPImageEmbedderV2(nn.Module):
    """All tokens of the image tower's last layer, without its final norm.

    The text tower's parameters outside its transformer stay, unused: checkpoints hold them. `version`, `device`,
    `freeze` and `layer` may stand in official YAML files: weights come from the checkpoint, devices from the caller,
    tokens are always all of the last layer's. `antialias` must be true: pictures are blurred before they shrink.
    """

    def __init__(
        self,
        arch: str | Mapping = "ViT-H-14",
        version: str | None = None,
        device: str | None = None,
        freeze: bool = True,
        layer: str = "pooled",
        antialias: bool = True,
    ):
        super().__init__()
        if not antialias:
            raise ValueError("FrozenOpenCLIPImageEmbedderV2: antialias: false is not supported")
        self.model = clip_model(arch)
        if not isinstance(self.model.visual, VisionTransformer):
            raise ValueError(
                f"FrozenOpenCLIPImageEmbedderV2: the image tower of arch {arch!r} is no vision transformer"
            )
        del self.model.transformer
        self.model.attn_mask = None

    def forward(self, pictures: Tensor) -> Tensor:
        """Tokens (N, 1 + patches, D) of pictures (N, 3, H, W) in [-1, 1] of any size."""
        visual = self.model.visual
        x = visual.conv1(preprocess(pictures, *visual.image_size)).flatten(2).mT  # (N, patches, D)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        return visual.transformer(visual.ln_pre(x + visual.positional_embedding))


def preprocess(pictures: Tensor, height: int, width: int) -> Tensor:
    """What CLIP's image tower sees of pictures (N, 3, H, W) in [-1, 1]: height x width, in CLIP's mean and deviation.

    Pictures larger than that on either side are blurred first. The resizing is bicubic, corners stay corners, and what
    it overshoots is not clamped.
    """
    factors = pictures.shape[2] / height, pictures.shape[3] / width
    if max(factors) > 1:
        down, across = (gaussian(factor, like=pictures) for factor in factors)
        before = [len(across) // 2] * 2 + [len(down) // 2] * 2
        kernel = (down[:, None] * across[None, :]).expand(3, 1, -1, -1)
        pictures = F.conv2d(F.pad(pictures, before, mode="reflect"), kernel, groups=3)
    pictures = F.interpolate(pictures, (height, width), mode="bicubic", align_corners=True)
    mean, deviation = (
        pictures.new_tensor(values)[:, None, None]
        for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return ((pictures + 1) / 2 - mean) / deviation


def gaussian(factor: float, *, like: Tensor) -> Tensor:
    """The blur (L,), L odd, before a side shrinks `factor` times; its sum is 1."""
    sigma = max((factor - 1) / 2, 0.001)
    length = int(max(4 * sigma, 3)) // 2 * 2 + 1  # an even length is made odd by one more
    distance = torch.arange(length, device=like.device, dtype=like.dtype) - length // 2
    weights = torch.exp(-distance.square() / (2 * sigma**2))
    return weights / weights.sum()
