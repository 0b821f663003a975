"""Geometry on the torus: what leaves a picture on one side comes in again on the other."""

import math
from collections.abc import Iterator

import numpy as np


def wrapped(difference: np.ndarray, period: float) -> np.ndarray:
    """Return differences on a circle of circumference `period` the short way around, in -period/2 .. period/2."""
    return (difference + period / 2) % period - period / 2


def eroded(mask: np.ndarray) -> np.ndarray:
    """Return masks (T, H, W) without the pixels at the edges of their regions."""
    for axis in (1, 2):
        mask = mask & np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask


def torus_centroid(weight: np.ndarray) -> np.ndarray:
    """Return the mean position (T,), in pixels, of weights (T, N) on a circle of N pixels.

    It is the plain mean of the positions relative to the circular mean.
    """
    period = weight.shape[1]
    centers = np.arange(period) + 0.5
    angle = np.angle(weight @ np.exp(2j * math.pi * centers / period))
    rough = angle[:, None] * period / (2 * math.pi)
    return rough[:, 0] + (weight * wrapped(centers - rough, period)).sum(1) / weight.sum(1)


def regions(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for each frame of a mask (T, H, W) the labels (N,) of its N pixels, equal for pixels of one region."""
    outside = mask[0].size
    labels = np.where(mask, np.arange(outside).reshape(mask[0].shape), outside)
    while True:  # every pixel takes the smallest label beside it, until none changes
        smallest = labels
        for axis in (1, 2):
            for turn in (1, -1):
                smallest = np.minimum(smallest, np.roll(labels, turn, axis))
        smallest = np.where(mask, smallest, outside)
        if np.array_equal(smallest, labels):
            break
        labels = smallest
    return (frame[inside] for frame, inside in zip(labels, mask, strict=True))
