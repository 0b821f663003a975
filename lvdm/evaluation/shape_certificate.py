"""Test the reader of shapes on rendered clips, whose captions are right, as they are and degraded."""

from collections.abc import Mapping, Sequence

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from lvdm.data.captions import SCENES
from lvdm.data.shape_reader import read_clip, score
from lvdm.data.shapes import HEIGHT, WIDTH, render, to_frames, trajectory
from lvdm.runtime.progress import progress_bar


def through_jpeg(video: Tensor) -> Tensor:
    """Compress and decompress each frame of (T, 3, H, W) in [0, 1] as a JPEG of quality 30."""
    files = (iio.imwrite("<bytes>", frame, extension=".jpg", quality=30) for frame in to_frames(video))
    return torch.from_numpy(np.stack([iio.imread(file, extension=".jpg") for file in files])).permute(0, 3, 1, 2) / 255


DEGRADATIONS = {  # what a small autoencoder and a video file do to frames (T, 3, H, W) in [0, 1], in this order
    "blur": lambda video: gaussian_blur(video, [7, 7], [1.0, 1.0]),
    "noise": lambda video: video + torch.randn_like(video) * 8 / 255,
    "tint": lambda video: video + torch.randn(3, 1, 1).sign() * 10 / 255,
    "jpeg": through_jpeg,
}


def certify(count: int) -> Mapping[str, Sequence[Mapping[str, bool]]]:
    """Return the scores of `count` rendered clips: clean, with each degradation, and with all; show the progress."""
    if count < 1:
        raise ValueError(f"--ground_truth {count}: expected at least 1")
    torch.manual_seed(0)
    trials = {"clean": [], **{name: [change] for name, change in DEGRADATIONS.items()}, "all": DEGRADATIONS.values()}
    scores = {name: [] for name in trials}
    for index in progress_bar(range(count), desc="reading", unit="clip"):
        scene = SCENES[index * 37 % len(SCENES)]  # 37 and the number of scenes are coprime: every scene comes once
        x, y, phase = (torch.rand(3) * torch.tensor([WIDTH, HEIGHT, 1])).tolist()
        clip, _ = render(scene, trajectory(scene.motion, torch.arange(16.0), x=x, y=y, phase=phase))
        for name, changes in trials.items():
            video = clip
            for change in changes:
                video = change(video)
            scores[name].append(score(read_clip(to_frames(video)), scene))
    return scores
