"""Hold the encoded clips that the U-Net is trained on, and give random stretches of them to the training."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

STRETCH_STEP = 8  # stretches begin at every eighth frame of a clip, which is stored as a picture


@dataclass(frozen=True)
class LatentClips(Dataset):
    """A data set of random stretches of N encoded clips of T frames.

    Items are {"latents" (C, W, h, w), "caption", "caption_before", "changed" (W,) bool, "fps"}, with "mask"
    (1, W, h, w) in [0, 1] and "pictures" (P, 3, H, W) in [-1, 1] if these are known. "caption" describes the frames
    that are `changed`, which are all of them in most items, and "caption_before" the others. The first picture is the
    first frame of the stretch, and the others are from before the clip.

    Args:
        latents: (N, C, T, h, w) fp16.
        masks: (N, 1, T, h, w) uint8 in 0..255, the share of each latent pixel that objects cover.
        captions: of each clip, what describes the frames before its `switches`, and those from it on.
        switches: 0 for a clip whose caption does not change.
        pictures: (N, S, 3, H, W) uint8: frames 0, 8, 16, ... of each clip, and then those from before it.
        window: frames of a stretch, at most T; it begins at a random multiple of 8. None for whole clips.
    """

    latents: Tensor
    masks: Tensor | None
    captions: list[tuple[str, str]]
    switches: list[int]
    fps: list[int]
    pictures: Tensor | None = None
    window: int | None = None

    @property
    def length(self) -> int:
        """Frames of an item, W."""
        return self.window or self.latents.shape[2]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> dict:
        frames = self.latents.shape[2]
        number = int(torch.randint((frames - self.length) // STRETCH_STEP + 1, ()))
        stretch = slice(number * STRETCH_STEP, number * STRETCH_STEP + self.length)
        changed = torch.arange(frames)[stretch] >= self.switches[index]
        before, after = self.captions[index]
        if not changed.any():
            after, changed = before, ~changed
        item = {
            "latents": self.latents[index, :, stretch].float(),
            "caption": after,
            "caption_before": before,
            "changed": changed,
            "fps": self.fps[index],
        }
        if self.masks is not None:
            item["mask"] = self.masks[index, :, stretch].float() / 255
        if self.pictures is not None:
            own, earlier = self.pictures[index, number], self.pictures[index, len(range(0, frames, STRETCH_STEP)) :]
            item["pictures"] = torch.cat([own[None], earlier]).float() / 127.5 - 1
        return item


def joined(parts: Sequence[LatentClips]) -> LatentClips:
    """Return the clips of all parts, in order, as one data set of whole clips."""

    def all_of(values: list) -> Any:
        if values[0] is None:
            return None
        return torch.cat(values) if isinstance(values[0], Tensor) else list(chain.from_iterable(values))

    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(LatentClips)}
    return LatentClips(**{name: all_of(values) for name, values in columns.items()})


def latent_deviation(clips: LatentClips) -> float:
    """Return the standard deviation of all latents; the noise schedule expects 1."""
    return clips.latents.float().std().item()
