"""All metrics of one video, in one pass over its frames, in memory that does not grow with the frames."""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lvdm.data.captions import Scene
from lvdm.evaluation.events import Events
from lvdm.evaluation.metrics import METRICS, SHAPES, Curve, View, average, difference
from lvdm.evaluation.reading import Source, UnreadableVideoError, read_frames

if TYPE_CHECKING:  # torch takes 500 MB: only who needs it loads it
    from lvdm.evaluation.encoders import ClipEncoder, LatentEncoder

WINDOW = 16  # frames: what a VideoCrafter model was trained on
SUMMARIES = {metric.column.name: metric.summary for metric in METRICS} | {shape.name: average for shape in SHAPES}


@dataclass(frozen=True)
class Instruments:
    """What videos are measured with. reference: the video that SSIM compares to.

    settings: what tells these instruments from others whose results differ, for JSON.
    """

    window: int = WINDOW
    clip: "ClipEncoder | None" = None
    latents: "LatentEncoder | None" = None
    reference: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """What the encoders are, for those who read the results."""
        encoders = {"CLIP encoder": self.clip, "latents": self.latents}
        return {what: encoder.name for what, encoder in encoders.items() if encoder}

    @property
    def left_out(self) -> dict[str, str]:
        """Which metrics are not to be had of any video, and why."""
        clip = "no CLIP weights (--clip_weights, or --config of a model that takes pictures)"
        reasons = {
            "ssim_to_reference": "" if self.reference else "no --reference",
            "background_consistency": "" if self.clip else clip,
            "clip_patch_consistency": "" if self.clip else clip,
            "clip_f": "" if self.clip else clip,
            "text_alignment": clip if self.clip is None else self.clip.silence,
            "latent_consistency": "" if self.latents else "no --config of a model with a VAE",
        }
        return {name: reason for name, reason in reasons.items() if reason}


@dataclass(frozen=True)
class Measurement:
    """Of one video: one number for each metric, its curve over windows, and the frames that begin a seam or repeat."""

    frames: int
    height: int
    width: int
    numbers: Mapping[str, float]
    curves: Mapping[str, Curve]
    seams: Sequence[int]
    duplicates: Sequence[int]


def measure(
    source: Source,
    instruments: Instruments,
    *,
    limit: int | None = None,
    progress: Callable[[int], object] = lambda frames: None,
) -> Measurement:
    """Measure a video, or its first `limit` frames; `progress` is told how many frames more are done.

    UnreadableVideoError if it cannot be read.
    """
    means: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, list[int]] = defaultdict(list)
    events = Events()
    first = None
    last: deque[View] = deque(maxlen=3)
    frames = 0
    for views in _windows(source, instruments, limit):
        first = first or views[0]
        values: dict[str, list[float]] = {name: [] for name in SUMMARIES}
        for now in views:
            before = last[-1] if last else None
            for metric in METRICS:
                value = metric(first, before, now)
                if value is not None:
                    values[metric.column.name].append(value)
            if before is not None:
                events.add(difference(before, now), difference(last[0], now))
            last.append(now)
        values |= _shapes(source, [view.pixels for view in views], at=frames)
        for name, of_window in values.items():
            means[name].append(sum(of_window) / len(of_window) if of_window else math.nan)
            counts[name].append(len(of_window))
        frames += len(views)
        progress(len(views))
    events.finish()
    curves = {name: Curve(instruments.window, tuple(means[name]), tuple(counts[name])) for name in means}
    summarized = {name: SUMMARIES[name](curve) for name, curve in curves.items() if any(curve.counts)}
    return Measurement(
        frames=frames,
        height=now.pixels.shape[0],
        width=now.pixels.shape[1],
        numbers={name: number for name, (number, _) in summarized.items() if not math.isnan(number)}
        | {"seams": len(events.seams), "duplicates": len(events.duplicates)},
        curves={name: curve for name, (_, curve) in summarized.items()},
        seams=events.seams,
        duplicates=events.duplicates,
    )


def _windows(source: Source, instruments: Instruments, limit: int | None) -> Iterator[list[View]]:
    """The video's frames, a window at a time, with all that the encoders say of them."""
    texts: dict[str, np.ndarray] = {}
    reads = instruments.clip is not None and instruments.clip.text is not None and source.schedule
    start = 0
    for pairs in _batches(islice(_beside(source.path, instruments.reference), limit), instruments.window):
        frames = [frame for frame, _ in pairs]
        nothing = [None] * len(frames)
        clip, patches = instruments.clip.see(frames) if instruments.clip else (nothing, nothing)
        latents = instruments.latents.see(frames) if instruments.latents else nothing
        prompts = [_prompt_at(source, start + at) for at in range(len(frames))] if reads else []
        for prompt in set(prompts) - set(texts):
            texts[prompt] = instruments.clip.read(prompt)
        known = [texts[prompt] for prompt in prompts] or nothing
        fields = zip(frames, clip, patches, known, latents, (other for _, other in pairs), strict=True)
        yield [View(*values) for values in fields]
        start += len(frames)


def _beside(path: Path, reference: Path | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Each frame with the one at its place in the reference; with None where that has ended, or there is none."""
    others = chain(read_frames(reference) if reference else (), repeat(None))
    for frame, other in zip(read_frames(path), others, strict=False):
        if other is not None and other.shape != frame.shape:
            sizes = ["x".join(map(str, one.shape[:2])) for one in (frame, other)]
            raise UnreadableVideoError(f"{path}: frames are {sizes[0]}, those of --reference {reference} {sizes[1]}")
        yield frame, other


def _shapes(source: Source, frames: Sequence[np.ndarray], *, at: int) -> Mapping[str, list[float]]:
    """Of the window that begins at frame `at`; nothing where it shows no single caption of the shapes grammar."""
    captions = {_prompt_at(source, at), _prompt_at(source, at + len(frames) - 1)} if source.schedule else {""}
    if len(captions) > 1:
        return {}
    try:
        scene = Scene.parse(min(captions))
    except ValueError:
        return {}
    from lvdm.evaluation.shapes import read_shapes  # loads torch

    return {name: [value] for name, value in read_shapes(frames, scene).items()}


def _prompt_at(source: Source, frame: int) -> str:
    return [prompt for start, prompt in source.schedule if start <= frame][-1]


def _batches(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
