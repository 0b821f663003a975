"""Draw anti-aliased polygons with round corners.

Lengths are in units (128 to the height of a picture) until a `Placement` converts them to pixels. x grows to the right,
y downwards.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]  # RGB, 0-255


@dataclass(frozen=True)
class Part:
    """A polygon with round corners: a disc if it has one point, a rounded line if it has two.

    Args:
        points: corners (N, 2), in units.
        radius: by how much the polygon is widened on all sides, in units.
        color: RGB, 0-255, in daylight.
        label: "main" or "second" if the part shows that colour of the subject, else "other".
        glows: whether the part is as bright at night as by day, such as a lamp.
    """

    points: np.ndarray
    radius: float
    color: Color
    label: str = "other"
    glows: bool = False


def part(color: Color, radius: float, *points: tuple[float, float], label: str = "other", glows: bool = False) -> Part:
    """Return the polygon through `points`, each (x, y) in units."""
    return Part(np.array(points), radius, color, label, glows)


def box(color: Color, left: float, top: float, right: float, bottom: float, *, glows: bool = False) -> Part:
    """Return a rectangle with sharp corners; its sides are in units."""
    return part(color, 0.0, (left, top), (right, top), (right, bottom), (left, bottom), glows=glows)


def shaded(color: Color, share: float) -> Color:
    """Return a darker colour for a share below 1, and a lighter one, up to white at 2, for a share above 1."""
    if share <= 1:
        return tuple(channel * share for channel in color)
    return tuple(channel + (255 - channel) * (share - 1) for channel in color)


@dataclass(frozen=True)
class Placement:
    """The map from local coordinates in units to pixels: turn, scale, mirror left and right, then move.

    Args:
        x, y: the pixel of the local origin.
        scale: pixels per unit.
        mirrored: whether left and right are exchanged.
        turn: radians, clockwise on the screen.
    """

    x: float
    y: float
    scale: float
    mirrored: bool = False
    turn: float = 0.0

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Convert points (N, 2) from units to pixels."""
        cos, sin = self.scale * math.cos(self.turn), self.scale * math.sin(self.turn)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        return turned * (-1.0 if self.mirrored else 1.0, 1.0) + np.array([self.x, self.y])


def draw(canvas: np.ndarray, parts: Iterable[Part], placement: Placement, ink: Callable[[Part], np.ndarray]) -> None:
    """Blend parts into `canvas` (H, W, C) in place, later parts over earlier ones.

    Args:
        canvas: the picture to draw into.
        parts: the parts, from the back to the front.
        placement: where the parts lie on the canvas.
        ink: returns the channels (C,) that a part is drawn with.
    """
    for piece in parts:
        stamp(canvas, placement.pixels(piece.points), piece.radius * placement.scale, ink(piece))


def stamp(canvas: np.ndarray, points: np.ndarray, radius: float, ink: np.ndarray) -> None:
    """Blend `ink` (C,) into `canvas` (H, W, C) in place, where the polygon with round corners covers it.

    Args:
        canvas: the picture to draw into.
        points: corners (N, 2), in pixels.
        radius: by how much the polygon is widened on all sides, in pixels.
        ink: the channels that are drawn.
    """
    height, width = canvas.shape[:2]
    left, top = np.maximum(np.floor(points.min(0) - radius - 1).astype(int), 0)
    right, bottom = np.ceil(points.max(0) + radius + 1).astype(int)
    region = canvas[top : max(bottom, 0), left : max(right, 0)]
    if region.size == 0 or top >= height or left >= width:
        return
    columns = np.arange(left, left + region.shape[1], dtype=np.float32) + 0.5
    rows = np.arange(top, top + region.shape[0], dtype=np.float32) + 0.5
    cover = np.clip(0.5 + radius - signed_distance(points.astype(np.float32), columns, rows), 0, 1)
    region += cover[..., None] * (ink - region)


def signed_distance(points: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the distance (h, w) of each pixel's centre to the outline of a polygon, in pixels; negative inside.

    Args:
        points: corners (N, 2), in pixels.
        columns, rows: x (w,) and y (h,) of the pixels' centres.
    """
    x = columns[None, None, :] - points[:, 0, None, None]  # (N, 1, w): distance to each corner
    y = rows[None, :, None] - points[:, 1, None, None]  # (N, h, 1)
    if len(points) == 1:
        return np.sqrt(x[0] ** 2 + y[0] ** 2)
    edges = np.roll(points, -1, 0) - points
    if len(points) == 2:  # the edge back is the same edge
        x, y, edges = x[:1], y[:1], edges[:1]
    edge_x, edge_y = edges[:, 0, None, None], edges[:, 1, None, None]
    along = x * (edge_x / (edge_x**2 + edge_y**2)) + y * (edge_y / (edge_x**2 + edge_y**2))
    np.clip(along, 0, 1, out=along)
    distance = np.sqrt(((x - along * edge_x) ** 2 + (y - along * edge_y) ** 2).min(0))
    if len(x) == 1:
        return distance
    crosses = (y >= 0) != (y - edge_y >= 0)  # (N, h, 1): the row is between the edge's ends
    slope = np.divide(edge_x, edge_y, out=np.zeros_like(edge_x), where=edge_y != 0)
    inside = np.logical_xor.reduce(crosses & (x < y * slope), axis=0)
    return np.where(inside, -distance, distance)
