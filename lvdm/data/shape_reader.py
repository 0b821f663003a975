"""Read background, colour, shape and motion off the frames of a clip, without a network.

The readings decide whether a model's video shows its caption; they are None where the frames are not clear. Positions
are on the torus; sizes are relative to a picture of 64 rows.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lvdm.data.captions import BACKGROUNDS, COLORS, Scene
from lvdm.data.shape_templates import shape_overlaps
from lvdm.data.shapes import HEIGHT, PULSE_DEPTH, PULSE_PERIOD, SPEED, SPIN
from lvdm.data.torus import eroded, regions, torus_centroid, wrapped

MIN_FRAMES = 8
AGREEMENT = 0.75  # the share of frames, or of steps, that must agree

# background
NEAR_GROUND = 45.0  # RGB distance, 0-255, below which a pixel is background, and a background has a named colour
MIN_GROUND = 0.5  # share of the picture that must be background

# object
MIN_AREA, MAX_AREA = 0.02, 0.4  # shares of the picture; rendered objects cover 0.045 to 0.18
MIN_PART = 0.005  # share of the picture; a smaller region is no object
MIN_SATURATION = 0.25
MAX_HUE_ERROR = math.radians(35)  # red and yellow, and blue and purple, are 51 degrees apart

# shape
MIN_OVERLAP = 0.72  # intersection over union; a star that is blurred and noisy reaches 0.77
MIN_LEAD = 0.02  # overlap of the best shape less that of the second; at least 0.1 in clean clips

# motion
LAG = 4  # frames over which steps are measured: enough to average jerks, too few to cross the picture
MIN_MOTION = 0.4  # strength of a motion relative to that of the data set
MAX_RIVAL = 0.5  # strength of the second motion relative to the first
PULSE_RATES = (1.0, 1.4, 2.0)  # relative to the data set's; slower pulses show no whole period in a window
MIN_PULSE_FIT = 0.75  # share of the radius' variance that a sine explains; steady growth reaches 0.6


@dataclass(frozen=True)
class Reading:
    """The words of a caption as the frames show them; None where there is no object or no clear answer.

    Args:
        background, color, shape, motion: as in lvdm.data.captions.Scene.
    """

    background: str | None
    color: str | None
    shape: str | None
    motion: str | None


@dataclass(frozen=True)
class _Object:
    """An object in T frames.

    Args:
        mask: (T, H, W) bool.
        area: (T,) pixels.
        x, y: (T,) centroid, in pixels.
    """

    mask: np.ndarray
    area: np.ndarray
    x: np.ndarray
    y: np.ndarray


def read_clip(frames: np.ndarray) -> Reading:
    """Read one window of consecutive frames (T, H, W, 3) uint8, T >= 8.

    Raises:
        ValueError: the frames have another shape or type.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < MIN_FRAMES:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3) with T >= {MIN_FRAMES}"
        )
    video = frames.astype(np.float32)
    ground, contrast = _ground_and_contrast(video)
    background = _read_background(ground, contrast)
    thing = _find_object(video, contrast)
    if thing is None:
        return Reading(background, None, None, None)
    return Reading(background, _read_color(video, thing), _read_shape(thing), _read_motion(video, thing))


def score(reading: Reading, scene: Scene) -> dict[str, bool]:
    """Return for each of the four attributes whether it was read as the scene has it."""
    return {name: word == getattr(scene, name) for name, word in asdict(reading).items()}


def count_objects(frames: np.ndarray) -> int | None:
    """Return how many objects the frames (T, H, W, 3) uint8 show; None unless enough frames agree.

    An object is a connected region, on the torus, that does not have the background's colour and covers at least
    MIN_PART of the picture.
    """
    _, contrast = _ground_and_contrast(frames.astype(np.float32))
    step = max(1, frames.shape[1] // HEIGHT)  # a lower resolution is enough
    inside = eroded(contrast > NEAR_GROUND)[:, ::step, ::step]
    least = MIN_PART * inside[0].size
    counts = Counter(int((np.bincount(labels) >= least).sum()) for labels in regions(inside))
    number, votes = counts.most_common(1)[0]
    return number if votes >= AGREEMENT * len(frames) else None


def _ground_and_contrast(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the background's colour in each frame (T, 3) and the RGB distance of each pixel to it (T, H, W)."""
    ground = np.median(video.reshape(len(video), -1, 3), axis=1)  # the object never covers half of the picture
    return ground, np.linalg.norm(video - ground[:, None, None], axis=-1)


def _read_background(ground: np.ndarray, contrast: np.ndarray) -> str | None:
    """Return the named colour of the background; ground (T, 3), contrast (T, H, W)."""
    plain = (contrast < NEAR_GROUND).mean((1, 2)) >= MIN_GROUND
    distance = np.linalg.norm(ground[:, None] - _table(BACKGROUNDS), axis=-1)  # (T, backgrounds)
    return _vote(list(BACKGROUNDS), distance, valid=plain & (distance.min(1) < NEAR_GROUND))


def _find_object(video: np.ndarray, contrast: np.ndarray) -> _Object | None:
    """Return the pixels nearer to the object's colours than to the background's; None if a frame has too few."""
    inside = eroded(contrast > NEAR_GROUND)
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
    return _Object(mask, area, x=torus_centroid(mask.sum(1)), y=torus_centroid(mask.sum(2)))


def _read_color(video: np.ndarray, thing: _Object) -> str | None:
    """Return the named colour of the object by its hue, which is the same in the lit and the dark half."""
    inside = eroded(thing.mask)[..., None]
    mean = (video * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1)
    hue, saturation = _hue(mean)
    error = np.abs(wrapped(hue[:, None] - _hue(_table(COLORS))[0], 2 * math.pi))
    return _vote(list(COLORS), error, valid=(saturation >= MIN_SATURATION) & (error.min(1) <= MAX_HUE_ERROR))


def _read_shape(thing: _Object) -> str | None:
    """Return the shape that overlaps most with the object, if it overlaps enough and more than the second one."""
    overlap = shape_overlaps(thing.mask, thing.area, thing.x, thing.y)
    best, second = sorted(overlap, key=overlap.get, reverse=True)[:2]
    return best if overlap[best] >= MIN_OVERLAP and overlap[best] - overlap[second] >= MIN_LEAD else None


def _read_motion(video: np.ndarray, thing: _Object) -> str | None:
    """Return the strongest motion, if it is about as strong as in the data set and no other is nearly as strong."""
    _, height, width = thing.mask.shape
    step = LAG * SPEED * height / HEIGHT
    right = _steps(thing.x, width) / step
    down = _steps(thing.y, height) / step
    turn = _steps(_light_angle(video, thing), 2 * math.pi) / (LAG * SPIN)
    strength = {
        "moving right": _steady_step(right),
        "moving left": _steady_step(-right),
        "moving down": _steady_step(down),
        "moving up": _steady_step(-down),
        "spinning": max(_steady_step(turn), _steady_step(-turn)),
        "pulsing": _pulse(thing.area) / PULSE_DEPTH,
    }
    best, second = sorted(strength, key=strength.get, reverse=True)[:2]
    return best if strength[best] >= MIN_MOTION and strength[second] <= MAX_RIVAL * strength[best] else None


def _steps(positions: np.ndarray, period: float) -> np.ndarray:
    """Return displacements over LAG frames on a circle of circumference `period`: (T,) -> (T - LAG,)."""
    return wrapped(positions[LAG:] - positions[:-LAG], period)


def _steady_step(steps: np.ndarray) -> float:
    """Return the displacement that 75 % of `steps` reach.

    A single jump or an oscillation has none, and so does not count as motion.
    """
    return float(np.quantile(steps, 1 - AGREEMENT))


def _light_angle(video: np.ndarray, thing: _Object) -> np.ndarray:
    """Return the direction from the dark to the lit half in each frame: (T,) radians, clockwise on the screen."""
    brightness = video.sum(-1) * thing.mask
    brightness -= (brightness.sum((1, 2)) / thing.area)[:, None, None] * thing.mask
    dx, dy = _offsets(thing)
    return np.arctan2((brightness.sum(2) * dy).sum(1), (brightness.sum(1) * dx).sum(1))


def _pulse(area: np.ndarray) -> float:
    """Return the relative amplitude of the sine that fits the radius best; 0 if none fits well; area (T,) in pixels."""
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
    """Return the name that is nearest in most of the valid frames, or None.

    Args:
        names: what is voted for.
        distance: (T, names).
        valid: (T,) bool; the other frames do not vote, but count among the frames of which AGREEMENT must agree.
    """
    votes = Counter(distance[valid].argmin(1).tolist())
    index, count = votes.most_common(1)[0] if votes else (0, 0)
    return names[index] if count >= AGREEMENT * len(distance) else None


def _table(colors: Mapping[str, tuple[int, int, int]]) -> np.ndarray:
    """Return the colours as an array (colours, 3)."""
    return np.array(list(colors.values()), dtype=np.float32)


def _hue(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hue in radians and saturation in [0, 1] of colours (..., 3); neither depends on brightness."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    top = rgb.max(-1)
    return (
        np.arctan2(math.sqrt(3) * (green - blue), 2 * red - green - blue),
        (top - rgb.min(-1)) / np.maximum(top, 1),
    )


def _offsets(thing: _Object) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance in pixels from the centroid to each column (T, W) and row (T, H), the short way around."""
    _, height, width = thing.mask.shape
    return (
        wrapped(np.arange(width) + 0.5 - thing.x[:, None], width),
        wrapped(np.arange(height) + 0.5 - thing.y[:, None], height),
    )
