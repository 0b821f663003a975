"""Render clips for the captions of lvdm.data.captions: one coloured shape on a plain background, moving on a torus.

Every shape is lit from one side: half of it is darker, so that rotation shows on a circle too. Moving shapes have the
bright half in front. A shape that leaves the picture on one side enters it on the other side, so a clip can have any
number of frames.
"""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lvdm.data.captions import BACKGROUNDS, COLORS, HELD_OUT_SCENES, MOTIONS, SCENES, SHAPES, TRAINING_SCENES, Scene

DIRECTIONS = {"moving right": (1, 0), "moving left": (-1, 0), "moving up": (0, -1), "moving down": (0, 1)}

SPEED = 3.0  # pixels per frame
SPIN = 2 * math.pi / 24  # radians per frame, clockwise on the screen
PULSE_PERIOD = 16  # frames
PULSE_DEPTH = 0.3
SHADE = 0.5  # brightness of the dark half
CIRCUMRADIUS = {
    "circle": 14.0,
    "square": 18.0,
    "triangle": 19.5,
    "star": 20.5,
}  # pixels; areas are about equal
HEIGHT, WIDTH = 64, 96


@dataclass(frozen=True)
class Pose:
    """The position of the shape in each of N frames; all fields are (N,).

    Args:
        x, y: centre, in pixels of a picture of 64 rows.
        angle: radians, clockwise on the screen.
        size: relative to 1.
    """

    x: Tensor
    y: Tensor
    angle: Tensor
    size: Tensor


def trajectory(motion: str, frames: Tensor, *, x: float, y: float, phase: float) -> Pose:
    """Return the pose at each frame number in `frames` (N,).

    Moving shapes have their upper side in front, so that a single frame shows their direction. Other shapes that do not
    spin are upright; shapes that do not pulse have size 1.

    Args:
        motion: one of lvdm.data.captions.MOTIONS.
        frames: frame numbers (N,), float.
        x, y: the centre at frame 0, in pixels of a picture of 64 rows.
        phase: phase of spinning and pulsing at frame 0, in turns.
    """
    dx, dy = DIRECTIONS.get(motion, (0, 0))
    heading = math.atan2(dx, -dy)  # 0 is up, also for shapes that do not move
    turn = (SPIN * frames + 2 * math.pi * phase) if motion == "spinning" else torch.full_like(frames, heading)
    wave = torch.sin(2 * math.pi * (frames / PULSE_PERIOD + phase)) if motion == "pulsing" else torch.zeros_like(frames)
    return Pose(x + SPEED * dx * frames, y + SPEED * dy * frames, turn, 1 + PULSE_DEPTH * wave)


def margins(scene: Scene) -> tuple[float, float]:
    """Return how far (across, down) a centre must stay from the picture's sides so that the shape crosses none.

    Distances are in pixels of a picture of 64 rows; 0 along the direction in which the shape moves.
    """
    reach = CIRCUMRADIUS[scene.shape] * (1 + PULSE_DEPTH * (scene.motion == "pulsing"))
    dx, dy = DIRECTIONS.get(scene.motion, (0, 0))
    return 0 if dx else reach, 0 if dy else reach


def distance_to_outline(shape: str, u: Tensor, v: Tensor) -> Tensor:
    """Return the signed distance of (u, v) to the outline of an upright shape of size 1, in pixels; negative inside."""
    radius = CIRCUMRADIUS[shape]
    if shape == "circle":
        return torch.hypot(u, v) - radius
    if shape == "square":
        return torch.maximum(u.abs(), v.abs()) - radius / math.sqrt(2)
    if shape == "triangle":
        sides = [
            u * math.cos(turn) + v * math.sin(turn) for turn in (math.pi / 2, -math.pi / 6, 7 * math.pi / 6)
        ]  # outward normals: down, up right, up left
        return torch.stack(sides).amax(0) - radius / 2
    # A star: fold the plane onto one half of a point of the star, then measure the distance to its edge.
    half = math.pi / 5
    around = torch.atan2(u, -v)  # 0 at the upper point
    folded = (torch.remainder(around + half, 2 * half) - half).abs()
    length = torch.hypot(u, v)
    inner = 0.42 * radius
    edge_x, edge_y = inner * math.cos(half) - radius, inner * math.sin(half)
    along, across = length * torch.cos(folded) - radius, length * torch.sin(folded)
    return (across * -edge_x + along * edge_y) / math.hypot(edge_x, edge_y)


def render(scene: Scene, pose: Pose, *, height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Render a scene in N poses; return frames (N, 3, H, W) in [0, 1] and the shape's cover (N, 1, H, W) in [0, 1].

    Sizes are relative to a picture of 64 rows. Edges are anti-aliased over one pixel.
    """
    scale = height / HEIGHT
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    x, y, angle, size = (value.float()[:, None, None] for value in (pose.x, pose.y, pose.angle, pose.size))
    dx = torch.remainder(columns[None, None, :] - scale * x + width / 2, width) - width / 2
    dy = torch.remainder(rows[None, :, None] - scale * y + height / 2, height) - height / 2
    cos, sin = torch.cos(angle), torch.sin(angle)
    unit = scale * size
    u, v = (cos * dx + sin * dy) / unit, (cos * dy - sin * dx) / unit
    cover = (0.5 - distance_to_outline(scene.shape, u, v) * unit).clamp(0, 1)[:, None]
    dark = (0.5 + v * unit).clamp(0, 1)[:, None]  # the lower half of the upright shape
    color = torch.tensor(COLORS[scene.color])[None, :, None, None] / 255
    ground = torch.tensor(BACKGROUNDS[scene.background])[None, :, None, None] / 255
    lit = color * (1 - (1 - SHADE) * dark)
    return ground + cover * (lit - ground), cover


def to_frames(video: Tensor) -> np.ndarray:
    """Convert (T, 3, H, W) in [0, 1] to frames (T, H, W, 3) uint8."""
    return (video.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class ShapeClips(Dataset):
    """A data set of random clips; item i depends only on `seed` and i.

    Items are {"video" (3, T, H, W) in [-1, 1], "mask" (1, T, H, W), "caption", "fps", "pictures" (2, 3, H, W)}. The
    pictures are what a clip may be conditioned on: its first frame, and one from up to `lead` frames before it.

    Args:
        size: number of clips.
        frames: frames of each clip, T.
        height, width: pixels.
        scenes: "training", "held_out" or "all".
        seed: of the random scenes and positions.
        fps: frame rate that the model is told.
        lead: the second picture lies 1 to `lead` frames before the clip.
        emphasis: for some words, how many times as frequent their scenes are, such as {"spinning": 3}.
        whole: share of the clips in which the shape crosses no side of the picture, except those that it moves across.
            Without it, this is so in about half of the clips.

    Raises:
        TypeError: `emphasis` has an unknown word, or `whole` is no share from 0 to 1.
    """

    size: int
    frames: int = 16
    height: int = HEIGHT
    width: int = WIDTH
    scenes: str = "training"
    seed: int = 0
    fps: int = 8
    lead: int = 96
    emphasis: Mapping[str, int] = field(default_factory=dict)
    whole: float = 0.0

    def __post_init__(self):
        if unknown := self.emphasis.keys() - {*COLORS, *SHAPES, *MOTIONS, *BACKGROUNDS}:
            raise TypeError(f"emphasis has {', '.join(sorted(unknown))}, expected words of the captions")
        if not 0 <= self.whole <= 1:
            raise TypeError(f"whole is {self.whole}, expected a share from 0 to 1")

    @cached_property
    def choices(self) -> list[Scene]:
        """Return the scenes to draw from, each as often as `emphasis` says."""
        scenes = {"training": TRAINING_SCENES, "held_out": HELD_OUT_SCENES, "all": SCENES}[self.scenes]
        return [scene for scene in scenes for _ in range(prod(self.emphasis.get(word, 1) for word in astuple(scene)))]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Mapping:
        if not 0 <= index < self.size:
            raise IndexError(index)
        generator = torch.Generator().manual_seed((self.seed << 40) + index)
        scene = self.choices[torch.randint(len(self.choices), (), generator=generator)]
        x, y, phase = torch.rand(3, generator=generator).tolist()
        before = torch.randint(1, self.lead + 1, (1,), generator=generator)
        times = torch.cat([-before, torch.arange(self.frames)]).float()
        room = HEIGHT * self.width / self.height, HEIGHT  # (across, down), in pixels at 64 rows
        margin = margins(scene) if torch.rand((), generator=generator) < self.whole else (0, 0)
        x, y = (side + share * (size - 2 * side) for share, size, side in zip((x, y), room, margin, strict=True))
        pose = trajectory(scene.motion, times, x=x, y=y, phase=phase)
        video, mask = render(scene, pose, height=self.height, width=self.width)
        video = 2 * video - 1
        return {
            "video": video[1:].transpose(0, 1),
            "mask": mask[1:].transpose(0, 1),
            "pictures": torch.stack([video[1], video[0]]),
            "caption": scene.caption,
            "fps": self.fps,
        }
