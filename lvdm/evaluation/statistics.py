"""Means over prompts with their spread, and differences between experiments, pair by pair."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control, norm, permutation_test, t

RESAMPLES = 10000
FLIPS = 100000  # so many that one of 700 tests can be called real: no p value is below 1 in that number
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
    groups = _by_prompt(values)
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
    """The 95 % expanded percentile interval of the mean of each column of `values` (N, K), NaN where unknown.

    That is Efron's percentile interval (1979), taken further out by what it is too narrow for few rows (Hesterberg,
    "What teachers should know about the bootstrap", 2015). It ends at the smallest and largest value, so for fewer than
    6 rows it is too narrow all the same. The N rows are drawn with replacement, as wholes; the draws are the same in
    every run. Returns (low (K,), high (K,)), NaN where a column has no values.
    """
    count = len(values)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)  # (RESAMPLES, N)
    known = ~np.isnan(values)
    totals, weights = draws @ np.where(known, values, 0.0), draws @ known.astype(float)
    means = np.divide(totals, weights, out=np.full(totals.shape, math.nan), where=weights > 0)
    bounds = np.full((2, values.shape[1]), math.nan)
    for column, rows in enumerate(known.sum(axis=0)):
        if rows:
            tail = _tail(rows)
            bounds[:, column] = np.nanquantile(means[:, column], [tail, 1 - tail])
    return bounds[0], bounds[1]


def _tail(rows: int) -> float:
    """The share of the bootstrap means of `rows` values that lies below the interval: as much above it."""
    if rows == 1:
        return 0.0
    return float(norm.cdf(math.sqrt(rows / (rows - 1)) * t.ppf((1 - LEVEL / 100) / 2, rows - 1)))


def paired(
    values: Mapping[tuple[Any, ...], tuple[str, float]], baseline: Mapping[tuple[Any, ...], tuple[str, float]]
) -> list[tuple[str, float]]:
    """(prompt, difference to `baseline`) of the videos that both have, by what makes a pair: to (prompt, value)."""
    return [(prompt, value - baseline[key][1]) for key, (prompt, value) in values.items() if key in baseline]


def p_value(differences: Iterable[tuple[str, float]]) -> float:
    """Of the mean of (prompt, difference), two-sided: how often it is as far from 0 where each prompt's sign is chance.

    Fisher's randomization test (1935), with all combinations of signs, or 100,000, the same ones in every run.
    """
    means = np.array([np.mean(group) for group in _by_prompt(differences).values()])
    if len(means) == 1:
        return 1.0
    test = permutation_test(
        (means,),
        lambda signed, axis: np.abs(signed.mean(axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=FLIPS,
        batch=5000,
        vectorized=True,
        rng=0,
    )
    return float(test.pvalue)


def q_values(p_values: Sequence[float]) -> list[float]:
    """For each of many tests the false discovery rate of calling it real, and with it all that have smaller p values.

    By Benjamini and Yekutieli (2001), as tests of one experiment depend on one another.
    """
    return false_discovery_control(p_values, method="by").tolist() if p_values else []


def _by_prompt(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    groups = defaultdict(list)
    for prompt, value in values:
        groups[prompt].append(value)
    return groups
