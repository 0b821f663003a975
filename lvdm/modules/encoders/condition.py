"""Encode texts and pictures with OpenCLIP towers, whose weights come with the model's checkpoint."""

from collections.abc import Mapping, Sequence

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn


def clip_model(arch: str | Mapping) -> open_clip.CLIP:
    """Build an OpenCLIP model without pretrained weights; `arch` is a name known to open_clip, or a configuration."""
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
    """Encode texts: the tokens of the text tower's last or penultimate layer, after the final norm.

    Args:
        layer: "last" or "penultimate".
        version, device, freeze: accepted because official YAML files contain them, but without effect. Weights come
            from the checkpoint, the caller chooses the device, and the training decides what is frozen.
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
        self.model.attn_mask = None  # encode_tokens makes its own; this one would stay on the meta device
        self.max_length = max_length
        self.skipped_layers = 1 if layer == "penultimate" else 0

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return features (B, 77, D) of B texts; texts longer than 75 tokens are truncated."""
        return self.encode_tokens(open_clip.tokenize(list(texts), self.max_length))

    def unread(self, text: str) -> int:
        """Return how many tokens at the end of `text` are truncated."""
        (tokens,) = open_clip.tokenize([text], 2 * len(text.encode()) + 2)
        return max(0, int(tokens.argmax()) + 1 - self.max_length)  # the end token has the largest id

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return features (B, 77, D) of token ids (B, 77)."""
        embedding, length = self.model.token_embedding.weight, tokens.shape[1]
        x = self.model.token_embedding(tokens.to(embedding.device)) + self.model.positional_embedding[:length]
        causal = x.new_full((length, length), float("-inf")).triu(1)
        blocks = self.model.transformer.resblocks
        for block in blocks[: len(blocks) - self.skipped_layers]:
            x = block(x, attn_mask=causal)
        return self.model.ln_final(x)


class FrozenOpenCLIPImageEmbedderV2(nn.Module):
    """Encode pictures: all tokens of the image tower's last layer, without its final norm.

    The text tower's parameters outside its transformer remain, unused, because checkpoints contain them.

    Args:
        antialias: must be true: pictures are blurred before they are made smaller.
        version, device, freeze, layer: accepted because official YAML files contain them, but without effect. Weights
            come from the checkpoint, and the caller chooses the device.
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
        """Return tokens (N, 1 + patches, D) of pictures (N, 3, H, W) in [-1, 1] of any size."""
        visual = self.model.visual
        x = visual.conv1(preprocess(pictures, *visual.image_size)).flatten(2).mT  # (N, patches, D)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        return visual.transformer(visual.ln_pre(x + visual.positional_embedding))


def preprocess(pictures: Tensor, height: int, width: int) -> Tensor:
    """Resize pictures (N, 3, H, W) in [-1, 1] to height x width and normalise them with CLIP's mean and deviation."""
    mean, deviation = (
        pictures.new_tensor(values)[:, None, None]
        for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return ((resize(pictures, height, width) + 1) / 2 - mean) / deviation


def resize(pictures: Tensor, height: int, width: int) -> Tensor:
    """Resize pictures (N, 3, H, W) to height x width; a picture of this size does not change.

    Pictures that are larger on either side are blurred first. The interpolation is bicubic with aligned corners, and
    its overshoots are not clamped.
    """
    factors = pictures.shape[2] / height, pictures.shape[3] / width
    if max(factors) > 1:
        down, across = (gaussian(factor, like=pictures) for factor in factors)
        before = [len(across) // 2] * 2 + [len(down) // 2] * 2
        kernel = (down[:, None] * across[None, :]).expand(3, 1, -1, -1)
        pictures = F.conv2d(F.pad(pictures, before, mode="reflect"), kernel, groups=3)
    return F.interpolate(pictures, (height, width), mode="bicubic", align_corners=True)


def gaussian(factor: float, *, like: Tensor) -> Tensor:
    """Return the Gaussian kernel (L,), L odd, sum 1, that blurs a side before it is divided by `factor`."""
    sigma = max((factor - 1) / 2, 0.001)
    length = int(max(4 * sigma, 3)) // 2 * 2 + 1  # odd: an even length plus 1
    distance = torch.arange(length, device=like.device, dtype=like.dtype) - length // 2
    weights = torch.exp(-distance.square() / (2 * sigma**2))
    return weights / weights.sum()
