"""Encode clips once before training, so that the autoencoder does not run over every clip in every epoch."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from lvdm.io.files import whole_file
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.modules.encoders.condition import resize
from lvdm.runtime.progress import progress_bar
from lvdm.training.latents import STRETCH_STEP, LatentClips, joined

SHARD = 500  # clips of a file: an interrupted encoding loses at most so many
BATCH = 16  # frames that are encoded at a time


def encode_clips(model: LatentDiffusion, clips: Dataset, folder: Path, *, workers: int = 0) -> LatentClips:
    """Encode every clip of a data set that `folder` does not hold yet, show the progress on stderr, and return all.

    Args:
        clips: {"video" (3, T, H, W), "caption", "fps", perhaps "mask" (1, T, H, W), perhaps "caption_before" and
            "switch", the frame from which "caption" holds}, and "pictures" (P, 3, H, W) if the model takes pictures:
            the first frame, and perhaps frames from before the clip.
        folder: gets a file of every 500 clips.
        workers: processes that make clips while this one encodes them; 0 for none.
    """
    shards = {folder / f"{begin:07d}.pt": range(begin, len(clips))[:SHARD] for begin in range(0, len(clips), SHARD)}
    missing = {path: numbers for path, numbers in shards.items() if not path.exists()}
    subset = Subset(clips, [number for numbers in missing.values() for number in numbers])
    items = iter(DataLoader(subset, batch_size=None, num_workers=workers))
    done = len(clips) - len(subset)
    with progress_bar(total=len(clips), initial=done, desc="encoding", unit="clip", leave=True) as bar:
        for path, numbers in missing.items():
            encoded = []
            for _ in numbers:
                encoded.append(encode_clip(model, next(items)))
                bar.update()
            with whole_file(path) as partial:
                torch.save(vars(joined(encoded)), partial)
    return joined([LatentClips(**torch.load(path, weights_only=True, mmap=True)) for path in shards])


@torch.no_grad()
def encode_clip(model: LatentDiffusion, clip: Mapping) -> LatentClips:
    """Return a clip, as `encode_clips` gets it, as a data set of one encoded clip."""
    frames = clip["video"].transpose(0, 1)  # (T, 3, H, W)
    encoded = [model.encode(some.to(model.betas.device)).half().cpu() for some in frames.split(BATCH)]
    latents = torch.cat(encoded).transpose(0, 1)
    mask = pictures = None
    if "mask" in clip:
        mask = F.adaptive_avg_pool3d(clip["mask"], latents.shape[1:])[None].mul(255).round().byte()
    if model.takes_pictures:
        pictures = stored_pictures(model, torch.cat([frames[::STRETCH_STEP], clip["pictures"][1:]]))[None]
    captions = (clip.get("caption_before", clip["caption"]), clip["caption"])
    return LatentClips(latents[None], mask, [captions], [clip.get("switch", 0)], [clip["fps"]], pictures)


def stored_pictures(model: LatentDiffusion, pictures: Tensor) -> Tensor:
    """Return pictures (N, 3, H, W) in [-1, 1] as uint8, in the size that the model's encoder makes of them.

    They stay as they are where that size is larger. The rounding moves their tokens by 0.1 % of the distance between
    two pictures' tokens.
    """
    height, width = model.embedder.model.visual.image_size
    if height * width < pictures.shape[2] * pictures.shape[3]:
        pictures = resize(pictures, height, width)
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte()
