"""Define the captions of the procedural shape clips, and which of them are held out from training. The grammar is

    a {red|green|blue|yellow|purple} {circle|square|triangle|star}
      {moving right|moving left|moving up|moving down|spinning|pulsing}
      on a {black|white|gray|pink|cyan} background

This module does not import torch, which takes 500 MB, so that programs can check cheaply whether a prompt is a caption.
"""

import re
from dataclasses import dataclass
from itertools import product

COLORS = {  # RGB, 0-255
    "red": (224, 40, 40),
    "green": (40, 176, 60),
    "blue": (48, 80, 240),
    "yellow": (248, 216, 32),
    "purple": (160, 50, 208),
}
SHAPES = ("circle", "square", "triangle", "star")
MOTIONS = ("moving right", "moving left", "moving up", "moving down", "spinning", "pulsing")
BACKGROUNDS = {  # RGB, 0-255
    "black": (16, 16, 16),
    "white": (240, 240, 240),
    "gray": (128, 128, 128),
    "pink": (255, 176, 200),
    "cyan": (96, 224, 232),
}
_CAPTION = re.compile(
    f"a ({'|'.join(COLORS)}) ({'|'.join(SHAPES)}) ({'|'.join(MOTIONS)}) on a ({'|'.join(BACKGROUNDS)}) background"
)


@dataclass(frozen=True)
class Scene:
    """The four words of a caption.

    Args:
        color: a key of COLORS, of the shape.
        shape: one of SHAPES.
        motion: one of MOTIONS.
        background: a key of BACKGROUNDS.
    """

    color: str
    shape: str
    motion: str
    background: str

    @property
    def caption(self) -> str:
        """Return the caption of the scene."""
        return f"a {self.color} {self.shape} {self.motion} on a {self.background} background"

    @property
    def held_out(self) -> bool:
        """Return whether the scene is held out, as one in five is; every pair of words still occurs in training."""
        words = zip(
            (self.color, self.shape, self.motion, self.background), (COLORS, SHAPES, MOTIONS, BACKGROUNDS), strict=True
        )
        return sum(list(choices).index(word) for word, choices in words) % 5 == 0

    @classmethod
    def parse(cls, caption: str) -> "Scene":
        """Return the scene of a caption.

        Raises:
            ValueError: the caption does not belong to the grammar.
        """
        match = _CAPTION.fullmatch(caption.strip())
        if match is None:
            raise ValueError(f"{caption!r} is not a caption of the shapes grammar; an example: {EXAMPLE.caption!r}")
        return cls(*match.groups())


SCENES = tuple(Scene(*words) for words in product(COLORS, SHAPES, MOTIONS, BACKGROUNDS))
EXAMPLE = SCENES[0]
TRAINING_SCENES = tuple(scene for scene in SCENES if not scene.held_out)
HELD_OUT_SCENES = tuple(scene for scene in SCENES if scene.held_out)
