"""Provide random journeys as a data set for training."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import torch
from torch.utils.data import Dataset

from lvdm.data.journeys.captions import caption_of
from lvdm.data.journeys.random_scenes import SPLITS, random_scene, with_change, with_fewer_words
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import Scene
from lvdm.io.images import as_tensor

MAX_BEGIN = 1 << 20  # the first frame of a clip is drawn below this number


@dataclass(frozen=True)
class JourneyClips(Dataset):
    """A data set of random clips; item i depends only on `seed` and i.

    Items are {"video" (3, T, H, W) in [-1, 1], "mask" (1, T, H, W) in [0, 1], "caption", "fps", "pictures" (P, 3, H, W)
    in [-1, 1]}. The pictures are what a clip may be conditioned on: its first frame, and a frame from before it. The
    caption describes the last frame of the clip.

    Args:
        size: number of clips.
        frames: frames of each clip, T.
        height, width: pixels.
        scenes: "training", "held_out" or "all".
        seed: of the random scenes.
        fps: frame rate that the model is told.
        lead: the second picture lies 1 to `lead` frames before the clip; 0 leaves it out (P = 1 instead of 2).
        changing: share of the clips in which the place or the time of day changes, from 0 to 1.
        word_dropout: probability with which a caption leaves out each of colour, direction, place and time.

    Raises:
        TypeError: `scenes` is unknown, or `changing` or `word_dropout` is no share from 0 to 1.
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
        """Return the scene of item `index`, the number of its first frame, and its caption."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        random = Random(f"{self.seed} {index}")
        scene = random_scene(random, self.scenes)
        begin = random.randrange(MAX_BEGIN)
        if random.random() < self.changing:
            scene = with_change(scene, random, begin, self.frames)
        words = with_fewer_words(scene.words_at(begin + self.frames - 1), random, self.word_dropout)
        return scene, begin, caption_of(words)

    def __getitem__(self, index: int) -> Mapping:
        scene, begin, caption = self.scene(index)
        size = {"height": self.height, "width": self.width}
        clip = render(scene, begin, self.frames, **size)
        video = as_tensor(clip.frames)  # (T, 3, H, W)
        pictures = [video[0]]
        if self.lead:
            before = begin - Random(f"lead {self.seed} {index}").randint(1, self.lead)
            pictures.append(as_tensor(render(scene, before, 1, **size).frames)[0])
        return {
            "video": video.transpose(0, 1),
            "mask": torch.from_numpy(clip.mask[..., 0]).float()[None] / 255,
            "pictures": torch.stack(pictures),
            "caption": caption,
            "fps": self.fps,
        }
