"""Measure how far the picture moves from frame to frame: block matching by normalized cross-correlation (Lewis 1995).

Every tile of a frame is searched for in the next one, up to REACH pixels away in each direction.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

ROWS = 96  # frames are shrunk by a whole factor, to a shorter side of at least this many pixels
TILE = 16  # pixels per side, after shrinking
REACH = 12
SIDE = TILE + 2 * REACH  # pixels per side of the region in which a tile is searched for
MIN_TEXTURE = 2.0  # levels of 255: tiles of a smaller standard deviation cannot be followed
MIN_MATCH = 0.7  # of 1; unrelated noise reaches 0.4
RESERVE = 5e-4  # per pixel of distance: of equally good matches, as along an edge, the nearest is taken
PERFECT = 1 - 1e-4  # a better match is at a whole pixel


@dataclass(frozen=True)
class Tiles:
    """N tiles of a frame and the regions around them.

    Args:
        tiles, surroundings: their spectra (N, SIDE, SIDE // 2 + 1).
        norms: the norm of the contrast of each patch of the surroundings (N, 2 REACH + 1, 2 REACH + 1).
        textured: (N,), whether a tile can be followed.
        scale: how many pixels of the frame are one pixel of a tile.
    """

    tiles: np.ndarray
    surroundings: np.ndarray
    norms: np.ndarray
    textured: np.ndarray
    scale: int


def tiles_of(luma: np.ndarray) -> Tiles:
    """Cut the centre of a frame (H, W), 0-255, into tiles side by side. H and W are at least TILE."""
    scale = max(1, min(luma.shape) // ROWS)
    down, across = (side // (scale * TILE) for side in luma.shape)
    top, left = ((side - count * scale * TILE) // 2 for side, count in zip(luma.shape, (down, across), strict=True))
    middle = luma[top : top + down * scale * TILE, left : left + across * scale * TILE]
    small = middle.reshape(down * TILE, scale, across * TILE, scale).mean((1, 3))
    tiles = small.reshape(down, TILE, across, TILE).swapaxes(1, 2).reshape(-1, TILE, TILE)
    tiles = tiles - tiles.mean((1, 2), keepdims=True)
    lengths = np.sqrt(np.square(tiles).sum((1, 2)))
    textured = lengths >= MIN_TEXTURE * TILE
    tiles = tiles / np.maximum(lengths, MIN_TEXTURE)[:, None, None]
    wide = np.pad(small, REACH, mode="edge")
    surroundings = _at_tiles(wide, SIDE)
    places = _box_sums(wide.astype(np.float64)), _box_sums(np.square(wide, dtype=np.float64))
    norms = np.sqrt(np.maximum(places[1] - places[0] ** 2 / TILE**2, (MIN_TEXTURE * TILE) ** 2)).astype(np.float32)
    return Tiles(
        tiles=np.fft.rfft2(tiles, s=(SIDE, SIDE)),
        surroundings=np.fft.rfft2(surroundings - surroundings.mean((1, 2), keepdims=True)),
        norms=_at_tiles(norms, 2 * REACH + 1),
        textured=textured,
        scale=scale,
    )


def motion(before: Tiles, now: Tiles) -> float:
    """Return the mean displacement, in pixels, of the tiles of a frame that are found in the next; 0 if none is."""
    chosen = before.textured
    if not chosen.any():
        return 0.0
    products = now.surroundings[chosen] * before.tiles[chosen].conj()
    places = 2 * REACH + 1
    match = np.fft.irfft2(products, s=(SIDE, SIDE))[:, :places, :places] / now.norms[chosen]  # (n, places, places)
    steps = np.arange(-REACH, REACH + 1)
    distance = np.hypot(steps[:, None], steps[None, :])
    best = (match - RESERVE * distance).reshape(len(match), -1).argmax(1)
    found = match.reshape(len(match), -1)[np.arange(len(match)), best] >= MIN_MATCH
    if not found.any():
        return 0.0
    match, row, column = match[found], best[found] // places, best[found] % places
    vertical = row - REACH + _fraction(match, row, column, axis=1)
    horizontal = column - REACH + _fraction(match, row, column, axis=2)
    return float(np.hypot(vertical, horizontal).mean() * before.scale)


def _fraction(match: np.ndarray, row: np.ndarray, column: np.ndarray, *, axis: int) -> np.ndarray:
    """Return the subpixel offset (n,) of the best match along an axis, by a parabola through it; at most 0.5."""
    tile, last = np.arange(len(match)), match.shape[1] - 1
    at = row if axis == 1 else column
    left, middle, right = (
        match[tile, row + step, column] if axis == 1 else match[tile, row, column + step]
        for step in (-(at > 0).astype(int), 0, (at < last).astype(int))
    )
    curvature = np.minimum(left - 2 * middle + right, -1e-6)
    inside = (at > 0) & (at < last) & (middle < PERFECT)
    return np.where(inside, np.clip((left - right) / (2 * curvature), -0.5, 0.5), 0.0)


def _at_tiles(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the squares of `side` pixels that begin at every TILE-th row and column of `picture`: (N, side, side)."""
    return sliding_window_view(picture, (side, side))[::TILE, ::TILE].reshape(-1, side, side)


def _box_sums(values: np.ndarray) -> np.ndarray:
    """Return the sum of every square of TILE pixels per side: (H, W) -> (H - TILE + 1, W - TILE + 1)."""
    sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return sums[TILE:, TILE:] - sums[:-TILE, TILE:] - sums[TILE:, :-TILE] + sums[:-TILE, :-TILE]
