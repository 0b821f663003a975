"""Define the five places and three times of day: sky, ground, and layers of things that scroll at different speeds.

Lengths are in units, 128 to the height of a picture; heights are measured from the top of the picture.
"""

from dataclasses import dataclass

from lvdm.data.journeys.drawing import Color


@dataclass(frozen=True)
class Layer:
    """An endless row of things of one kind. Number i stands near i times `spacing`; a hash of i decides its details.

    Args:
        kind: a key of scenery.KINDS.
        depth: how far the layer scrolls when the ground scrolls by 1; smaller is farther away.
        spacing: distance between things, in units.
        rows: the foot of a thing lies between these two heights, in units from the top.
        presence: share of the things that are drawn.
        drift: how far the wind moves the layer to the left in each frame, in units.
        scale: size of the things, relative to 1.
        front: whether the layer is drawn over the subject.
    """

    kind: str
    depth: float
    spacing: float
    rows: tuple[float, float]
    presence: float = 1.0
    drift: float = 0.0
    scale: float = 1.0
    front: bool = False


@dataclass(frozen=True)
class Ridge:
    """A line of hills, filled down to the horizon.

    Args:
        color: RGB, 0-255, in daylight.
        depth: how far the hills scroll when the ground scrolls by 1.
        base: where the valleys lie, in units from the top.
        rise: the height of the hills above `base`, in units.
        length: the width of a hill, in units.
    """

    color: Color
    depth: float
    base: float
    rise: float
    length: float


@dataclass(frozen=True)
class Place:
    """The picture of a place.

    Args:
        horizon: where the sky ends, in units from the top.
        subject: where subjects touch ground or water, or the aeroplane's middle, in units from the top.
        bands: (top, colour) of the strips of the ground, downwards.
        layers: what scrolls past, from the back to the front.
    """

    horizon: float
    subject: float
    bands: tuple[tuple[float, Color], ...]
    layers: tuple[Layer | Ridge, ...]


_CLOUDS = Layer("cloud", 0.05, 74, (16, 38), 0.6, drift=0.15)

PLACE = {
    "city": Place(
        88,
        109,
        ((88, (176, 172, 168)), (96, (120, 118, 116)), (98, (84, 84, 92))),
        (
            _CLOUDS,
            Layer("tower", 0.12, 19, (88, 88), 0.95),
            Layer("house", 0.4, 46, (88, 88), 0.9),
            Layer("joint", 1.0, 17, (95.5, 95.5), 0.8),
            Layer("street_tree", 1.0, 120, (94, 94), 0.55),
            Layer("lamp", 1.0, 95, (95, 95), 0.8),
            Layer("dash", 1.0, 42, (122, 122), 0.92),
        ),
    ),
    "desert": Place(
        86,
        110,
        ((86, (234, 200, 142)), (100, (226, 188, 126)), (115, (232, 196, 136))),
        (
            Layer("mesa", 0.1, 84, (79, 79), 0.8),
            Ridge((222, 170, 110), 0.25, 80, 12, 70),
            Ridge((230, 186, 126), 0.45, 86, 9, 45),
            Layer("cactus", 0.6, 66, (89, 92), 0.7),
            Layer("ripple", 1.0, 30, (97, 100), 0.7),
            Layer("stone", 1.0, 74, (98, 99), 0.6),
            Layer("cactus", 1.0, 150, (99, 99), 0.5, scale=1.3),
            Layer("ripple", 1.0, 38, (119, 119), 0.8),
            Layer("dry_bush", 1.0, 90, (125, 127), 0.7, scale=1.2, front=True),
            Layer("stone", 1.0, 62, (124, 127), 0.7, scale=1.2, front=True),
        ),
    ),
    "forest": Place(
        88,
        109,
        ((88, (112, 156, 76)), (99, (168, 136, 94)), (114, (98, 146, 66))),
        (
            Ridge((146, 182, 168), 0.06, 66, 26, 90),
            Layer("far_conifer", 0.2, 12, (88, 89), 0.92),
            Layer("broadleaf", 0.5, 52, (89, 90), 0.6),
            Layer("conifer", 0.5, 38, (90, 91), 0.85),
            Layer("pebble", 1.0, 21, (102, 112), 0.8),
            Layer("conifer", 1.0, 130, (97, 97), 0.6, scale=1.35),
            Layer("flower_tuft", 1.0, 58, (98, 99), 0.7, scale=0.8),
            Layer("flower_tuft", 1.0, 34, (121, 127), 0.85, scale=1.3, front=True),
        ),
    ),
    "sea": Place(
        66,
        104,
        ((66, (74, 142, 190)), (78, (52, 118, 172)), (96, (40, 102, 158)), (112, (32, 88, 144))),
        (
            _CLOUDS,
            Layer("island", 0.06, 130, (66.5, 66.5), 0.7),
            Layer("crest", 0.3, 34, (71, 74), 0.8, scale=0.5),
            Layer("crest", 0.6, 38, (82, 88), 0.85, scale=0.75),
            Layer("crest", 1.0, 40, (98, 101), 0.85),
            Layer("crest", 1.0, 36, (112, 115), 0.9, scale=1.2, front=True),
            Layer("crest", 1.0, 44, (122, 125), 0.9, scale=1.4, front=True),
        ),
    ),
    "sky": Place(
        128,
        62,
        (),
        (
            Layer("cloud", 0.1, 58, (24, 46), 0.6),
            Layer("cloud", 0.35, 72, (66, 100), 0.75, scale=1.2),
            Layer("near_cloud", 0.6, 46, (116, 122), 0.9),
            Layer("near_cloud", 1.0, 50, (131, 139), 0.95, front=True),
            Layer("near_cloud", 1.0, 170, (22, 30), 0.6, scale=0.8),
        ),
    ),
}


@dataclass(frozen=True)
class Light:
    """The light at a time of day.

    Args:
        sky: colours of the sky, from the top to the horizon.
        scenery: factors of red, green and blue by which the colours of scenery and ground are multiplied.
        subject: the same factors for the subject.
        disc: colour of the sun or the moon.
        disc_at: centre of the sun or the moon: share of the width, units from the top.
        disc_radius: units.
        stars: how many there are.
    """

    sky: tuple[Color, ...]
    scenery: Color
    subject: Color
    disc: Color
    disc_at: tuple[float, float]
    disc_radius: float
    stars: int = 0


LIGHT = {
    "day": Light(
        ((92, 172, 244), (156, 208, 250), (214, 236, 250)), (1, 1, 1), (1, 1, 1), (255, 240, 170), (0.84, 18), 9
    ),
    "sunset": Light(
        ((104, 62, 138), (214, 98, 116), (255, 176, 92)),
        (0.80, 0.56, 0.56),
        (1.0, 0.84, 0.76),
        (255, 226, 140),
        (0.78, 50),
        13,
    ),
    "night": Light(
        ((10, 14, 40), (22, 30, 74), (44, 56, 112)),
        (0.42, 0.46, 0.66),
        (0.70, 0.72, 0.86),
        (236, 238, 226),
        (0.84, 20),
        8,
        stars=26,
    ),
}
