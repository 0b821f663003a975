"""Read subject, colours, facing, direction, pace, place and time off the frames of a journey, without a network.

The readings decide whether a model's video shows its caption. They compare regions rather than exact pixels, and are
None where the frames are not clear. This module does not import torch. Units: 128 to the height of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lvdm.data.journey_scroll import check_frames, read_speed
from lvdm.data.journeys.scene import COLORS, PACES, SECOND_COLORS, Words
from lvdm.data.journeys.templates import (
    COLUMNS,
    FIXED,
    ROWS,
    palette,
    place_features,
    place_templates,
    subject_templates,
)

WINDOW = 16  # frames of one reading
MIN_HEIGHT = 32  # pixels; the strip of ground of lower frames has too few rows

# subject and colours
TOLERANCE = 90.0  # distance, as _opponent weighs it, from which on a pixel does not have a colour
FIXED_TOLERANCE = 60.0  # the same for colours that never change: dark skin is not dark hair
LUMINANCE_WEIGHT = 0.55  # weight of differences in brightness, relative to those in hue
PRIOR = 0.4  # cost of a pixel that no template explains; a pixel of a wrong colour costs 1
MIN_EXPLAINED = 0.25  # gain of the best hypothesis, relative to a perfect match
MIN_DEVIATION = 8.0  # standard deviation of pixels (0-255); a plainer picture shows no subject
MIN_COLOR = 0.1  # gain of a region, relative to one that has exactly its colour

# place and time
MAX_DISTANCE = 8.0  # root mean square distance to a place, in standard deviations of a feature


@dataclass(frozen=True)
class Reading:
    """The words as the frames show them; None where there is no clear answer.

    Args:
        subject, color, place, time: as in scene.Words.
        second: second colour of the subject, a key of SECOND_COLORS.
        facing: "left" or "right", read from the subject.
        direction: "left" or "right", read from the scrolling of the ground; None if it stands still.
        pace: a key of PACES, read from the scrolling of the ground.
        speed: units per frame, positive when travelling to the right.
    """

    subject: str | None
    color: str | None
    second: str | None
    facing: str | None
    direction: str | None
    pace: str | None
    place: str | None
    time: str | None
    speed: float | None


def read_clip(frames: np.ndarray) -> Reading:
    """Read one window of consecutive frames (T, H, W, 3) uint8, T >= 4.

    Raises:
        ValueError: the frames have another shape or type, or are narrower than 3 : 2 or lower than MIN_HEIGHT.
    """
    small = _cropped_and_reduced(frames)
    places = _place_costs(small)
    place, time = _read_place(places)
    times = [place_templates().names[index][1] for index in places.argmin(1)]
    subject, facing, color, second = _read_subject(small, times)
    speed = read_speed(frames)
    direction, pace = (None, None) if speed is None else _direction_and_pace(speed)
    return Reading(subject, color, second, facing, direction, pace, place, time, speed)


def read_windows(frames: np.ndarray, *, step: int = WINDOW) -> list[Reading]:
    """Read a video (T, H, W, 3) in windows of 16 frames, one every `step` frames; a shorter video is one window."""
    last = max(0, len(frames) - WINDOW)
    return [read_clip(frames[begin : begin + WINDOW]) for begin in range(0, last + 1, step)]


def score(reading: Reading, words: Words, second: str | None = None) -> dict[str, bool]:
    """Return for each word whether it was read as expected.

    Args:
        reading: the words that were read.
        words: the expected words; those that are None are not judged. Their direction is compared with `facing`, and
            with `direction`, or for a subject that stands still with `facing` again.
        second: the expected second colour; None does not judge it.
    """
    said = {name: getattr(words, name) for name in ("subject", "color", "place", "time", "pace")} | {"second": second}
    judged = {name: getattr(reading, name) == word for name, word in said.items() if word is not None}
    if words.direction is not None:
        shown = reading.facing if words.pace == "standing still" else reading.direction
        judged["direction"] = shown == words.direction
        judged["facing"] = reading.facing == words.direction
    return judged


def is_readable(height: int, width: int) -> bool:
    """Return whether frames of this size, in pixels, can be read."""
    return height >= MIN_HEIGHT and width >= _read_columns(height)


def _read_columns(height: int) -> int:
    """Return how many columns are read of frames of this height: those of the ratio 3 : 2."""
    return height * COLUMNS // ROWS


def _cropped_and_reduced(frames: np.ndarray) -> np.ndarray:
    """Return the frames (T, H, W, 3), cropped to the middle 3 : 2 and reduced to (T, 64, 96, 3) float32."""
    check_frames(frames)
    height, width = frames.shape[1:3]
    wanted = _read_columns(height)
    if height < MIN_HEIGHT:
        raise ValueError(f"frames are {height} x {width}, expected a height of {MIN_HEIGHT} or more")
    if width < wanted:
        raise ValueError(f"frames are {height} x {width}, expected a width of {wanted} or more at that height")
    left = (width - wanted) // 2
    middle = frames[:, :, left : left + wanted].astype(np.float32)
    rows, columns = _averaging(height, ROWS), _averaging(wanted, COLUMNS)
    return np.einsum("rh,thwc,kw->trkc", rows, middle, columns, optimize=True)


def _averaging(size: int, cells: int) -> np.ndarray:
    """Return the weights (cells, size) that average `size` pixels into cells of equal width."""
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(0) * cells / size).astype(np.float32)


def _place_costs(small: np.ndarray) -> np.ndarray:
    """Return the distance (T, J) of each frame to each place at each time, in standard deviations of a feature."""
    templates = place_templates()
    difference = place_features(small)[:, None] - templates.mean
    squared = np.einsum("tjf,fg,tjg->tj", difference, templates.precision, difference, optimize=True)
    return np.sqrt(squared / difference.shape[-1])


def _read_place(costs: np.ndarray) -> tuple[str | None, str | None]:
    """Return the pair of place and time that fits best on average; (None, None) if none fits. Costs are (T, J)."""
    names = place_templates().names
    mean = costs.mean(0)
    if mean.min() > MAX_DISTANCE:
        return None, None
    return names[mean.argmin()]


def _read_subject(small: np.ndarray, times: Sequence[str]) -> tuple[str | None, str | None, str | None, str | None]:
    """Return subject, facing, main and second colour that together explain the most pixels of all frames.

    Args:
        small: frames (T, ROWS, COLUMNS, 3), 0-255.
        times: the time of day of each frame, which decides how the colours look.
    """
    if small.std((1, 2)).mean() < MIN_DEVIATION:
        return None, None, None, None
    templates = subject_templates()
    gain = PRIOR - _color_costs(small, times)  # (T, palette, pixels)
    main = gain[:, : len(COLORS)] @ templates.main.T  # (T, colours, K)
    second = gain[:, : len(SECOND_COLORS)] @ templates.second.T
    fixed = np.zeros_like(main[:, 0])
    first = len(SECOND_COLORS)
    for colors, region in zip(FIXED.values(), templates.fixed, strict=True):
        fixed += gain[:, first : first + len(colors)].max(1) @ region.T
        first += len(colors)
    total = main[:, :, None] + second[:, None] + fixed[:, None, None]  # (T, main, second, K)
    owned = np.stack([total[..., templates.owner == index].max(-1) for index in range(len(templates.names))], -1)
    summed = owned.sum(0)  # (main, second, subjects)
    color, other, index = np.unravel_index(summed.argmax(), summed.shape)
    chosen = np.where(templates.owner == index, total[:, color, other], -np.inf).argmax(-1)  # (T,) poses
    frame = np.arange(len(small))
    if summed[color, other, index] < MIN_EXPLAINED * PRIOR * templates.area[chosen].sum():
        return None, None, None, None
    subject, facing = templates.names[index]
    return (
        subject,
        facing,
        _name_if_clear(COLORS, color, main[frame, color, chosen], templates.main.clip(0).sum(1)[chosen]),
        _name_if_clear(SECOND_COLORS, other, second[frame, other, chosen], templates.second.clip(0).sum(1)[chosen]),
    )


def _name_if_clear(names: Sequence[str], index: int, gain: np.ndarray, area: np.ndarray) -> str | None:
    """Return the name of a colour, or None if its region gains too little; gain (T,), area (T,) in pixels."""
    return list(names)[index] if gain.sum() >= MIN_COLOR * PRIOR * area.sum() else None


def _color_costs(small: np.ndarray, times: Sequence[str]) -> np.ndarray:
    """Return how much each pixel differs from each colour in the light of its frame: (T, palette, pixels), 0 to 1."""
    pixels = _opponent(small.reshape(len(small), 1, -1, 3))
    colors = _opponent(np.stack([palette(time) for time in times]))[:, :, None]
    others = colors.shape[1] - len(SECOND_COLORS)
    tolerances = np.float32([TOLERANCE] * len(SECOND_COLORS) + [FIXED_TOLERANCE] * others)
    return np.minimum(((pixels - colors) ** 2).sum(-1) / tolerances[:, None] ** 2, 1)


def _opponent(rgb: np.ndarray) -> np.ndarray:
    """Convert RGB (..., 3) to brightness, weighted by LUMINANCE_WEIGHT, red minus brightness, blue minus brightness."""
    luminance = rgb @ np.float32([0.3, 0.59, 0.11])
    return np.stack([LUMINANCE_WEIGHT * luminance, rgb[..., 0] - luminance, rgb[..., 2] - luminance], -1)


def _direction_and_pace(speed: float) -> tuple[str | None, str]:
    """Return the direction and the pace of a speed in units per frame; standing still has the direction None."""
    paces = list(PACES.values())
    limits = [paces[1] / 2, *(np.sqrt(slow * fast) for slow, fast in pairwise(paces[1:]))]
    pace = list(PACES)[int(np.searchsorted(limits, abs(speed)))]
    return (None if pace == "standing still" else "right" if speed > 0 else "left"), pace
