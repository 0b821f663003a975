"""Provide the templates of lvdm.data.journey_reader: where subjects have which colours, and what places look like.

All templates are made from rendered scenes of ROWS x COLUMNS pixels.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from random import Random

import numpy as np

from lvdm.data.journeys.places import LIGHT
from lvdm.data.journeys.random_scenes import random_scene
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import (
    DETAILS,
    PLACES,
    PLACES_OF,
    SECOND_COLORS,
    SKINS,
    SUBJECTS,
    TIMES,
    Look,
    Scene,
    Words,
)
from lvdm.data.journeys.subjects import DARK, GLASS

ROWS, COLUMNS = 64, 96
MIN_COVER = 0.7  # a pixel belongs to a region that covers more than this share of it
CONTRAST = 0.7  # weight of a pixel around the subject, relative to one inside
FACE = 2.0  # weight of a pixel of skin: a person's facing shows in little else
POSES = 12  # templates of each subject and facing
SIDE = 10  # columns at the left and the right that no subject reaches
BANDS = 16  # bands of rows in which the colours of the sides are averaged
SCENES = 10  # rendered scenes behind the template of each place and time
SHRINKAGE = 30.0**2  # added to the variance of band colours: generated pictures are not as exact as rendered ones
FIXED = {"dark": (DARK,), "glass": (GLASS,), "skin": SKINS}  # further regions and the colours that each can have


@dataclass(frozen=True)
class SubjectTemplates:
    """K poses of all subjects, facing left and right. P = ROWS * COLUMNS pixels.

    Around the subject, `main` and `second` are -CONTRAST, so that a picture of one colour all over shows no subject.

    Args:
        names: pairs of subject and facing.
        owner: (K,) index into `names` of each pose.
        main: (K, P) float32, 1 where a pixel has the main colour, else 0, or -CONTRAST close around that region.
        second: (K, P) float32, the same for the second colour.
        fixed: (len(FIXED), K, P) float32, 1 (FACE for skin) where a pixel has a colour of FIXED, else 0.
    """

    names: tuple[tuple[str, str], ...]
    owner: np.ndarray
    main: np.ndarray
    second: np.ndarray
    fixed: np.ndarray

    @property
    def area(self) -> np.ndarray:
        """Return the number of pixels (K,) in the regions of each pose."""
        return sum(region.clip(0).sum(1) for region in (self.main, self.second, *self.fixed))


@cache
def subject_templates() -> SubjectTemplates:
    """Render the templates of all subjects, once per process."""
    names = tuple((subject, facing) for subject in SUBJECTS for facing in ("left", "right"))
    owner, regions = [], []
    for index, (subject, facing) in enumerate(names):
        for pose in range(POSES):
            region = _regions(subject, pose)
            owner.append(index)
            regions.append(region[..., ::-1] if facing == "left" else region)
    main, second, *fixed = np.stack(regions, 1).reshape(2 + len(FIXED), len(owner), -1)
    return SubjectTemplates(names, np.array(owner), main, second, np.stack(fixed))


@cache
def _regions(subject: str, pose: int) -> np.ndarray:
    """Return the regions of main colour, second colour and each of FIXED, facing right: (5, ROWS, COLUMNS) float32."""
    pace = "standing still" if pose < DETAILS and subject != "aeroplane" else "fast"
    words = Words(subject, "red", "right", pace, PLACES_OF[subject][0], "day")
    look = Look("green", detail=pose % DETAILS, size=(0.995, 0.96, 0.995, 1.03)[pose // DETAILS])
    shown = render(Scene(words, look, seed=pose), 5 * pose, 1, height=ROWS, width=COLUMNS)
    subject_share, main, second = np.moveaxis(shown.mask[0] / np.float32(255), -1, 0)
    other = subject_share - main - second
    picture = shown.frames[0].astype(np.float32)
    fixed = [other * (np.abs(picture - colors[0]).max(-1) < 30) for colors in FIXED.values()]
    regions = (np.stack([main, second, *fixed]) > MIN_COVER).astype(np.float32)
    regions[-1] *= FACE
    for region in regions[:2]:
        region -= CONTRAST * (_dilated(region > 0, 4) & ~_dilated(subject_share > 0, 1))
    return regions


def _dilated(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Return the mask (H, W) widened by a square that reaches `pixels` to each side."""
    padded = np.pad(mask, pixels)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * pixels + 1, 2 * pixels + 1))
    return windows.any((2, 3))


@dataclass(frozen=True)
class PlaceTemplates:
    """The distribution of `place_features` in each place at each time of day.

    Args:
        names: J pairs of place and time.
        mean: (J, F) mean features of each.
        precision: (F, F) inverse covariance of the features, the same for all.
    """

    names: tuple[tuple[str, str], ...]
    mean: np.ndarray
    precision: np.ndarray


@cache
def place_templates() -> PlaceTemplates:
    """Render the templates of all places and times, once per process."""
    names = tuple((place, time) for place in PLACES for time in TIMES)
    features = np.stack([_place_samples(place, time) for place, time in names])  # (J, SCENES, F)
    mean = features.mean(1)
    spread = (features - mean[:, None]).reshape(-1, features.shape[-1])
    covariance = spread.T @ spread / len(spread) + SHRINKAGE * np.eye(features.shape[-1])
    return PlaceTemplates(names, mean, np.linalg.inv(covariance))


def _place_samples(place: str, time: str) -> np.ndarray:
    """Return the features (SCENES, F) of random scenes in a place at a time of day."""
    random = Random(f"{place} {time}")
    subject = next(subject for subject in SUBJECTS if place in PLACES_OF[subject])
    samples = []
    for _ in range(SCENES):
        scene = random_scene(random)
        words = Words(subject, "red", "right", "fast", place, time)
        scene = replace(scene, words=words, look=replace(scene.look, second="green"))
        samples.append(place_features(render(scene, random.randrange(10**6), 1, height=ROWS, width=COLUMNS).frames)[0])
    return np.stack(samples)


def place_features(frames: np.ndarray) -> np.ndarray:
    """Return the mean colours (T, BANDS * 3) of bands of rows at the sides of frames (T, ROWS, COLUMNS, 3)."""
    sides = np.concatenate([frames[:, :, :SIDE], frames[:, :, -SIDE:]], 2).astype(np.float64)
    return sides.reshape(len(frames), BANDS, -1, 3).mean(2).reshape(len(frames), -1)


@cache
def palette(time: str) -> np.ndarray:
    """Return SECOND_COLORS, which begin with COLORS, and then FIXED, in the light of a time: (N, 3), 0-255."""
    colors = [*SECOND_COLORS.values(), *chain.from_iterable(FIXED.values())]
    return np.array(colors, np.float32) * np.float32(LIGHT[time].subject)
