"""Measure all metrics of one video in one pass over its frames, in memory that does not grow with their number."""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np

from lvdm.data.captions import Scene
from lvdm.evaluation.events import Events
from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.journeys import journey_of
from lvdm.evaluation.metrics import (
    JOURNEYS,
    METRICS,
    SHAPES,
    START_END,
    Curve,
    View,
    average,
    difference,
    start_end_contrast,
)
from lvdm.evaluation.motion import TILE
from lvdm.evaluation.sources import Source, in_force
from lvdm.io.frames import UnreadableVideoError, read_frames

WINDOWED = (*(metric.column.name for metric in METRICS), *(shape.name for shape in SHAPES))
REDUCTIONS = dict.fromkeys((*WINDOWED, *(column.name for column in JOURNEYS)), average)
REDUCTIONS |= {metric.column.name: metric.reduce for metric in METRICS}


@dataclass(frozen=True)
class Measurement:
    """The measurement of one video.

    Args:
        frames, height, width: its size.
        numbers: one number for each metric.
        curves: the curve over windows of each metric that has one.
        seams, duplicates: the frames that open a seam or repeat the frame before.
    """

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
    """Measure a video, or its first `limit` frames.

    Args:
        progress: called with the number of frames that were measured since the last call.

    Raises:
        UnreadableVideoError: the video cannot be read.
    """
    means: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, list[int]] = defaultdict(list)
    events = Events()
    first = journey = None
    last: deque[View] = deque(maxlen=3)
    frames = 0
    for views in _read_windows(source, instruments, limit):
        if first is None:
            first = views[0]
            journey = journey_of(source.schedule, *first.pixels.shape[:2])
        values = _measure_window(views, first=first, last=last, events=events)
        values |= _measure_shapes(source, [view.pixels for view in views], start=frames)
        for name, of_window in values.items():
            means[name].append(sum(of_window) / len(of_window) if of_window else math.nan)
            counts[name].append(len(of_window))
        for view in views if journey else ():
            journey.add(view.pixels)
        frames += len(views)
        progress(len(views))
    events.finish()
    curves = {name: Curve(instruments.window, tuple(means[name]), tuple(counts[name])) for name in means}
    numbers: dict[str, float] = {"seams": len(events.seams), "duplicates": len(events.duplicates)}
    if journey:
        curves |= journey.curves(instruments.window)
        numbers |= journey.numbers()
    of_curves, shown = _reduce(curves, frames)
    return Measurement(
        frames=frames,
        height=first.pixels.shape[0],
        width=first.pixels.shape[1],
        numbers=numbers | of_curves,
        curves=shown,
        seams=events.seams,
        duplicates=events.duplicates,
    )


def _reduce(curves: Mapping[str, Curve], frames: int) -> tuple[dict[str, float], dict[str, Curve]]:
    """Return the numbers of a video of so many frames, and the curves to plot; those without values are left out."""
    reduced = {name: REDUCTIONS[name](curve) for name, curve in curves.items() if any(curve.counts)}
    numbers = {name: number for name, (number, _) in reduced.items()}
    numbers |= {START_END[name].name: start_end_contrast(curves[name], frames) for name in reduced}
    return (
        {name: number for name, number in numbers.items() if not math.isnan(number)},
        {name: curve for name, (_, curve) in reduced.items()},
    )


def _measure_window(
    views: Sequence[View], *, first: View, last: deque[View], events: Events
) -> dict[str, Sequence[float]]:
    """Return the values of each metric in one window; add its frames to `last` and their differences to `events`."""
    values: dict[str, list[float]] = {name: [] for name in WINDOWED}
    for now in views:
        before = last[-1] if last else None
        for metric in METRICS:
            value = metric(first, before, now)
            if value is not None:
                values[metric.column.name].append(value)
        if before is not None:
            events.add(difference(before, now), difference(last[0], now))
        last.append(now)
    return values


def _read_windows(source: Source, instruments: Instruments, limit: int | None) -> Iterator[list[View]]:
    """Yield the video's frames a window at a time, with the encoders' features of each."""
    texts: dict[str, np.ndarray] = {}
    with_text = instruments.clip is not None and instruments.clip.text is not None and source.schedule
    start = 0
    for pairs in _batches(islice(_pair_with_reference(source.path, instruments.reference), limit), instruments.window):
        frames = [frame for frame, _ in pairs]
        nothing = [None] * len(frames)
        clip, patches = instruments.clip.encode_frames(frames) if instruments.clip else (nothing, nothing)
        latents = instruments.latents.encode_frames(frames) if instruments.latents else nothing
        prompts = [in_force(source.schedule, start + at) for at in range(len(frames))] if with_text else []
        for prompt in set(prompts) - set(texts):
            texts[prompt] = instruments.clip.encode_prompt(prompt)
        text = [texts[prompt] for prompt in prompts] or nothing
        fields = zip(frames, clip, patches, text, latents, (other for _, other in pairs), strict=True)
        yield [View(*values) for values in fields]
        start += len(frames)


def _pair_with_reference(path: Path, reference: Path | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield each frame with the reference's frame of the same number; None where there is no such frame."""
    others = chain(read_frames(reference) if reference else (), repeat(None))
    for frame, other in zip(read_frames(path), others, strict=False):
        height, width = frame.shape[:2]
        if min(height, width) < TILE:  # motion is measured in tiles
            raise UnreadableVideoError(f"{path}: frames are {height}x{width}, at least {TILE}x{TILE} are needed")
        if other is not None and other.shape != frame.shape:
            size = "x".join(map(str, other.shape[:2]))
            raise UnreadableVideoError(f"{path}: frames are {height}x{width}, those of --reference {reference} {size}")
        yield frame, other


def _measure_shapes(source: Source, frames: Sequence[np.ndarray], *, start: int) -> Mapping[str, Sequence[float]]:
    """Measure whether the window that begins at frame `start` shows its caption.

    Returns an empty mapping unless the window has one prompt, and that is a caption of the shapes grammar.
    """
    captions = {in_force(source.schedule, at) for at in (start, start + len(frames) - 1)} if source.schedule else {""}
    if len(captions) > 1:
        return {}
    try:
        scene = Scene.parse(min(captions))
    except ValueError:
        return {}
    from lvdm.evaluation.shapes import check_shapes  # imports torch

    return {name: [value] for name, value in check_shapes(frames, scene).items()}


def _batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
