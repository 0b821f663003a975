"""Journeys as training data."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lvdm.data.journeys.captions import caption_of
from lvdm.data.journeys.random_scenes import SPLITS, random_scene, with_change, with_fewer_words
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import Scene

LATEST = 1 << 20  # clips begin anywhere before this frame


@dataclass(frozen=True)
class JourneyClips(Dataset):
    """A data set of `size` random clips: {"video" (3, T, H, W) in [-1, 1], "mask" (1, T, H, W), "caption", "fps"}.

    And "pictures" (2, 3, H, W), which a clip may go on from: its first frame, and one of up to `lead` frames before; a
    `lead` of 0 leaves the second out. Item i is a function of (seed, i) alone. `scenes` is "training", "held_out" or
    "all". In a share `changing` of the clips place or time changes, and the caption says what the last frame shows. A
    caption leaves out each word of colour, direction, place and time with probability `word_dropout`.
    """

    size: int
    frames: int = 16
    height: int = 128
    width: int = 192
    scenes: str = "training"
    seed: int = 0
    fps: int = 8
    lead: int = 96
    changing: float = 0.15
    word_dropout: float = 0.1

    def __post_init__(self):
        if self.scenes not in SPLITS:
            raise TypeError(f"scenes is {self.scenes!r}, allowed are {', '.join(SPLITS)}")
        for name in ("changing", "word_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise TypeError(f"{name} is {getattr(self, name)}, expected a share from 0 to 1")

    def __len__(self) -> int:
        return self.size

    def scene(self, index: int) -> tuple[Scene, int, str]:
        """The scene of item `index`, its first frame, and its caption."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        random = Random(f"{self.seed} {index}")
        scene = random_scene(random, self.scenes)
        begin = random.randrange(LATEST)
        if random.random() < self.changing:
            scene = with_change(scene, random, begin, self.frames)
        words = with_fewer_words(scene.words_at(begin + self.frames - 1), random, self.word_dropout)
        return scene, begin, caption_of(words)

    def __getitem__(self, index: int) -> Mapping:
        scene, begin, caption = self.scene(index)
        size = {"height": self.height, "width": self.width}
        clip = render(scene, begin, self.frames, **size)
        video = _to_tensor(clip.frames)  # (T, 3, H, W)
        pictures = [video[0]]
        if self.lead:
            before = begin - Random(f"lead {self.seed} {index}").randint(1, self.lead)
            pictures.append(_to_tensor(render(scene, before, 1, **size).frames)[0])
        return {
            "video": video.transpose(0, 1),
            "mask": torch.from_numpy(clip.mask[..., 0]).float()[None] / 255,
            "pictures": torch.stack(pictures),
            "caption": caption,
            "fps": self.fps,
        }


def _to_tensor(frames: np.ndarray) -> Tensor:
    """Frames (T, H, W, 3) uint8 to (T, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
