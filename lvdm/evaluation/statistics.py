"""Means over prompts with their spread, and differences between experiments, pair by pair."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 5000
LEVEL = 95  # percent


@dataclass(frozen=True)
class Summary:
    """Of one number over prompts. deviation, low and high are None for a single prompt."""

    videos: int
    prompts: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summarize(values: Iterable[tuple[str, float]]) -> Summary | None:
    """The mean over prompts of (prompt, value), the standard deviation (n - 1), and a 95 % interval of the mean.

    Several videos of one prompt count as their mean: prompts are what would be drawn anew. None if there are no values.
    """
    groups = defaultdict(list)
    for prompt, value in values:
        groups[prompt].append(value)
    if not groups:
        return None
    means = np.array([np.mean(group) for group in groups.values()])
    alone = len(means) == 1
    low, high = (None, None) if alone else (float(bound[0]) for bound in bootstrap_interval(means[:, None]))
    return Summary(
        videos=sum(map(len, groups.values())),
        prompts=len(means),
        mean=float(means.mean()),
        deviation=None if alone else float(means.std(ddof=1)),
        low=low,
        high=high,
    )


def bootstrap_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % percentile interval (Efron 1979) of the mean of each column of `values` (N, K), NaN where unknown.

    The N rows are drawn with replacement, as wholes; the draws are the same in every run. For few rows such intervals
    are somewhat too narrow. Returns (low (K,), high (K,)), NaN where a column has no values.
    """
    count = len(values)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)  # (RESAMPLES, N)
    known = ~np.isnan(values)
    totals, weights = draws @ np.where(known, values, 0.0), draws @ known.astype(float)
    means = np.divide(totals, weights, out=np.full(totals.shape, math.nan), where=weights > 0)
    bounds = np.full((2, values.shape[1]), math.nan)
    some = known.any(axis=0)
    bounds[:, some] = np.nanpercentile(means[:, some], [(100 - LEVEL) / 2, (100 + LEVEL) / 2], axis=0)
    return bounds[0], bounds[1]


def paired(
    values: Mapping[tuple[Any, ...], tuple[str, float]], baseline: Mapping[tuple[Any, ...], tuple[str, float]]
) -> Summary | None:
    """The difference to `baseline`, over the videos that both have: from what makes a pair to (prompt, value)."""
    return summarize((prompt, value - baseline[key][1]) for key, (prompt, value) in values.items() if key in baseline)
