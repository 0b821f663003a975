"""Draw the five travellers, facing right, as parts in local coordinates.

(0, 0) is where the subject touches the ground or the water, or the middle of the aeroplane. Lengths are in units, 128
to the height of a picture.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

from lvdm.data.journeys.drawing import Color, Part, box, part, shaded
from lvdm.data.journeys.scene import COLORS, HAIRS, PACES, SECOND_COLORS, SKINS, Scene

TYRE, GLASS, DARK, CHROME = (34, 34, 38), (176, 214, 232), (46, 46, 52), (196, 198, 204)
LAMP, TAIL_LAMP, FOAM, WOOD = (255, 236, 150), (200, 24, 24), (226, 240, 246), (112, 76, 46)
STRIDE = 46.0  # units that a person travels in two steps
PITCH = {"sailing boat": 0.045, "aeroplane": 0.035}  # largest turn by waves or wind, in radians
HEAVE = {"sailing boat": 2.0, "aeroplane": 2.5}  # largest lift by waves or wind, in units


def parts_of(scene: Scene, frame: int) -> list[Part]:
    """Return the parts of the subject at `frame`, from the back to the front."""
    travelled = abs(scene.scroll(frame)) / scene.look.size
    return _PARTS[scene.words.subject](scene, travelled, frame)


def sway(scene: Scene, frame: int) -> tuple[float, float]:
    """Return how far waves, wind or steps lift the subject at `frame`, in units, and turn it, in radians."""
    subject = scene.words.subject
    if subject == "person":
        return 1.2 * abs(math.sin(2 * math.pi * abs(scene.scroll(frame)) / scene.look.size / STRIDE)), 0.0
    if subject not in PITCH:
        return 0.0, 0.0
    phase = scene.seed % 997
    lift = 0.6 * math.sin(0.31 * frame + phase) + 0.4 * math.sin(0.173 * frame + 2 * phase)
    turn = 0.6 * math.sin(0.173 * frame + 2 * phase) + 0.4 * math.cos(0.31 * frame + phase)
    return HEAVE[subject] * lift, PITCH[subject] * turn


def _wheel(x: float, radius: float, travelled: float, hub: Color) -> Iterator[Part]:
    """Draw a wheel whose three spokes show how far it has rolled; it touches the ground at `x`."""
    yield part(TYRE, radius, (x, -radius))
    yield part(hub, 0.62 * radius, (x, -radius))
    for spoke in range(3):
        angle = travelled / radius + spoke * 2 * math.pi / 3
        tip = (x + 0.6 * radius * math.cos(angle), -radius + 0.6 * radius * math.sin(angle))
        yield part(TYRE, 0.09 * radius, (x, -radius), tip)


@lru_cache(256)
def _car_body(main: Color, second: Color, detail: int) -> tuple[Part, ...]:
    """Return a car without its wheels; detail 1 has luggage on the roof, detail 2 a spoiler."""
    body = ((-59, -17), (-59, -33), (-53, -37), (34, -37), (55, -32), (60, -24), (60, -17))
    parts = [
        part(second, 4, (-46, -38), (-36, -56), (8, -56), (30, -38), label="second"),
        part(GLASS, 1.5, (-36, -40), (-30, -49), (-11, -49), (-11, -40)),
        part(GLASS, 1.5, (-3, -40), (-3, -49), (6, -49), (18, -40)),
        part(main, 3, *body, label="main"),
        part(shaded(main, 0.62), 0.8, (-7, -34), (-7, -18)),
        part(shaded(main, 0.62), 1.2, (-18, -30), (-13, -30)),
        part(DARK, 2.2, (-58, -15), (58, -15)),
        part(LAMP, 3.6, (57, -27), glows=True),
        part(TAIL_LAMP, 2.6, (-60, -30), (-60, -26)),
        part(DARK, 16, (-35, -13)),
        part(DARK, 16, (36, -13)),
    ]
    if detail == 1:
        parts[:0] = [part(DARK, 1.2, (-28, -63), (2, -63)), box(WOOD, -24, -71, -4, -63), box(CHROME, -3, -68, 1, -63)]
    if detail == 2:
        parts[:0] = [part(second, 1.8, (-62, -45), (-48, -45), label="second"), part(DARK, 1.2, (-54, -45), (-52, -38))]
    return tuple(parts)


def _car(scene: Scene, travelled: float, frame: int) -> list[Part]:
    """Return the parts of a car; its wheels have rolled `travelled` units."""
    hub = (CHROME, (236, 216, 150), (120, 124, 132))[scene.look.skin % 3]
    body = _car_body(COLORS[scene.words.color], SECOND_COLORS[scene.look.second], scene.look.detail)
    return [*body, *_wheel(-35, 13, travelled, hub), *_wheel(36, 13, travelled, hub)]


@lru_cache(256)
def _bus_body(main: Color, second: Color, detail: int) -> tuple[Part, ...]:
    """Return a bus without its wheels; `detail` decides the number of windows and what is on the roof."""
    parts = [
        part(main, 4, (-68, -12), (-68, -67), (58, -67), (66, -48), (67, -12), label="main"),
        part(second, 0.5, (-72, -34), (70.2, -34), (70.7, -22), (-72, -22), label="second"),
        part(GLASS, 1.5, (50, -61), (57, -61), (63, -46), (63, -39), (50, -39)),
        box(DARK, -6, -72, 16, -70) if detail == 1 else box(main, -30, -73, 20, -70),
    ]
    count = (4, 5, 3)[detail]
    pitch = 110 / count
    for index in range(count):
        left, right = index * pitch - 64, (index + 1) * pitch - 71
        parts.append(part(GLASS, 1.5, (left, -60), (right, -60), (right, -41), (left, -41)))
    parts += [
        part(DARK, 1.6, (67, -52), (71, -50), (71, -45)),
        part(LAMP, 3.2, (68, -17), glows=True),
        part(TAIL_LAMP, 2.4, (-71, -18), (-71, -14)),
        part(DARK, 14.5, (-42, -11)),
        part(DARK, 14.5, (42, -11)),
    ]
    return tuple(parts)


def _bus(scene: Scene, travelled: float, frame: int) -> list[Part]:
    """Return the parts of a bus; its wheels have rolled `travelled` units."""
    hub = (CHROME, (236, 216, 150), (120, 124, 132))[scene.look.skin % 3]
    body = _bus_body(COLORS[scene.words.color], SECOND_COLORS[scene.look.second], scene.look.detail)
    return [*body, *_wheel(-42, 12, travelled, hub), *_wheel(42, 12, travelled, hub)]


@lru_cache(256)
def _boat_body(main: Color, second: Color, detail: int, flag: Color) -> tuple[Part, ...]:
    """Return a sailing boat without its wake; details 1 and 2 have a cabin, detail 2 portholes too."""
    parts = [
        part(flag, 0.8, (4, -93), (-10, -89), (4, -85)),
        part(WOOD, 1.6, (5, -94), (5, -20)),
        part(second, 1.5, (1, -84), (1, -27), (-48, -27), (-27, -52), label="second"),
        part(main, 1.5, (10, -80), (10, -27), (50, -25), label="main"),
        part(WOOD, 1.3, (-50, -24), (4, -24)),
    ]
    if detail:
        parts.append(part((244, 240, 228), 1.5, (-30, -18), (-30, -24 - 2 * detail), (-8, -24 - 2 * detail), (-2, -18)))
    parts += [
        part(main, 2, (-55, -17), (64, -20), (56, -8), (44, 8), (-46, 8), label="main"),
        part((244, 240, 228), 0.8, (-54, -17), (63, -19.5)),
    ]
    if detail == 2:
        parts += [part((244, 240, 228), 2.0, (x, -8)) for x in (-30, -12, 6)]
    return tuple(parts)


def _boat(scene: Scene, travelled: float, frame: int) -> list[Part]:
    """Return the parts of a sailing boat, with foam that grows with the pace."""
    look = scene.look
    body = _boat_body(COLORS[scene.words.color], SECOND_COLORS[look.second], look.detail, HAIRS[look.hair])
    foam = PACES[scene.words.pace] / 3.5 * (1 + 0.2 * math.sin(0.9 * frame))
    wake = (
        part(FOAM, 1.3, (44, 8), (50 + 5 * foam, 4 - 2 * foam)),
        part(FOAM, 1.2, (-47, 8), (-52 - 9 * foam, 9)),
    )
    return [*body, *(wake if foam else ())]


@lru_cache(256)
def _plane_body(main: Color, second: Color, detail: int) -> tuple[Part, ...]:
    """Return an aeroplane; `detail` decides the number and the size of the windows."""
    hull = ((-60, -5), (-46, -12), (42, -13), (58, -6), (64, 1), (58, 7), (44, 11), (-28, 11), (-62, 0))
    low = detail == 1
    parts = [
        part(shaded(main, 0.6), 1.5, (14, -10), (-2, -10), (-22, -30), (-14, -30)),
        part(second, 1.5, (-62, -6), (-72, -38), (-54, -38), (-32, -10), label="second"),
        part(main, 3, *hull, label="main"),
        part(DARK, 1.2, (47, -9), (56, -9), (61, -3), (50, -3)),
        part(second, 1.5, (-58, -2), (-44, -2), (-60, 11), (-68, 11), label="second"),
        part(second, 5.5, (-8, 22), (10, 22), label="second"),
        part(DARK, 4.0, (14, 22)),
        part(shaded(main, 0.72), 2, (18, 5), (-10, 5), (-40, 34), (-28, 34)),
    ]
    count, radius = ((7, 2.2), (5, 2.8), (9, 1.7))[detail]
    parts += [part(DARK, radius, (-34 + index * 70 / (count - 1), -4 + low)) for index in range(count)]
    return tuple(parts)


def _plane(scene: Scene, travelled: float, frame: int) -> list[Part]:
    """Return the parts of an aeroplane, which do not move."""
    return list(_plane_body(COLORS[scene.words.color], SECOND_COLORS[scene.look.second], scene.look.detail))


def _limb(joint: tuple[float, float], lengths: tuple[float, float], angles: tuple[float, float]) -> list[tuple]:
    """Return the three points of a limb; angles are in radians from straight down, positive to the front."""
    points = [joint]
    for length, angle in zip(lengths, angles, strict=True):
        x, y = points[-1]
        points.append((x + length * math.sin(angle), y + length * math.cos(angle)))
    return points


def _leg(phase: float, swing: float, trousers: Color, label: str) -> list[Part]:
    """Return a leg at `phase` (radians) of the stride, which swings by up to `swing` radians."""
    thigh = swing * math.sin(phase)
    knee = thigh - swing * 1.1 * max(0.0, math.cos(phase)) - 0.06
    hip, joint, foot = _limb((0.0, -37.0), (17.0, 17.0), (thigh, knee))
    return [
        part(trousers, 7.0, hip, joint, label=label),
        part(trousers, 6.0, joint, foot, label=label),
        part(DARK, 3.4, (foot[0] - 2, foot[1] + 1.5), (foot[0] + 7, foot[1] + 1.5)),
    ]


def _arm(phase: float, swing: float, sleeve: Color, skin: Color) -> list[Part]:
    """Return an arm at `phase` (radians) of the stride, which swings by up to 0.8 `swing` radians."""
    upper = 0.8 * swing * math.sin(phase)
    shoulder, elbow, hand = _limb((0.0, -58.0), (12.0, 11.0), (upper, upper + 0.35))
    return [part(skin, 3.2, hand), part(sleeve, 3.3, shoulder, elbow), part(sleeve, 2.9, elbow, hand)]


@lru_cache(256)
def _head(skin: Color, hair: Color, detail: int) -> tuple[Part, ...]:
    """Return a head with short hair; detail 1 has long hair, detail 2 a hat."""
    parts = [
        part(skin, 3.5, (0, -66), (0, -62)),
        part(skin, 11, (1, -78)),
        part(skin, 2.6, (12, -76.5)),
        part((30, 26, 26), 1.5, (7, -80)),
        part((150, 60, 54), 0.7, (7.5, -72.5), (10, -73)),
    ]
    cap = ((-9, -76), (-9.5, -83), (-4, -88.5), (4, -89), (9.5, -85), (3, -84), (-3, -80), (-5, -74))
    parts.append(part(hair, 1.5, *cap))
    if detail == 1:  # long hair
        parts.append(part(hair, 3.0, (-8, -80), (-9, -62)))
    if detail == 2:  # a hat
        parts.append(part(shaded(hair, 0.8), 2.5, (-6, -88), (-4, -93), (5, -93), (7, -88)))
        parts.append(part(hair, 1.6, (-13, -86), (15, -86)))
    return tuple(parts)


def _person(scene: Scene, travelled: float, frame: int) -> list[Part]:
    """Return the parts of a person who has walked `travelled` units; with a backpack unless there is a hat."""
    look = scene.look
    main, second, skin = COLORS[scene.words.color], SECOND_COLORS[look.second], SKINS[look.skin]
    moving = scene.words.pace != "standing still"
    phase, swing = (2 * math.pi * travelled / STRIDE, 0.55) if moving else (math.pi / 2, 0.14)
    torso = part(main, 5, (-9, -60), (8, -60), (10, -38), (-9, -38), label="main")
    pack = part(HAIRS[(look.hair + 2) % len(HAIRS)], 3, (-17, -58), (-17, -44), (-13, -44), (-13, -58))
    return [
        *_arm(phase, swing, shaded(main, 0.7), shaded(skin, 0.85)),
        *_leg(phase + math.pi, swing, shaded(second, 0.72), "other"),
        *_leg(phase, swing, second, "second"),
        *([pack] if look.detail != 2 else []),
        torso,
        *_head(skin, HAIRS[look.hair], look.detail),
        *_arm(phase + math.pi, swing, shaded(main, 0.8), skin),
    ]


_PARTS = {"car": _car, "bus": _bus, "sailing boat": _boat, "aeroplane": _plane, "person": _person}
