"""Encode clips once before training, so that the autoencoder does not run over every clip in every epoch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.runtime.progress import progress_bar


@dataclass(frozen=True)
class LatentClips(Dataset):
    """A data set of N encoded clips.

    Items are {"latents" (C, T, h, w), "caption", "fps"}, with "mask" (1, T, h, w) and "pictures" (P, 3, H, W) in
    [-1, 1] if these are known.

    Args:
        latents: (N, C, T, h, w) fp16.
        masks: (N, 1, T, h, w) uint8 in 0..255, the share of each latent pixel that objects cover.
        pictures: (N, P, 3, H, W) uint8, the pictures that a clip may be conditioned on.
    """

    latents: Tensor
    masks: Tensor | None
    captions: list[str]
    fps: list[int]
    pictures: Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> dict:
        item = {"latents": self.latents[index].float(), "caption": self.captions[index], "fps": self.fps[index]}
        if self.masks is not None:
            item["mask"] = self.masks[index].float() / 255
        if self.pictures is not None:
            item["pictures"] = self.pictures[index].float() / 127.5 - 1
        return item


@torch.no_grad()
def encode_clips(model: LatentDiffusion, clips: Dataset) -> LatentClips:
    """Encode every clip of a data set, and show the progress on stderr.

    Args:
        clips: {"video" (3, T, H, W), "caption", "fps", perhaps "mask" (1, T, H, W)}, and "pictures" (P, 3, H, W) if the
            model takes pictures.
    """
    latents, masks, captions, fps, pictures = [], [], [], [], []
    device = model.betas.device
    for index in progress_bar(range(len(clips)), desc="encoding", unit="clip", leave=True):
        clip = clips[index]
        encoded = model.encode(clip["video"].transpose(0, 1).to(device)).transpose(0, 1)
        latents.append(encoded.half().cpu())
        captions.append(clip["caption"])
        fps.append(clip["fps"])
        if "mask" in clip:
            covered = F.adaptive_avg_pool3d(clip["mask"][None], encoded.shape[1:])[0]
            masks.append((255 * covered).round().byte())
        if model.takes_pictures:
            pictures.append(((clip["pictures"] + 1) * 127.5).round().byte())
    masks, pictures = (torch.stack(tensors) if tensors else None for tensors in (masks, pictures))
    return LatentClips(torch.stack(latents), masks, captions, fps, pictures)


def latent_deviation(clips: LatentClips) -> float:
    """Return the standard deviation of all latents; the noise schedule expects 1."""
    return clips.latents.float().std().item()
