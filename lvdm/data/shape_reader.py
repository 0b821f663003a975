"""Reads background, colour, shape and motion off the frames of a clip, without a network.

It is the judge of what a model generates from captions of the grammar, so it errs on the side of None: a word is read
only where the frames bear it out. All positions live on the torus; sizes are relative to a picture of 64 rows.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from lvdm.data.captions import BACKGROUNDS, COLORS, SHAPES, Scene
from lvdm.data.shapes import HEIGHT, PULSE_DEPTH, PULSE_PERIOD, SPEED, SPIN, distance_to_outline

MIN_FRAMES = 8
AGREEMENT = 0.75  # the share of frames, or of steps, that must say the same

# background
NEAR_GROUND = 45.0  # RGB distance (0-255) within which a pixel is the background, or a background has its name
MIN_GROUND = 0.5  # share of the picture that is background

# object
MIN_AREA, MAX_AREA = 0.02, 0.4  # shares of the picture; rendered objects cover 0.045 to 0.18
MIN_PART = 0.005  # of the picture: what is smaller is no object of its own
MIN_SATURATION = 0.25
MAX_HUE_ERROR = math.radians(35)  # red and yellow, and blue and purple, are 51 degrees apart

# shape
GRID = 32  # cells a side of a template; a side is twice the root of the object's area
OBJECT_CELLS = (GRID / 2) ** 2  # how many cells the object covers, then
PERIODS = {"circle": 0.0, "square": math.pi / 2, "triangle": 2 * math.pi / 3, "star": 2 * math.pi / 5}
ROTATION_STEP = math.radians(9)
MIN_OVERLAP = 0.72  # intersection over union; a star that is blurred and noisy reaches 0.77
MIN_LEAD = 0.02  # of the best over the second shape; clean clips lead by 0.1 or more

# motion
LAG = 4  # frames over which steps are measured: long enough to average jerks, short enough not to wrap around
MIN_MOTION = 0.4  # of the motion that the data set shows
MAX_RIVAL = 0.5  # strength of the second motion relative to the first
PULSE_RATES = (1.0, 1.4, 2.0)  # relative to the data set's; slower ones would not show a whole swing
MIN_PULSE_FIT = 0.75  # share of the radius' variance that one sine explains; a steady growth reaches 0.6


@dataclass(frozen=True)
class Reading:
    """The words of a caption as the frames show them; None where there is no object or no clear answer."""

    background: str | None
    color: str | None
    shape: str | None
    motion: str | None


@dataclass(frozen=True)
class _Object:
    """Where the object is in T frames: mask (T, H, W) of bool; area (T,) and centroid x, y (T,) in pixels."""

    mask: np.ndarray
    area: np.ndarray
    x: np.ndarray
    y: np.ndarray


def read_clip(frames: np.ndarray) -> Reading:
    """Read one window of consecutive frames (T, H, W, 3) uint8, T >= 8. ValueError for anything else."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < MIN_FRAMES:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3) with T >= {MIN_FRAMES}"
        )
    video = frames.astype(np.float32)
    ground, contrast = _against_ground(video)
    background = _read_background(ground, contrast)
    thing = _find_object(video, contrast)
    if thing is None:
        return Reading(background, None, None, None)
    return Reading(background, _read_color(video, thing), _read_shape(thing), _read_motion(video, thing))


def score(reading: Reading, scene: Scene) -> dict[str, bool]:
    """Which of the four attributes were read as the scene has them."""
    return {name: word == getattr(scene, name) for name, word in asdict(reading).items()}


def count_objects(frames: np.ndarray) -> int | None:
    """How many objects most of the frames (T, H, W, 3) uint8 show; None if no number has enough frames.

    An object is a connected region, on the torus, that is not the background's colour and covers MIN_PART of the
    picture or more.
    """
    _, contrast = _against_ground(frames.astype(np.float32))
    step = max(1, frames.shape[1] // HEIGHT)  # large pictures say no more about this than small ones
    inside = _eroded(contrast > NEAR_GROUND)[:, ::step, ::step]
    least = MIN_PART * inside[0].size
    counts = Counter(int((np.bincount(labels) >= least).sum()) for labels in _regions(inside))
    number, votes = counts.most_common(1)[0]
    return number if votes >= AGREEMENT * len(frames) else None


def _regions(mask: np.ndarray) -> Iterator[np.ndarray]:
    """For each frame of `mask` (T, H, W) the labels (N,) of the pixels inside: equal in one region, on the torus."""
    outside = mask[0].size
    labels = np.where(mask, np.arange(outside).reshape(mask[0].shape), outside)
    while True:  # every pixel takes the smallest label next to it, until none changes
        smallest = labels
        for axis in (1, 2):
            for turn in (1, -1):
                smallest = np.minimum(smallest, np.roll(labels, turn, axis))
        smallest = np.where(mask, smallest, outside)
        if np.array_equal(smallest, labels):
            break
        labels = smallest
    return (frame[inside] for frame, inside in zip(labels, mask, strict=True))


def _against_ground(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The background's colour in each frame (T, 3), and how far from it each pixel is (T, H, W): RGB distance."""
    ground = np.median(video.reshape(len(video), -1, 3), axis=1)  # the object never covers half of the picture
    return ground, np.linalg.norm(video - ground[:, None, None], axis=-1)


def _read_background(ground: np.ndarray, contrast: np.ndarray) -> str | None:
    plain = (contrast < NEAR_GROUND).mean((1, 2)) >= MIN_GROUND
    distance = np.linalg.norm(ground[:, None] - _table(BACKGROUNDS), axis=-1)  # (T, backgrounds)
    return _vote(list(BACKGROUNDS), distance, valid=plain & (distance.min(1) < NEAR_GROUND))


def _find_object(video: np.ndarray, contrast: np.ndarray) -> _Object | None:
    """The pixels nearer to the object's colours than to the background's; None unless every frame has an object."""
    inside = _eroded(contrast > NEAR_GROUND)
    if not inside.any():
        return None
    pixels = video[inside]
    brightness = pixels.sum(-1)
    middle = brightness.mean()
    lit, dark = (np.median(pixels[half], axis=0) for half in (brightness >= middle, brightness <= middle))
    axis = lit - dark
    share = np.clip((video - dark) @ axis / max(axis @ axis, 1.0), 0, 1)
    mask = contrast > np.linalg.norm(video - dark - share[..., None] * axis, axis=-1)
    area = mask.sum((1, 2))
    picture = mask[0].size
    if area.min() < MIN_AREA * picture or area.max() > MAX_AREA * picture:
        return None
    return _Object(mask, area, x=_torus_centroid(mask.sum(1)), y=_torus_centroid(mask.sum(2)))


def _read_color(video: np.ndarray, thing: _Object) -> str | None:
    """By hue, which is the same in the lit and in the dark half."""
    inside = _eroded(thing.mask)[..., None]
    mean = (video * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1)
    hue, saturation = _hue(mean)
    error = np.abs(_wrapped(hue[:, None] - _hue(_table(COLORS))[0], 2 * math.pi))
    return _vote(list(COLORS), error, valid=(saturation >= MIN_SATURATION) & (error.min(1) <= MAX_HUE_ERROR))


def _read_shape(thing: _Object) -> str | None:
    """The shape whose best rotation overlaps most, on average over the frames, at the object's own area."""
    names, templates = _templates()
    cells = _normalized(thing).reshape(len(thing.mask), -1)
    shared = cells @ templates.T  # (T, templates), in cells
    union = OBJECT_CELLS + templates.sum(1) - shared
    overlap = shared / union
    mean = {shape: overlap[:, names == shape].max(1).mean() for shape in SHAPES}
    best, second = sorted(mean, key=mean.get, reverse=True)[:2]
    return best if mean[best] >= MIN_OVERLAP and mean[best] - mean[second] >= MIN_LEAD else None


def _read_motion(video: np.ndarray, thing: _Object) -> str | None:
    """The motion that is as strong as the data set shows it, unless a second one rivals it."""
    _, height, width = thing.mask.shape
    step = LAG * SPEED * height / HEIGHT
    right = _steps(thing.x, width) / step
    down = _steps(thing.y, height) / step
    turn = _steps(_light_angle(video, thing), 2 * math.pi) / (LAG * SPIN)
    strength = {
        "moving right": _steady(right),
        "moving left": _steady(-right),
        "moving down": _steady(down),
        "moving up": _steady(-down),
        "spinning": max(_steady(turn), _steady(-turn)),
        "pulsing": _pulse(thing.area) / PULSE_DEPTH,
    }
    best, second = sorted(strength, key=strength.get, reverse=True)[:2]
    return best if strength[best] >= MIN_MOTION and strength[second] <= MAX_RIVAL * strength[best] else None


def _steps(positions: np.ndarray, period: float) -> np.ndarray:
    """Displacements over LAG frames on a circle of circumference `period`: (T,) -> (T - LAG,)."""
    return _wrapped(positions[LAG:] - positions[:-LAG], period)


def _steady(steps: np.ndarray) -> float:
    """What most of the steps reach at least: one jump does not make a motion, nor does going to and fro."""
    return float(np.quantile(steps, 1 - AGREEMENT))


def _light_angle(video: np.ndarray, thing: _Object) -> np.ndarray:
    """The direction from the dark half to the lit half in each frame: (T,) radians, clockwise on the screen."""
    brightness = video.sum(-1) * thing.mask
    brightness -= (brightness.sum((1, 2)) / thing.area)[:, None, None] * thing.mask
    dx, dy = _offsets(thing)
    return np.arctan2((brightness.sum(2) * dy).sum(1), (brightness.sum(1) * dx).sum(1))


def _pulse(area: np.ndarray) -> float:
    """The amplitude, relative to the mean, of the sine that fits the object's radius best; 0 if none fits well."""
    radius = np.sqrt(area)
    fits = []
    for rate in PULSE_RATES:
        angle = 2 * math.pi * rate / PULSE_PERIOD * np.arange(len(area))
        basis = np.stack([np.ones_like(angle), np.sin(angle), np.cos(angle)], axis=1)
        mean, *wave = np.linalg.lstsq(basis, radius, rcond=None)[0]
        unexplained = np.var(radius - basis @ [mean, *wave]) / max(np.var(radius), 1e-6)
        fits.append((1 - unexplained, math.hypot(*wave) / mean))
    fit, amplitude = max(fits)
    return amplitude if fit >= MIN_PULSE_FIT else 0.0


def _vote(names: Sequence[str], distance: np.ndarray, *, valid: np.ndarray) -> str | None:
    """The nearest name, frame by frame, if enough of all frames agree: distance (T, names), valid (T,)."""
    votes = Counter(distance[valid].argmin(1).tolist())
    index, count = votes.most_common(1)[0] if votes else (0, 0)
    return names[index] if count >= AGREEMENT * len(distance) else None


def _table(colors: Mapping[str, tuple[int, int, int]]) -> np.ndarray:
    return np.array(list(colors.values()), dtype=np.float32)


def _hue(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hue in radians and saturation in [0, 1] of colours (..., 3); neither depends on brightness."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    top = rgb.max(-1)
    return (
        np.arctan2(math.sqrt(3) * (green - blue), 2 * red - green - blue),
        (top - rgb.min(-1)) / np.maximum(top, 1),
    )


def _wrapped(difference: np.ndarray, period: float) -> np.ndarray:
    return (difference + period / 2) % period - period / 2


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Without the pixels at the edge, on the torus."""
    for axis in (1, 2):
        mask = mask & np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask


def _torus_centroid(weight: np.ndarray) -> np.ndarray:
    """The mean position in pixels of weight (T, N) on a circle of N pixels: the plain mean around the circular mean."""
    period = weight.shape[1]
    centers = np.arange(period) + 0.5
    angle = np.angle(weight @ np.exp(2j * math.pi * centers / period))
    rough = angle[:, None] * period / (2 * math.pi)
    return rough[:, 0] + (weight * _wrapped(centers - rough, period)).sum(1) / weight.sum(1)


def _offsets(thing: _Object) -> tuple[np.ndarray, np.ndarray]:
    """Pixels from the centroid to each column (T, W) and to each row (T, H), the short way around."""
    _, height, width = thing.mask.shape
    return (
        _wrapped(np.arange(width) + 0.5 - thing.x[:, None], width),
        _wrapped(np.arange(height) + 0.5 - thing.y[:, None], height),
    )


def _grid() -> np.ndarray:
    """Cell centres along one side of a template, in roots of the object's area."""
    return (np.arange(GRID) + 0.5) * 2 / GRID - 1


def _normalized(thing: _Object) -> np.ndarray:
    """The mask centred and scaled to unit area, sampled bilinearly: (T, GRID, GRID)."""
    _, height, width = thing.mask.shape
    reach = np.sqrt(thing.area)[:, None] * _grid()
    columns, rows = thing.x[:, None] + reach - 0.5, thing.y[:, None] + reach - 0.5
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    frame = np.arange(len(thing.mask))[:, None, None]

    def corner(down: int, right: int) -> np.ndarray:
        return thing.mask[frame, ((top + down) % height)[:, :, None], ((left + right) % width)[:, None, :]]

    across, along = (columns - left)[:, None, :], (rows - top)[:, :, None]
    upper = corner(0, 0) * (1 - across) + corner(0, 1) * across
    lower = corner(1, 0) * (1 - across) + corner(1, 1) * across
    return upper * (1 - along) + lower * along


@functools.cache
def _templates() -> tuple[np.ndarray, np.ndarray]:
    """The name of each template and its cells inside the outline (templates, GRID * GRID), all of unit area."""
    v, u = torch.meshgrid(*[torch.from_numpy(_grid())] * 2, indexing="ij")
    names, templates = [], []
    for shape in SHAPES:
        fine = torch.linspace(-HEIGHT / 2, HEIGHT / 2, 4 * HEIGHT)
        y, x = torch.meshgrid(fine, fine, indexing="ij")
        root_area = math.sqrt((distance_to_outline(shape, x, y) < 0).float().mean()) * HEIGHT
        for turn in np.arange(0, max(PERIODS[shape], ROTATION_STEP), ROTATION_STEP):
            cos, sin = math.cos(turn), math.sin(turn)
            inside = distance_to_outline(shape, (cos * u + sin * v) * root_area, (cos * v - sin * u) * root_area) < 0
            names.append(shape)
            templates.append(inside.flatten().double().numpy())
    return np.array(names), np.stack(templates)
