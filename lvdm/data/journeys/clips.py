"""Provide random journeys as a data set for training."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import torch
from torch.utils.data import Dataset

from lvdm.data.journeys.captions import caption_of
from lvdm.data.journeys.random_scenes import SPLITS, random_scene, with_change, with_fewer_words
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import Scene, words_after
from lvdm.io.images import as_tensor

MAX_BEGIN = 1 << 20  # the first frame of a clip is drawn below this number


@dataclass(frozen=True)
class JourneyClips(Dataset):
    """A data set of random clips; item i depends only on `seed` and i.

    Items are {"video" (3, T, H, W) in [-1, 1], "mask" (1, T, H, W) in [0, 1], "caption", "caption_before", "switch",
    "fps", "pictures" (P, 3, H, W) in [-1, 1]}. The pictures are what a clip may be conditioned on: its first frame, and
    a frame from before it. "caption_before" describes the frames before frame "switch", at which the place or the time
    of day begins to change, and "caption" those from it on, as a new prompt starts a change. In most clips
    "switch" is 0, and "caption" describes all frames.

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

    def scene(self, index: int) -> tuple[Scene, int, tuple[str, str]]:
        """Return the scene of item `index`, its first frame's number, and the captions before and after its change."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        random = Random(f"{self.seed} {index}")
        scene = random_scene(random, self.scenes)
        begin = random.randrange(MAX_BEGIN)
        if random.random() < self.changing:
            scene = with_change(scene, random, begin, self.frames)
        versions = [scene.words, *(words_after(scene.words, change) for change in scene.changes)]
        captions = [caption_of(words) for words in with_fewer_words(versions, random, self.word_dropout)]
        return scene, begin, (captions[0], captions[-1])

    def __getitem__(self, index: int) -> Mapping:
        scene, begin, (caption_before, caption) = self.scene(index)
        changes = [change.begin - begin for change in scene.changes if caption != caption_before]
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
            "caption_before": caption_before,
            "switch": max([0, *changes]),
            "fps": self.fps,
        }
