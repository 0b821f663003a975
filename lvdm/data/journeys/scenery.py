"""Draw the things along the way, such as houses, trees, clouds and stones, as parts in local coordinates.

(0, 0) is the middle of a thing's foot; lengths are in units, 128 to the height of a picture. Each kind has VARIANTS
variants, numbered from 0. A thing depends on its variant alone, so it looks the same in every frame.
"""

import math
from collections.abc import Iterator

from lvdm.data.journeys.drawing import Color, Part, box, part, shaded

VARIANTS = 8
MASK_64 = (1 << 64) - 1


def hashed(*key: int) -> float:
    """Return a number in [0, 1) that depends on all of `key` and has no period (splitmix64)."""
    state = 0
    for number in key:
        state = (state + number * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & MASK_64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK_64
        state ^= state >> 31
    return (state >> 11) / (1 << 53)


def _pick(choices: tuple, *key: int):
    """Return one of `choices`, which depends on all of `key`."""
    return choices[int(hashed(*key) * len(choices))]


FACADES = ((178, 124, 104), (206, 186, 156), (132, 142, 156), (166, 150, 142), (150, 112, 92), (188, 188, 186))
WINDOW, WINDOW_LIT = (92, 104, 122), (255, 220, 130)
BARK = (96, 70, 48)


def tower(variant: int) -> Iterator[Part]:
    """Draw a distant house: a plain silhouette with an antenna, a penthouse or a flat roof."""
    width, height = 14 + 12 * hashed(1, variant), 20 + 34 * hashed(2, variant)
    color = _pick(((138, 148, 172), (150, 158, 180), (126, 138, 164)), 3, variant)
    yield box(color, -width / 2, -height, width / 2, 0)
    if variant % 3 == 0:
        yield part(color, 0.8, (0, -height), (0, -height - 9))
    if variant % 3 == 1:
        yield box(color, -width / 4, -height - 5, width / 4, -height)


def house(variant: int) -> Iterator[Part]:
    """Draw a house of the street, with rows of windows that are lit or dark."""
    columns, floors = 2 + int(3 * hashed(4, variant)), 3 + int(4 * hashed(5, variant))
    width, height = 9 * columns + 5, 10 * floors + 10
    color = FACADES[variant % len(FACADES)]
    yield box(color, -width / 2, -height, width / 2, 0)
    yield box(shaded(color, 0.72), -width / 2 - 1.5, -height - 2.5, width / 2 + 1.5, -height)
    for column in range(columns):
        for floor in range(floors):
            left, top = -width / 2 + 4.5 + 9 * column, -height + 5 + 10 * floor
            lit = hashed(6, variant, column, floor) < 0.45
            yield box(WINDOW_LIT if lit else WINDOW, left, top, left + 5, top + 6, glows=lit)
    yield box(shaded(color, 0.5), -3, -9, 3, 0)


def lamp(variant: int) -> Iterator[Part]:
    """Draw a street lamp."""
    yield part((70, 74, 80), 1.1, (0, 0), (0, -46))
    yield part((70, 74, 80), 1.0, (0, -46), (9, -48))
    yield part((255, 236, 160), 2.6, (10, -46), glows=True)


def street_tree(variant: int) -> Iterator[Part]:
    """Draw a round tree on the pavement."""
    leaf = ((86, 132, 74), (104, 144, 78))[variant % 2]
    yield part(BARK, 1.6, (0, 0), (0, -20))
    yield part(leaf, 9 + 3 * hashed(7, variant), (0, -27))
    yield part(shaded(leaf, 1.12), 5, (-3, -30))


def mesa(variant: int) -> Iterator[Part]:
    """Draw a flat-topped mountain with a darker layer of rock."""
    width, height = 30 + 40 * hashed(8, variant), 14 + 16 * hashed(9, variant)
    color = (190, 112, 82)
    yield part(color, 1, (-width / 2 - 10, 0), (-width / 2, -height), (width / 2, -height), (width / 2 + 12, 0))
    yield box(shaded(color, 0.85), -width / 2 - 2, -0.7 * height, width / 2 + 3, -0.55 * height)


def cactus(variant: int) -> Iterator[Part]:
    """Draw a saguaro with one or two arms."""
    green, height = (66, 124, 72), 24 + 22 * hashed(10, variant)
    side = 1 if variant % 2 else -1
    low, high = 0.35 * height, 0.55 * height
    yield part(green, 3.6, (0, 0), (0, -height))
    yield part(green, 2.6, (0, -low), (9 * side, -low))
    yield part(green, 2.6, (9 * side, -low), (9 * side, -low - 11))
    if variant % 4:
        yield part(green, 2.4, (0, -high), (-8 * side, -high))
        yield part(green, 2.4, (-8 * side, -high), (-8 * side, -high - 8))
    yield part(shaded(green, 1.25), 0.6, (-1, -2), (-1, -height))


def stone(variant: int) -> Iterator[Part]:
    """Draw a boulder."""
    width, height = 7 + 8 * hashed(11, variant), 4 + 5 * hashed(12, variant)
    color = ((150, 104, 74), (166, 122, 90))[variant % 2]
    yield part(color, 2, (-width / 2, -2), (-width / 5, -height), (width / 3, -height + 1), (width / 2, -2))
    yield part(shaded(color, 1.3), 1, (-width / 5, -height + 1), (width / 5, -height + 1))


def dry_bush(variant: int) -> Iterator[Part]:
    """Draw dry twigs in the sand."""
    for twig in range(5):
        angle = -1.1 + 0.55 * twig + 0.2 * hashed(13, variant, twig)
        yield part((138, 112, 58), 0.9, (0, -1), (11 * math.sin(angle), -1 - 10 * math.cos(angle)))


def conifer(variant: int) -> Iterator[Part]:
    """Draw a fir with three tiers of branches."""
    height = 34 + 26 * hashed(14, variant)
    green = ((46, 98, 66), (58, 112, 70), (40, 88, 70))[variant % 3]
    yield part(BARK, 2.2, (0, 0), (0, -8))
    for tier in range(3):
        foot, half = -6 - tier * 0.26 * height, 0.27 * height * (1 - 0.22 * tier)
        yield part(shaded(green, 1 + 0.06 * tier), 0.8, (-half, foot), (0, foot - 0.45 * height), (half, foot))


def far_conifer(variant: int) -> Iterator[Part]:
    """Draw a distant fir as a plain triangle."""
    height = 22 + 22 * hashed(15, variant)
    color = ((92, 138, 124), (104, 148, 130))[variant % 2]
    yield part(color, 0.6, (-0.24 * height, 0), (0, -height), (0.24 * height, 0))


def broadleaf(variant: int) -> Iterator[Part]:
    """Draw a tree with a round crown."""
    green, height = ((88, 138, 62), (108, 150, 66), (132, 150, 62))[variant % 3], 30 + 12 * hashed(16, variant)
    yield part(BARK, 2.8, (0, 0), (0, -height))
    for x, y, radius in ((-8, 0, 10), (8, 1, 10), (0, -9, 12)):
        yield part(green, radius, (x, y - height))
    yield part(shaded(green, 1.15), 6, (-4, -height - 9))


def flower_tuft(variant: int) -> Iterator[Part]:
    """Draw grass with or without flowers, or a mushroom."""
    if variant % 4 == 0:
        yield part((236, 224, 200), 1.8, (0, 0), (0, -5))
        yield part((186, 74, 56), 1.6, (-4, -6), (0, -9), (4, -6))
        return
    for blade in range(5):
        lean = -6 + 3 * blade
        yield part((56, 106, 46), 1.1, (lean / 3, 0), (lean, -8 - 3 * hashed(17, variant, blade)))
    if variant % 2:
        petal = _pick(((240, 230, 150), (226, 190, 224), (246, 244, 236)), 18, variant)
        yield part(petal, 2.2, (-5, -10))
        yield part(petal, 2.2, (4, -12))


def island(variant: int) -> Iterator[Part]:
    """Draw an island on the horizon, with a lighthouse in some variants."""
    width, height = 26 + 40 * hashed(19, variant), 5 + 8 * hashed(20, variant)
    yield part((110, 142, 128), 1.5, (-width / 2, 0), (-width / 6, -height), (width / 5, -0.8 * height), (width / 2, 0))
    if variant % 3 == 0:
        yield box((230, 222, 214), -2, -height - 12, 2, -height + 2)
        yield part((255, 236, 150), 2.0, (0, -height - 13), glows=True)


def crest(variant: int) -> Iterator[Part]:
    """Draw the crest of a wave."""
    half, color = 6 + 7 * hashed(21, variant), (172, 214, 230)
    yield part(color, 0.8, (-half, 0), (-half / 2, -2.2), (0, -2.8), (half / 2, -2.2), (half, 0), (0, -1.6))


def cloud(variant: int) -> Iterator[Part]:
    """Draw a white cloud with a flat base."""
    yield from _puffs((252, 252, 252), variant, count=4, spread=8.0, radius=7.0)


def near_cloud(variant: int) -> Iterator[Part]:
    """Draw a large cloud with a shaded lower edge."""
    yield from _puffs((214, 224, 238), variant, count=5, spread=11.0, radius=10.5)
    yield from (
        Part(puff.points - (0, 3.5), puff.radius - 1.5, (252, 252, 252))
        for puff in _puffs((0, 0, 0), variant, count=5, spread=11.0, radius=10.5)
    )


def _puffs(color: Color, variant: int, *, count: int, spread: float, radius: float) -> Iterator[Part]:
    """Draw a row of `count` discs, `spread` units apart, whose largest in the middle have about `radius` units."""
    for puff in range(count):
        size = radius * (0.7 + 0.5 * hashed(22, variant, puff)) * (1 - 0.35 * abs(2 * puff / (count - 1) - 1))
        yield part(color, size, ((puff - (count - 1) / 2) * spread, -size))


def dash(variant: int) -> Iterator[Part]:
    """Draw a dash of the line between two lanes."""
    half = 7 + 5 * hashed(23, variant)
    yield box((226, 222, 206), -half, -2.6, half, 0.6)


def joint(variant: int) -> Iterator[Part]:
    """Draw a joint between two slabs of the pavement, with a drain in the street in some variants."""
    if variant % 4 == 0:
        yield part((40, 40, 46), 1.0, (-4, 20), (4, 20))
    yield box((136, 134, 132), -0.7, -7.5, 0.7, 0)


def ripple(variant: int) -> Iterator[Part]:
    """Draw a ripple of sand."""
    half = 7 + 9 * hashed(24, variant)
    yield part((196, 158, 102), 0.9, (-half, 0), (-half / 3, -1.6), (half / 3, -0.4), (half, -1.2), (0, -0.3))


def pebble(variant: int) -> Iterator[Part]:
    """Draw a small stone of the path."""
    yield part(((150, 122, 88), (122, 96, 66))[variant % 2], 1.6, (-2, 0), (1 + variant % 3, 0))


KINDS = {
    drawn.__name__: drawn
    for drawn in (
        tower, house, lamp, street_tree, mesa, cactus, stone, dry_bush, conifer, far_conifer, broadleaf, flower_tuft,
        island, crest, cloud, near_cloud, dash, joint, ripple, pebble,
    )
}  # fmt: skip
