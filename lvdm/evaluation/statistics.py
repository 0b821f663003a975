"""Means over prompts with their confidence intervals, and paired differences between experiments with their tests."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control, norm, permutation_test, t

RESAMPLES = 10000
FLIPS = 100000  # no p value is below 1 / FLIPS: small enough for one of 700 tests to be called real
LEVEL = 95  # percent


@dataclass(frozen=True)
class Estimate:
    """The mean of a metric over prompts, its standard deviation, and a 95 % interval of the mean.

    deviation, low and high are None for a single prompt.
    """

    videos: int
    prompts: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def estimate_mean(values: Iterable[tuple[str, float]]) -> Estimate | None:
    """Estimate the mean over prompts of pairs (prompt, value); return None if there are none.

    Several videos of one prompt count as their mean, since prompts are the sample. The deviation is that of n - 1.
    """
    groups = _by_prompt(values)
    if not groups:
        return None
    means = np.array([np.mean(group) for group in groups.values()])
    alone = len(means) == 1
    low, high = (None, None) if alone else (float(bound[0]) for bound in bootstrap_interval(means[:, None]))
    return Estimate(
        videos=sum(map(len, groups.values())),
        prompts=len(means),
        mean=float(means.mean()),
        deviation=None if alone else float(means.std(ddof=1)),
        low=low,
        high=high,
    )


def bootstrap_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % expanded percentile interval of the mean of each column, as low (K,) and high (K,).

    This is Efron's percentile interval (1979), widened by the amount by which it is too narrow for few rows
    (Hesterberg, "What teachers should know about the bootstrap", 2015). It cannot reach beyond the smallest and the
    largest value, so for fewer than 6 rows it is still too narrow. Whole rows are drawn with replacement, with the same
    draws in every run.

    Args:
        values: (N, K), NaN where a value is not known. A column without values has an interval of NaN.
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
    """Return the share of the bootstrap means of `rows` values below the interval, which is also the share above."""
    if rows == 1:
        return 0.0
    return float(norm.cdf(math.sqrt(rows / (rows - 1)) * t.ppf((1 - LEVEL / 100) / 2, rows - 1)))


def paired_differences(
    values: Mapping[tuple[Any, ...], tuple[str, float]], baseline: Mapping[tuple[Any, ...], tuple[str, float]]
) -> list[tuple[str, float]]:
    """Return (prompt, difference to the baseline) of every pair of videos.

    Args:
        values, baseline: from the key that the videos of a pair share to (prompt, value).
    """
    return [(prompt, value - baseline[key][1]) for key, (prompt, value) in values.items() if key in baseline]


def p_value(differences: Iterable[tuple[str, float]]) -> float:
    """Return the two-sided p value of the mean of pairs (prompt, difference).

    It is the share of random signs of the prompts' differences under which the mean is at least as far from 0: Fisher's
    randomization test (1935), with all combinations of signs or 100,000 of them, the same in every run.
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
    """Return for each test the false discovery rate of calling it and all tests of smaller p values real.

    By Benjamini and Yekutieli (2001), since the tests of one experiment depend on each other.
    """
    return false_discovery_control(p_values, method="by").tolist() if p_values else []


def _by_prompt(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    groups = defaultdict(list)
    for prompt, value in values:
        groups[prompt].append(value)
    return groups
