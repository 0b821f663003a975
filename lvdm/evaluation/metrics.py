"""The metrics of a video, frame by frame and pair by pair. A metric sees the first, the previous and the present frame.

A metric that has the name of one in VBench (Huang et al. 2023, arXiv 2311.17982) has its formula too. Its numbers also
depend on the encoder (VBench: CLIP ViT-B/32) and on the prompts; reports name the encoder that they were measured with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lvdm.evaluation.motion import Tiles, motion, tiles_of
from lvdm.evaluation.ssim import ssim

RED, GREEN, BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)  # shares of luma, BT.601
ENDS = 0.15  # share of a video that is its start, and that is its end


@dataclass(frozen=True)
class View:
    """One frame with its features; a feature that is not known is None. D and W are the encoders' widths.

    Args:
        pixels: (H, W, 3) uint8.
        clip: CLIP's image embedding (D,), of length 1, as are the other features.
        patches: the mean of CLIP's patch tokens (W,).
        text: CLIP's embedding of the frame's prompt (D,).
        latent: the VAE's latent, flattened.
        reference: the frame of the same number in the reference video, (H, W, 3) uint8.
    """

    pixels: np.ndarray
    clip: np.ndarray | None = None
    patches: np.ndarray | None = None
    text: np.ndarray | None = None
    latent: np.ndarray | None = None
    reference: np.ndarray | None = None

    @cached_property
    def luma(self) -> np.ndarray:
        """Return the brightness (H, W) in 0-255."""
        return luma_of(self.pixels)

    @cached_property
    def tiles(self) -> Tiles:
        """Return the luma in tiles, as the measurement of motion takes it."""
        return tiles_of(self.luma)


@dataclass(frozen=True)
class Curve:
    """Means over windows of `window` frames, each of `counts` values; NaN where there are none."""

    window: int
    values: tuple[float, ...]
    counts: tuple[int, ...]


Measure = Callable[[View, View | None, View], float]  # of the first, the previous and the present frame
Reduction = Callable[[Curve], tuple[float, Curve]]  # to one number for the video, and the curve to plot


def average(curve: Curve) -> tuple[float, Curve]:
    """Return the mean of all values, and the curve as it is."""
    pairs = [(value, count) for value, count in zip(curve.values, curve.counts, strict=True) if count]
    total = sum(count for _, count in pairs)
    return (sum(value * count for value, count in pairs) / total if total else math.nan), curve


def drift(curve: Curve) -> tuple[float, Curve]:
    """Return the absolute difference of the last whole window to the first, and that of every window as the curve.

    The number is NaN if there are fewer than two whole windows.
    """
    moved = Curve(curve.window, tuple(abs(value - curve.values[0]) for value in curve.values), curve.counts)
    whole = [value for value, count in zip(moved.values, curve.counts, strict=True) if count == curve.window]
    return (whole[-1] if len(whole) > 1 else math.nan), moved


def start_end_contrast(curve: Curve, frames: int) -> float:
    """Return FramePack's start-end contrast (Zhang et al. 2025, arXiv 2504.12626) of the curve of a metric.

    It is the absolute difference between the means over the first and over the last ENDS of the video. A window that is
    partly among them counts in part, as if it had its mean in each frame. NaN if one of them has no values, and for a
    single window.

    Args:
        curve: before its reduction.
        frames: of the video.
    """
    starts = curve.window * np.arange(len(curve.values))
    stops = np.minimum(starts + curve.window, frames)
    counts, values = np.array(curve.counts), np.array(curve.values)
    means = []
    for low, high in ((0, ENDS * frames), ((1 - ENDS) * frames, frames)):
        inside = np.clip(np.minimum(stops, high) - np.maximum(starts, low), 0, None) / (stops - starts)
        weights = np.where(counts > 0, inside * counts, 0)
        total = weights.sum()
        means.append((weights * np.where(counts > 0, values, 0)).sum() / total if total else math.nan)
    return abs(means[1] - means[0]) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Column:
    """A metric as tables show it. better: "higher", "lower", or "" if neither is."""

    name: str
    unit: str
    better: str


@dataclass(frozen=True)
class Metric:
    """How a metric is measured.

    Args:
        needs: the field of View without which it is left out.
        pairs: whether it compares a frame with the one before, and so begins with the second frame.
        reduce: how its curve becomes one number for the video.
    """

    column: Column
    needs: str
    measure: Measure
    pairs: bool = False
    reduce: Reduction = average

    def __call__(self, first: View, before: View | None, now: View) -> float | None:
        """Return the value of the frame `now`, or None if it has none."""
        if getattr(now, self.needs) is None or (self.pairs and before is None):
            return None
        return self.measure(first, before, now)


def luma_of(pixels: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) uint8 to luma (H, W) float32 in 0-255, by BT.601."""
    return pixels[..., 0] * RED + pixels[..., 1] * GREEN + pixels[..., 2] * BLUE


def difference(before: View, now: View) -> float:
    """Return the mean absolute difference of two frames over all pixels and channels, 0-255."""
    high, low = np.maximum(before.pixels, now.pixels), np.minimum(before.pixels, now.pixels)
    return float((high - low).mean())


def temporal_flickering(first: View, before: View, now: View) -> float:
    """Return VBench's (255 - mean absolute difference of consecutive frames) / 255; a still video has 1."""
    return (255 - difference(before, now)) / 255


def movement(first: View, before: View, now: View) -> float:
    """Return the motion from one frame to the next, in pixels."""
    return motion(before.tiles, now.tiles)


def brightness(first: View, before: View | None, now: View) -> float:
    """Return the mean of luma, 0-255."""
    return float(now.luma.mean())


def contrast(first: View, before: View | None, now: View) -> float:
    """Return the RMS contrast (Peli 1990): the standard deviation of luma."""
    return float(now.luma.std())


def saturation(first: View, before: View | None, now: View) -> float:
    """Return the mean saturation as in HSV: (largest - smallest channel) / largest channel, 0 for black."""
    red, green, blue = (now.pixels[..., channel] for channel in range(3))
    top = np.maximum(np.maximum(red, green), blue)
    spread = top - np.minimum(np.minimum(red, green), blue)
    return float((spread / np.maximum(top, 1, dtype=np.float32)).mean())


def ssim_to_reference(first: View, before: View | None, now: View) -> float:
    """Return the SSIM of luma to the reference's frame."""
    return ssim(now.luma, luma_of(now.reference))


def consistency(first: np.ndarray, before: np.ndarray, now: np.ndarray) -> float:
    """Return VBench's consistency of features (D,) of length 1: of a subject or a background, by their features.

    It is the mean of the cosines to the first and to the previous frame, each clamped at 0.
    """
    return (max(0.0, float(first @ now)) + max(0.0, float(before @ now))) / 2


def background_consistency(first: View, before: View, now: View) -> float:
    """Return VBench's `consistency` of CLIP's image embeddings; it is averaged over all frames but the first."""
    return consistency(first.clip, before.clip, now.clip)


def clip_patch_consistency(first: View, before: View, now: View) -> float:
    """Return the `consistency` of the mean of CLIP's patch tokens.

    It replaces VBench's subject_consistency, which has the same formula on DINO's features. On CLIP's image embeddings
    it would be background_consistency again; patch tokens keep more of the picture's layout.
    """
    return consistency(first.patches, before.patches, now.patches)


def clip_f(first: View, before: View, now: View) -> float:
    """Return CLIP-F (Esser et al. 2023, arXiv 2302.03011): the cosine of consecutive image embeddings."""
    return float(before.clip @ now.clip)


def text_alignment(first: View, before: View | None, now: View) -> float:
    """Return the cosine of CLIP's embeddings of the frame and of its prompt, -1 to 1, neither scaled nor clamped."""
    return float(now.text @ now.clip)


def latent_consistency(first: View, before: View, now: View) -> float:
    """Return the cosine of the latents of consecutive frames."""
    return float(before.latent @ now.latent)


LEVELS, SHARE = "levels of 255", "share of windows"
METRICS: Sequence[Metric] = (
    Metric(Column("temporal_flickering", "of 1", "higher"), "pixels", temporal_flickering, pairs=True),
    Metric(Column("motion", "pixels/frame", ""), "pixels", movement, pairs=True),
    Metric(Column("brightness_drift", LEVELS, "lower"), "pixels", brightness, reduce=drift),
    Metric(Column("contrast_drift", LEVELS, "lower"), "pixels", contrast, reduce=drift),
    Metric(Column("saturation_drift", "of 1", "lower"), "pixels", saturation, reduce=drift),
    Metric(Column("ssim_to_reference", "of 1", "higher"), "reference", ssim_to_reference),
    Metric(Column("background_consistency", "cosine", "higher"), "clip", background_consistency, pairs=True),
    Metric(Column("clip_patch_consistency", "cosine", "higher"), "patches", clip_patch_consistency, pairs=True),
    Metric(Column("clip_f", "cosine", "higher"), "clip", clip_f, pairs=True),
    Metric(Column("text_alignment", "cosine", "higher"), "text", text_alignment),
    Metric(Column("latent_consistency", "cosine", "higher"), "latent", latent_consistency, pairs=True),
)
EVENTS = tuple(Column(name, "per video", "lower") for name in ("seams", "duplicates"))
SHAPES = tuple(
    Column(f"shapes_{name}", SHARE, "higher")
    for name in ("background", "color", "shape", "motion", "all_four", "one_object")
)
JOURNEYS = (  # those with a curve
    Column("journey_second_color_kept", SHARE, "higher"),
    *(
        Column(f"journey_{name}", SHARE, "higher")
        for name in ("subject", "color", "direction", "facing", "place", "time", "pace", "all_words")
    ),
    Column("journey_jerk", "pixels/frame^3", "lower"),
)
JOURNEY_EVENTS = (
    Column("journey_switches", "per 100 frames", "lower"),
    Column("journey_facing_flips", "per 100 frames", "lower"),
    Column("journey_prompt_delay", "frames", "lower"),
)
START_END = {  # from each metric with a curve
    column.name: Column(f"start_end_{column.name.removesuffix('_drift')}", column.unit, "lower")
    for column in (*(metric.column for metric in METRICS), *SHAPES, *JOURNEYS)
}
COLUMNS = {
    column.name: column
    for column in (
        *(metric.column for metric in METRICS),
        *EVENTS,
        *SHAPES,
        *JOURNEYS,
        *JOURNEY_EVENTS,
        *START_END.values(),
    )
}
