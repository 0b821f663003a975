"""Compare masks of objects with templates of the shapes, at every rotation."""

import functools
import math
from collections.abc import Mapping

import numpy as np
import torch

from lvdm.data.captions import SHAPES
from lvdm.data.shapes import HEIGHT, distance_to_outline

GRID = 32  # cells per side of a template; a side is twice the square root of the object's area
OBJECT_CELLS = (GRID / 2) ** 2  # how many cells the object covers
PERIODS = {"circle": 0.0, "square": math.pi / 2, "triangle": 2 * math.pi / 3, "star": 2 * math.pi / 5}
ROTATION_STEP = math.radians(9)


def shape_overlaps(mask: np.ndarray, area: np.ndarray, x: np.ndarray, y: np.ndarray) -> Mapping[str, float]:
    """Return for each shape the intersection over union with its best rotation, on average over the frames.

    Args:
        mask: (T, H, W) of bool, on the torus.
        area, x, y: (T,), the area and the centroid of the mask in pixels. Templates are compared at that area.
    """
    names, templates = _templates()
    cells = _normalize(mask, area, x, y).reshape(len(mask), -1)
    shared = cells @ templates.T  # (T, templates), in cells
    union = OBJECT_CELLS + templates.sum(1) - shared
    overlap = shared / union
    return {shape: overlap[:, names == shape].max(1).mean() for shape in SHAPES}


def _grid() -> np.ndarray:
    """Return the cell centres along one side of a template, in square roots of the object's area."""
    return (np.arange(GRID) + 0.5) * 2 / GRID - 1


def _normalize(mask: np.ndarray, area: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the mask centred and scaled to unit area, sampled bilinearly: (T, GRID, GRID)."""
    _, height, width = mask.shape
    reach = np.sqrt(area)[:, None] * _grid()
    columns, rows = x[:, None] + reach - 0.5, y[:, None] + reach - 0.5
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    frame = np.arange(len(mask))[:, None, None]

    def corner(down: int, right: int) -> np.ndarray:
        return mask[frame, ((top + down) % height)[:, :, None], ((left + right) % width)[:, None, :]]

    across, along = (columns - left)[:, None, :], (rows - top)[:, :, None]
    upper = corner(0, 0) * (1 - across) + corner(0, 1) * across
    lower = corner(1, 0) * (1 - across) + corner(1, 1) * across
    return upper * (1 - along) + lower * along


@functools.cache
def _templates() -> tuple[np.ndarray, np.ndarray]:
    """Return the shape of each template and its cells inside the outline (templates, GRID * GRID), of unit area."""
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
