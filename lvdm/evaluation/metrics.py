"""What is measured of a video, frame by frame and pair by pair. A metric sees the first, the previous and this frame.

A name that VBench (Huang et al. 2023, arXiv 2311.17982) uses means VBench's formula. Its numbers also depend on its
encoder, CLIP ViT-B/32, and on its prompts; results say which encoder theirs is from.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lvdm.evaluation.motion import Tiles, motion, tiles_of
from lvdm.evaluation.ssim import ssim

RED, GREEN, BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)  # BT.601: shares of brightness


@dataclass(frozen=True)
class View:
    """A frame, (H, W, 3) uint8, with what encoders say of it and what belongs beside it; None where nothing is known.

    clip, patches: CLIP's embedding and the mean of its patch tokens. text: CLIP's embedding of the frame's prompt.
    latent: that of a VAE. These are vectors of length 1. reference: the frame at its place in another video, alike.
    """

    pixels: np.ndarray
    clip: np.ndarray | None = None
    patches: np.ndarray | None = None
    text: np.ndarray | None = None
    latent: np.ndarray | None = None
    reference: np.ndarray | None = None

    @cached_property
    def luma(self) -> np.ndarray:
        """Brightness (H, W) in 0-255."""
        return luma_of(self.pixels)

    @cached_property
    def tiles(self) -> Tiles:
        return tiles_of(self.luma)


@dataclass(frozen=True)
class Curve:
    """Means over windows of `window` frames, `counts` values in each; NaN where there is none."""

    window: int
    values: tuple[float, ...]
    counts: tuple[int, ...]


Measure = Callable[[View, View | None, View], float]  # of the first, the previous and this frame
Summary = Callable[[Curve], tuple[float, Curve]]  # one number for the video, and the curve to show


def average(curve: Curve) -> tuple[float, Curve]:
    """The mean over all values, and the curve as it is."""
    pairs = [(value, count) for value, count in zip(curve.values, curve.counts, strict=True) if count]
    total = sum(count for _, count in pairs)
    return (sum(value * count for value, count in pairs) / total if total else math.nan), curve


def drift(curve: Curve) -> tuple[float, Curve]:
    """How far from the first window the last whole one is, without sign, and so of each window, as the curve.

    NaN with fewer than two whole windows.
    """
    moved = Curve(curve.window, tuple(abs(value - curve.values[0]) for value in curve.values), curve.counts)
    whole = [value for value, count in zip(moved.values, curve.counts, strict=True) if count == curve.window]
    return (whole[-1] if len(whole) > 1 else math.nan), moved


@dataclass(frozen=True)
class Column:
    """What a table says of a metric. better: "higher", "lower", or "" where neither is."""

    name: str
    unit: str
    better: str


@dataclass(frozen=True)
class Metric:
    """`needs`: the field of View without which it is not measured. pairs: whether it begins with the second frame."""

    column: Column
    needs: str
    measure: Measure
    pairs: bool = False
    summary: Summary = average

    def __call__(self, first: View, before: View | None, now: View) -> float | None:
        """The value of this frame; None where there is none."""
        if getattr(now, self.needs) is None or (self.pairs and before is None):
            return None
        return self.measure(first, before, now)


def luma_of(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to (H, W) float32 in 0-255, by BT.601."""
    return pixels[..., 0] * RED + pixels[..., 1] * GREEN + pixels[..., 2] * BLUE


def difference(before: View, now: View) -> float:
    """The mean absolute difference of two frames, 0-255, over all pixels and channels."""
    high, low = np.maximum(before.pixels, now.pixels), np.minimum(before.pixels, now.pixels)
    return float((high - low).mean())


def temporal_flickering(first: View, before: View, now: View) -> float:
    """VBench: (255 - mean absolute difference of consecutive frames) / 255. A frozen video has 1."""
    return (255 - difference(before, now)) / 255


def movement(first: View, before: View, now: View) -> float:
    return motion(before.tiles, now.tiles)


def brightness(first: View, before: View | None, now: View) -> float:
    return float(now.luma.mean())


def contrast(first: View, before: View | None, now: View) -> float:
    """The standard deviation of brightness (Peli 1990: RMS contrast)."""
    return float(now.luma.std())


def saturation(first: View, before: View | None, now: View) -> float:
    """The mean over pixels of (largest - smallest channel) / largest channel, as in HSV; 0 for black."""
    red, green, blue = (now.pixels[..., channel] for channel in range(3))
    top = np.maximum(np.maximum(red, green), blue)
    spread = top - np.minimum(np.minimum(red, green), blue)
    return float((spread / np.maximum(top, 1, dtype=np.float32)).mean())


def ssim_to_reference(first: View, before: View | None, now: View) -> float:
    """SSIM of brightness."""
    return ssim(now.luma, luma_of(now.reference))


def consistency(first: np.ndarray, before: np.ndarray, now: np.ndarray) -> float:
    """VBench's formula for subjects and backgrounds alike: the mean of the cosines to the first and to the previous
    frame's features, each clamped at 0. Features are vectors (D,) of length 1."""
    return (max(0.0, float(first @ now)) + max(0.0, float(before @ now))) / 2


def background_consistency(first: View, before: View, now: View) -> float:
    """VBench: `consistency` of CLIP's image embeddings, averaged over all frames but the first."""
    return consistency(first.clip, before.clip, now.clip)


def clip_patch_consistency(first: View, before: View, now: View) -> float:
    """`consistency` of the mean of CLIP's patch tokens.

    It stands where VBench has subject_consistency, which is the same formula on DINO's features. On CLIP's image
    embedding it would be background_consistency again; the patch tokens keep more of what is where.
    """
    return consistency(first.patches, before.patches, now.patches)


def clip_f(first: View, before: View, now: View) -> float:
    """CLIP-F, frame consistency (Esser et al. 2023, arXiv 2302.03011): the cosine of consecutive image embeddings."""
    return float(before.clip @ now.clip)


def text_alignment(first: View, before: View | None, now: View) -> float:
    """The cosine of CLIP's embeddings of the frame and of its prompt, from -1 to 1; not scaled, not clamped."""
    return float(now.text @ now.clip)


def latent_consistency(first: View, before: View, now: View) -> float:
    """The cosine of consecutive frames' latents."""
    return float(before.latent @ now.latent)


LEVELS = "levels of 255"
METRICS: Sequence[Metric] = (
    Metric(Column("temporal_flickering", "of 1", "higher"), "pixels", temporal_flickering, pairs=True),
    Metric(Column("motion", "pixels/frame", ""), "pixels", movement, pairs=True),
    Metric(Column("brightness_drift", LEVELS, "lower"), "pixels", brightness, summary=drift),
    Metric(Column("contrast_drift", LEVELS, "lower"), "pixels", contrast, summary=drift),
    Metric(Column("saturation_drift", "of 1", "lower"), "pixels", saturation, summary=drift),
    Metric(Column("ssim_to_reference", "of 1", "higher"), "reference", ssim_to_reference),
    Metric(Column("background_consistency", "cosine", "higher"), "clip", background_consistency, pairs=True),
    Metric(Column("clip_patch_consistency", "cosine", "higher"), "patches", clip_patch_consistency, pairs=True),
    Metric(Column("clip_f", "cosine", "higher"), "clip", clip_f, pairs=True),
    Metric(Column("text_alignment", "cosine", "higher"), "text", text_alignment),
    Metric(Column("latent_consistency", "cosine", "higher"), "latent", latent_consistency, pairs=True),
)
EVENTS = tuple(Column(name, "per video", "lower") for name in ("seams", "duplicates"))
SHAPES = tuple(
    Column(f"shapes_{name}", "share of windows", "higher")
    for name in ("background", "color", "shape", "motion", "all_four", "one_object")
)
COLUMNS = {column.name: column for column in (*(metric.column for metric in METRICS), *EVENTS, *SHAPES)}
