"""Reads subject, colours, facing, travelling, place and time off the frames of a journey, without a network.

It is the judge of what a model generates, so it compares regions, not exact pixels, and says None where the frames do
not bear a word out. Needs no torch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

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

WINDOW = 16  # frames that a reading takes together
MIN_FRAMES = 4

# subject and colours
TOLERANCE = 90.0  # weighted RGB distance at which a pixel is no longer of a colour
LUMINANCE_WEIGHT = 0.55  # of differences in brightness, relative to those in hue
PRIOR = 0.4  # cost of a pixel that no template explains; a pixel of a wrong colour costs 1
MIN_EXPLAINED = 0.25  # of what a perfect match would gain
MIN_DEVIATION = 8.0  # of a picture's pixels (0-255); what is plainer shows no subject
MIN_COLOR = 0.1  # of what a region of exactly a colour would gain

# place and time
MAX_DISTANCE = 8.0  # mean deviations of a band's colours from what the place shows

# travelling
BAND = 116 / 128  # rows from here down hold only ground, sea or clouds that move with the subject
LAGS = 1, 2, 3  # frames over which shifts are measured
MAX_SPEED = 11.0  # units a frame
SPEED_STEP = 0.25
MAX_MISMATCH = 0.6  # of what is left at the best shift, relative to the mean over all shifts
MIN_RELIEF = 4.0  # mean squared difference (0-255) over all shifts; what is plainer shows no motion


@dataclass(frozen=True)
class Reading:
    """The words as the frames show them; None where there is no clear answer.

    `direction` and `pace` are read from the scrolling, `facing` from the subject. `speed` is in units a frame, of which
    128 are a picture's height, and positive to the right.
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
        ValueError: frames of another kind, or narrower than 3 : 2.
    """
    small = _checked(frames)
    places = _place_costs(small)
    place, time = _read_place(places)
    times = [place_templates().names[index][1] for index in places.argmin(1)]
    subject, facing, color, second = _read_subject(small, times)
    speed = _read_speed(frames)
    direction, pace = (None, None) if speed is None else _travelling(speed)
    return Reading(subject, color, second, facing, direction, pace, place, time, speed)


def read_windows(frames: np.ndarray, *, step: int = WINDOW) -> list[Reading]:
    """Read a video (T, H, W, 3) in windows of 16 frames, one every `step` frames; a shorter video is one window."""
    last = max(0, len(frames) - WINDOW)
    return [read_clip(frames[begin : begin + WINDOW]) for begin in range(0, last + 1, step)]


def read_video(frames: np.ndarray) -> Reading:
    """Read a whole video: each word is the one that most windows show, if more than half of them do."""
    readings = read_windows(frames)
    words = {name: _most([getattr(reading, name) for reading in readings]) for name in Reading.__dataclass_fields__}
    speeds = [reading.speed for reading in readings if reading.speed is not None]
    return Reading(**words | {"speed": float(np.median(speeds)) if speeds else None})


def score(reading: Reading, words: Words, second: str | None = None) -> dict[str, bool]:
    """Which of the words that a caption says, and the second colour if given, were read as they should be.

    Direction is judged by the scrolling, or by the facing if the subject is to stand still.
    """
    said = {name: getattr(words, name) for name in ("subject", "color", "place", "time", "pace")} | {"second": second}
    judged = {name: getattr(reading, name) == word for name, word in said.items() if word is not None}
    if words.direction is not None:
        shown = reading.facing if words.pace == "standing still" else reading.direction
        judged["direction"] = shown == words.direction
        judged["facing"] = reading.facing == words.direction
    return judged


def scroll_steps(frames: np.ndarray) -> np.ndarray:
    """How far the ground moved from each frame to the next, (T - 1,) units, positive when travelling to the right.

    NaN where no shift fits.
    """
    _checked(frames)
    speeds = _speeds(len(frames[0]))
    cost = _shift_costs(_ground(frames), 1, speeds * len(frames[0]) / 128)
    best = cost.argmin(1)
    fits = (cost.min(1) <= MAX_MISMATCH * cost.mean(1)) & (cost.mean(1) > MIN_RELIEF)
    return np.where(fits, [_refined(row, speeds, index) for row, index in zip(cost, best, strict=True)], np.nan)


def _checked(frames: np.ndarray) -> np.ndarray:
    """Frames of 64 rows and 96 columns, (T, 64, 96, 3) float32, of the middle of what is wider than 3 : 2."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < MIN_FRAMES:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3) with T >= {MIN_FRAMES}"
        )
    height, width = frames.shape[1:3]
    wanted = height * COLUMNS // ROWS
    if width < wanted:
        raise ValueError(f"frames are {height} x {width}, expected a width of {wanted} or more at that height")
    left = (width - wanted) // 2
    middle = frames[:, :, left : left + wanted].astype(np.float32)
    rows, columns = _averaging(height, ROWS), _averaging(wanted, COLUMNS)
    return np.einsum("rh,thwc,kw->trkc", rows, middle, columns, optimize=True)


def _averaging(size: int, cells: int) -> np.ndarray:
    """Weights (cells, size) with which `size` pixels are averaged into cells of equal width."""
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(0) * cells / size).astype(np.float32)


def _place_costs(small: np.ndarray) -> np.ndarray:
    """How far each frame is from each place at each time, (T, J), in mean deviations of a feature."""
    templates = place_templates()
    difference = place_features(small)[:, None] - templates.mean
    squared = np.einsum("tjf,fg,tjg->tj", difference, templates.precision, difference, optimize=True)
    return np.sqrt(squared / difference.shape[-1])


def _read_place(costs: np.ndarray) -> tuple[str | None, str | None]:
    """The place and the time that fit best on average; each by itself, for a place may change while a time does not."""
    names = place_templates().names
    mean = costs.mean(0)
    if mean.min() > MAX_DISTANCE:
        return None, None
    return names[mean.argmin()]


def _read_subject(small: np.ndarray, times: Sequence[str]) -> tuple[str | None, str | None, str | None, str | None]:
    """Subject, facing, main and second colour: the hypothesis that explains most pixels of all frames."""
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
        _named(COLORS, color, main[frame, color, chosen], templates.main.sum(1)[chosen]),
        _named(SECOND_COLORS, other, second[frame, other, chosen], templates.second.sum(1)[chosen]),
    )


def _named(names: Sequence[str], index: int, gain: np.ndarray, area: np.ndarray) -> str | None:
    return list(names)[index] if gain.sum() >= MIN_COLOR * PRIOR * area.sum() else None


def _color_costs(small: np.ndarray, times: Sequence[str]) -> np.ndarray:
    """How unlike each pixel is to each colour in the light of the frame's time, (T, palette, pixels), from 0 to 1."""
    pixels = _opponent(small.reshape(len(small), 1, -1, 3))
    colors = _opponent(np.stack([palette(time) for time in times]))[:, :, None]
    return np.minimum(((pixels - colors) ** 2).sum(-1) / TOLERANCE**2, 1)


def _opponent(rgb: np.ndarray) -> np.ndarray:
    """Colours (..., 3) as brightness, weighted down, and how far each of red and blue is above it."""
    luminance = rgb @ np.float32([0.3, 0.59, 0.11])
    return np.stack([LUMINANCE_WEIGHT * luminance, rgb[..., 0] - luminance, rgb[..., 2] - luminance], -1)


def _ground(frames: np.ndarray) -> np.ndarray:
    """The strip of pixels that travels as fast as the subject, without each row's own mean: (T, rows, W, 3)."""
    strip = frames[:, round(BAND * frames.shape[1]) :].astype(np.float32)
    for axis in (1, 2):  # noise is averaged out
        strip = sum(np.take(strip, range(start, strip.shape[axis] - 2 + start), axis) for start in range(3)) / 3
    return strip - strip.mean((0, 2), keepdims=True)


def _speeds(height: int) -> np.ndarray:
    return np.arange(-MAX_SPEED, MAX_SPEED + SPEED_STEP / 2, SPEED_STEP)


def _shift_costs(strip: np.ndarray, lag: int, shifts: np.ndarray) -> np.ndarray:
    """Mean squared difference (T - lag, shifts) of frames `lag` apart, the later shifted by each of `shifts` pixels."""
    early, late = strip[:-lag], strip[lag:]
    width = strip.shape[2]
    reach = int(np.ceil(np.abs(shifts).max())) + 1
    whole = []
    for shift in range(-reach, reach + 1):
        kept, moved = (early[:, :, shift:], late[:, :, : width - shift])
        if shift < 0:
            kept, moved = early[:, :, :shift], late[:, :, -shift:]
        whole.append(((kept - moved) ** 2).mean((1, 2, 3)))
    grid = np.arange(-reach, reach + 1)
    return np.stack([np.interp(shifts, grid, row) for row in np.stack(whole, 1)])


def _read_speed(frames: np.ndarray) -> float | None:
    """Units a frame at which the ground passes; None if no speed fits."""
    unit = frames.shape[1] / 128
    strip, speeds = _ground(frames), _speeds(frames.shape[1])
    lags = [lag for lag in LAGS if lag < len(frames)]
    cost = np.stack([_shift_costs(strip, lag, speeds * lag * unit).mean(0) for lag in lags]).mean(0)
    best = int(cost.argmin())
    if cost[best] > MAX_MISMATCH * cost.mean() or cost.mean() < MIN_RELIEF:
        return None
    return _refined(cost, speeds, best)


def _refined(cost: np.ndarray, speeds: np.ndarray, best: int) -> float:
    """The lowest point of the parabola through the least cost and its neighbours."""
    if not 0 < best < len(cost) - 1:
        return float(speeds[best])
    before, least, after = cost[best - 1 : best + 2]
    bend = before - 2 * least + after
    return float(speeds[best] + (0.5 * SPEED_STEP * (before - after) / bend if bend > 0 else 0))


def _travelling(speed: float) -> tuple[str | None, str]:
    """Direction and pace of a speed; what stands still has no direction."""
    paces = list(PACES.values())
    limits = [paces[1] / 2, *(np.sqrt(slow * fast) for slow, fast in pairwise(paces[1:]))]
    pace = list(PACES)[int(np.searchsorted(limits, abs(speed)))]
    return (None if pace == "standing still" else "right" if speed > 0 else "left"), pace


def _most(words: Sequence[str | None]) -> str | None:
    word, count = Counter(words).most_common(1)[0]
    return word if count > len(words) / 2 else None
