"""Render the frames of a journey with their ground truth. A frame depends only on the scene and its own number."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from lvdm.data.journeys.drawing import Part, Placement, draw, stamp
from lvdm.data.journeys.places import LIGHT, PLACE, Layer, Ridge
from lvdm.data.journeys.scene import Scene, Words, words_after
from lvdm.data.journeys.scenery import KINDS, VARIANTS, hashed
from lvdm.data.journeys.subjects import parts_of, sway

UNITS = 128  # units of length in the height of a picture
SUBPIXELS = 4  # things stand at multiples of a quarter of a pixel, so that their sprites can be cached
REACH = 64  # units; things whose foot is farther outside the picture do not show


@dataclass(frozen=True)
class Rendered:
    """T rendered frames and their ground truth.

    Args:
        frames: (T, H, W, 3) uint8, RGB.
        mask: (T, H, W, 3) uint8: the share of each pixel, from 0 to 255, that is covered by the subject, by its main
            colour and by its second colour.
        scroll: (T,) distance that the subject has travelled since frame 0, in units, positive to the right.
        words: the words that describe each frame.
    """

    frames: np.ndarray
    mask: np.ndarray
    scroll: np.ndarray
    words: tuple[Words, ...]


def render(scene: Scene, begin: int, count: int, *, height: int = 128, width: int = 192) -> Rendered:
    """Render consecutive frames of a scene.

    Args:
        scene: what to render.
        begin: number of the first frame; may be negative.
        count: number of frames, T.
        height, width: pixels, at least 16.

    Raises:
        ValueError: `count` is below 1, or the picture is too small.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1 frame")
    if min(height, width) < 16:
        raise ValueError(f"a picture of {height} x {width} pixels is too small, expected at least 16 x 16")
    numbers = range(begin, begin + count)
    pictures = np.stack([_frame(scene, number, height, width) for number in numbers])
    return Rendered(
        frames=pictures[..., :3],
        mask=pictures[..., 3:],
        scroll=np.array([scene.scroll(number) for number in numbers]),
        words=tuple(scene.words_at(number) for number in numbers),
    )


def _frame(scene: Scene, number: int, height: int, width: int) -> np.ndarray:
    """Return frame `number` with its masks, (H, W, 6) uint8; during a change, a blend of before and after it."""
    words = scene.words
    for change in scene.changes:
        progress = change.progress(number)
        after = words_after(words, change)
        if 0 < progress < 1:
            share = np.float32(progress)
            if change.place:
                share = _wipe(progress, width, from_right=words.direction == "right")
            old, new = (
                _canvas(replace(scene, words=some, changes=()), number, height, width) for some in (words, after)
            )
            return (old + share * (new - old) + 0.5).astype(np.uint8)
        if progress == 1:
            words = after
    return (_canvas(replace(scene, words=words, changes=()), number, height, width) + 0.5).astype(np.uint8)


def _wipe(progress: float, width: int, *, from_right: bool) -> np.ndarray:
    """Return the share (1, W, 1) of each column that already shows the new place.

    Args:
        progress: how much of the change has happened, from 0 to 1.
        width: columns of the picture.
        from_right: whether the new place appears at the right side first, as for a subject that travels to the right.
    """
    columns = (np.arange(width, dtype=np.float32) + 0.5) / width
    ahead = columns if from_right else 1 - columns
    return np.clip(ahead * 2 - 2 + 3 * progress, 0, 1)[None, :, None]


def _canvas(scene: Scene, number: int, height: int, width: int) -> np.ndarray:
    """Return a frame of a scene without changes: (H, W, 6) float32 from 0 to 255, RGB and the three masks."""
    place, unit = PLACE[scene.words.place], height / UNITS
    canvas = np.zeros((height, width, 6), np.float32)
    picture = canvas[..., :3]
    picture[:] = _backdrop(scene.words.place, scene.words.time, height, width)
    for index, layer in enumerate(place.layers):
        if not isinstance(layer, Layer) or not layer.front:
            _draw_layer(picture, layer, index, scene, number)
    lift, turn = sway(scene, number)
    mirrored = scene.words.direction == "left"
    at = Placement(width / 2, (place.subject - lift) * unit, scene.look.size * unit, mirrored, turn)
    tint = LIGHT[scene.words.time].subject
    draw(canvas, parts_of(scene, number), at, lambda piece: _subject_ink(piece, tint))
    for index, layer in enumerate(place.layers):
        if isinstance(layer, Layer) and layer.front:
            _draw_layer(canvas, layer, index, scene, number)
    return canvas


def _subject_ink(piece: Part, tint: tuple[float, float, float]) -> np.ndarray:
    """Return the six channels of a part of the subject: RGB under the factors `tint`, and the three masks."""
    light = (1, 1, 1) if piece.glows else tint
    color = [channel * share for channel, share in zip(piece.color, light, strict=True)]
    return np.array([*color, 255, 255 * (piece.label == "main"), 255 * (piece.label == "second")], np.float32)


def _draw_layer(canvas: np.ndarray, layer: Layer | Ridge, index: int, scene: Scene, number: int) -> None:
    """Draw a layer at frame `number` into `canvas` (H, W, 3 or 6) in place.

    Args:
        canvas: RGB, and the masks if the layer is in front of the subject.
        layer: the row of things or the line of hills.
        index: number of the layer in its place; with the scene's seed, it decides the things.
        scene: a scene without changes.
        number: number of the frame.
    """
    height, width = canvas.shape[:2]
    unit = height / UNITS
    if isinstance(layer, Ridge):
        _draw_ridge(canvas[..., :3], layer, scene, scene.scroll(number) * layer.depth, index)
        return
    shift = scene.scroll(number) * layer.depth + layer.drift * number  # units
    half = width / unit / 2  # units; the row of things is at `shift` in the picture's middle
    first = math.floor((shift - half - REACH) / layer.spacing)
    last = math.ceil((shift + half + REACH) / layer.spacing)
    for cell in range(first, last + 1):
        if hashed(scene.seed, index, cell, 0) >= layer.presence:
            continue
        x = (cell + 0.6 * hashed(scene.seed, index, cell, 1)) * layer.spacing - shift + half
        top, bottom = layer.rows
        y = top + (bottom - top) * hashed(scene.seed, index, cell, 2)
        variant = int(VARIANTS * hashed(scene.seed, index, cell, 3))
        _paste(canvas, layer, variant, scene.words.time, x * unit, y * unit)


def _paste(canvas: np.ndarray, layer: Layer, variant: int, time: str, x: float, y: float) -> None:
    """Draw a thing into `canvas` in place, with its foot at (x, y) pixels; x is rounded to a quarter, y to a pixel."""
    height, width = canvas.shape[:2]
    fine = math.floor(x * SUBPIXELS + 0.5)
    column, phase = divmod(fine, SUBPIXELS)
    sprite = _sprite(layer.kind, variant, time, layer.scale * height / UNITS, phase)
    left, top = column + sprite.left, round(y) + sprite.top
    cut_left, cut_top = max(0, -left), max(0, -top)
    cut_right, cut_bottom = min(sprite.color.shape[1], width - left), min(sprite.color.shape[0], height - top)
    if cut_left >= cut_right or cut_top >= cut_bottom:
        return
    region = canvas[top + cut_top : top + cut_bottom, left + cut_left : left + cut_right]
    region *= sprite.clear[cut_top:cut_bottom, cut_left:cut_right]
    region[..., :3] += sprite.color[cut_top:cut_bottom, cut_left:cut_right]


@dataclass(frozen=True)
class _Sprite:
    """The picture of a thing.

    Args:
        color: (h, w, 3), 0-255, multiplied by the cover.
        clear: (h, w, 1), 1 - cover.
        left, top: position of the upper left corner relative to the thing's foot, in pixels.
    """

    color: np.ndarray
    clear: np.ndarray
    left: int
    top: int


@lru_cache(8192)
def _sprite(kind: str, variant: int, time: str, scale: float, phase: int) -> _Sprite:
    """Return the picture of a thing at `scale` pixels per unit, moved to the right by `phase` quarters of a pixel."""
    parts = tuple(KINDS[kind](variant))
    low = np.min([(piece.points - piece.radius).min(0) for piece in parts], 0) * scale
    high = np.max([(piece.points + piece.radius).max(0) for piece in parts], 0) * scale
    left, top = (int(edge) for edge in np.floor(low - 1))
    right, bottom = (int(edge) for edge in np.ceil(high + 2))
    canvas = np.zeros((bottom - top, right - left, 4), np.float32)
    tint = LIGHT[time].scenery

    def ink(piece: Part) -> np.ndarray:
        light = (1, 1, 1) if piece.glows and time != "day" else tint
        return np.array([*(c * share for c, share in zip(piece.color, light, strict=True)), 1], np.float32)

    draw(canvas, parts, Placement(phase / SUBPIXELS - left, -top, scale), ink)
    return _Sprite(canvas[..., :3].copy(), 1 - canvas[..., 3:], left, top)


def _draw_ridge(picture: np.ndarray, ridge: Ridge, scene: Scene, shift: float, index: int) -> None:
    """Draw a line of hills into `picture` (H, W, 3) in place, down to the horizon.

    Args:
        picture: RGB, 0-255.
        ridge: the hills.
        scene: a scene without changes.
        shift: how far the hills have scrolled to the left, in units.
        index: number of the layer in its place; with the scene's seed, it decides the hills.
    """
    height, width = picture.shape[:2]
    unit = height / UNITS
    ground = round(PLACE[scene.words.place].horizon * unit)
    x = ((np.arange(width) + 0.5 - width / 2) / unit + shift) / ridge.length
    hills = 0.7 * _noise(x, scene.seed, index) + 0.3 * _noise(2.7 * x, scene.seed, index + 100)
    line = ridge.base - ridge.rise * hills
    top = max(0, math.floor(line.min() * unit) - 1)
    rows = np.arange(top, ground, dtype=np.float32)[:, None] + 0.5
    cover = np.clip(rows - (line * unit).astype(np.float32) + 0.5, 0, 1)[..., None]
    region = picture[top:ground]
    region += cover * (np.float32(ridge.color) * np.float32(LIGHT[scene.words.time].scenery) - region)


def _noise(x: np.ndarray, *key: int) -> np.ndarray:
    """Return smooth noise in [0, 1) without a period at positions `x` (N,): hashes of whole numbers, interpolated."""
    cells = np.floor(x).astype(np.int64)
    first = int(cells[0])
    heights = np.array([hashed(*key, cell) for cell in range(first, int(cells[-1]) + 2)])
    share = x - cells
    share = share * share * (3 - 2 * share)
    return heights[cells - first] * (1 - share) + heights[cells - first + 1] * share


@lru_cache(64)
def _backdrop(place: str, time: str, height: int, width: int) -> np.ndarray:
    """Return the part of a picture that never moves: sky, sun or moon, stars, and ground; (H, W, 3) float32."""
    light, unit, ground = LIGHT[time], height / UNITS, PLACE[place]
    rows = (np.arange(height) + 0.5) / unit
    sky_bottom = min(ground.horizon, 112.0)
    stops = np.linspace(0, sky_bottom, len(light.sky))
    sky = np.stack([np.interp(rows, stops, channel) for channel in np.array(light.sky).T], -1)
    picture = np.repeat(sky[:, None], width, 1).astype(np.float32)
    for star in range(light.stars):
        at = np.array([[hashed(41, star, 0) * width, hashed(41, star, 1) * 60 * unit]])
        stamp(picture, at, (0.35 + 0.5 * hashed(41, star, 2)) * unit, np.float32([225, 228, 240]))
    x, y = light.disc_at
    glow = np.float32(light.disc) * 0.35 + sky[int(y * unit)].astype(np.float32) * 0.65
    stamp(picture, np.array([[x * width, y * unit]]), 1.45 * light.disc_radius * unit, glow)
    stamp(picture, np.array([[x * width, y * unit]]), light.disc_radius * unit, np.float32(light.disc))
    for top, color in ground.bands:
        cover = np.clip(rows * unit + 0.5 - top * unit, 0, 1).astype(np.float32)[:, None, None]
        picture += cover * (np.float32(color) * np.float32(light.scenery) - picture)
    return picture
