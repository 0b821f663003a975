"""Read how the ground of a journey scrolls: the speed of a window, and the distance from each frame to the next.

Units: 128 to the height of a picture. This module does not import torch.
"""

import numpy as np

MIN_FRAMES = 4
BAND = 116 / 128  # of the height; everything below scrolls at the subject's speed
LAGS = 1, 2, 3  # frames over which shifts are measured
MAX_SPEED = 11.0  # units per frame
SPEED_STEP = 0.25  # units per frame, between the speeds that are tried
MAX_MISMATCH = 0.6  # squared difference at the best shift, relative to the mean over all shifts
MIN_TEXTURE = 4.0  # mean squared difference (0-255) over all shifts; a plainer ground shows no motion


def check_frames(frames: np.ndarray) -> None:
    """Check that `frames` are at least MIN_FRAMES pictures (T, H, W, 3) uint8; raise ValueError if they are not."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < MIN_FRAMES:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3) with T >= {MIN_FRAMES}"
        )


def read_speed(frames: np.ndarray) -> float | None:
    """Return the speed at which the ground of frames (T, H, W, 3) scrolls, in units per frame; None if no speed fits.

    It is positive when travelling to the right.
    """
    unit = frames.shape[1] / 128
    strip, speeds = _ground_strip(frames), np.arange(-MAX_SPEED, MAX_SPEED + SPEED_STEP / 2, SPEED_STEP)
    of_lags = []
    for lag in (lag for lag in LAGS if lag < len(frames)):
        shifts, costs = _shift_costs(strip, lag, reach=int(np.ceil(MAX_SPEED * lag * unit)) + 1)
        of_lags.append(np.interp(speeds * lag * unit, shifts, costs.mean(0)))
    cost = np.mean(of_lags, 0)
    best = int(cost.argmin())
    if cost[best] > MAX_MISMATCH * cost.mean() or cost.mean() < MIN_TEXTURE:
        return None
    if not 0 < best < len(cost) - 1:
        return float(speeds[best])
    return float(speeds[best] + SPEED_STEP * _parabola_minimum(*cost[best - 1 : best + 2]))


def scroll_steps(frames: np.ndarray) -> np.ndarray:
    """Return how far the ground shows that the subject travelled from each frame (T, H, W, 3) to the next.

    The distances (T - 1,) are in units, positive to the right, and NaN where no shift fits. On rendered clips they are
    right to about a fiftieth of a pixel.
    """
    check_frames(frames)
    unit = frames.shape[1] / 128
    shifts, cost = _shift_costs(_ground_strip(frames), 1, reach=int(np.ceil(MAX_SPEED * unit)) + 1)
    best = cost[:, 1:-1].argmin(1) + 1
    pair = np.arange(len(cost))
    # The parabola goes through whole pixels: through costs interpolated between them, its minimum is nearly whole, too.
    between = _parabola_minimum(cost[pair, best - 1], cost[pair, best], cost[pair, best + 1])
    fits = (cost.min(1) <= MAX_MISMATCH * cost.mean(1)) & (cost.mean(1) > MIN_TEXTURE)
    return np.where(fits, (shifts[best] + between) / unit, np.nan)


def _ground_strip(frames: np.ndarray) -> np.ndarray:
    """Return the strip of ground that scrolls at the subject's speed, smoothed and less its mean: (T, rows, W, 3)."""
    strip = frames[:, round(BAND * frames.shape[1]) :].astype(np.float32)
    for axis in (1, 2):  # a mean over 3 x 3 pixels, against noise
        strip = sum(np.take(strip, range(start, strip.shape[axis] - 2 + start), axis) for start in range(3)) / 3
    return strip - strip.mean((0, 2), keepdims=True)


def _shift_costs(strip: np.ndarray, lag: int, *, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whole shifts (S,) in pixels and the mean squared differences (T - lag, S) of frames `lag` apart there.

    Args:
        strip: (T, rows, W, 3).
        lag: frames.
        reach: the later frame is moved by up to so many pixels to the right and to the left.
    """
    early, late = strip[:-lag], strip[lag:]
    width = strip.shape[2]
    shifts = np.arange(-reach, reach + 1)
    costs = []
    for shift in shifts:
        kept, moved = (early[:, :, shift:], late[:, :, : width - shift])
        if shift < 0:
            kept, moved = early[:, :, :shift], late[:, :, -shift:]
        costs.append(((kept - moved) ** 2).mean((1, 2, 3)))
    return shifts, np.stack(costs, 1)


def _parabola_minimum(before: np.ndarray, least: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return where the parabola through three costs at -1, 0 and 1 is lowest, 0 if they lie on a line; any shape."""
    bend = before - 2 * least + after
    return np.divide(0.5 * (before - after), bend, out=np.zeros_like(bend), where=bend > 0)
