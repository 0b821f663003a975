"""Intervals, p values and q values have their stated coverage and error rates."""

import numpy as np
import pytest

from lvdm.evaluation.statistics import bootstrap_interval, estimate_mean, p_value, paired_differences, q_values


def numbered(values):
    return [(f"prompt {number}", value) for number, value in enumerate(values)]


def test_95_percent_of_intervals_cover_the_mean():
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(40, 400)) + 2  # 400 experiments of 40 prompts; their mean is 3
    low, high = bootstrap_interval(draws)
    assert 0.90 <= np.mean((low <= 3) & (high >= 3)) <= 0.98
    assert np.mean(high - low) == pytest.approx(2 * 1.96 / np.sqrt(40), rel=0.1)


@pytest.mark.parametrize("count", [6, 8, 32])
def test_intervals_of_few_prompts_are_wide_enough(count):
    """Of normal values, for which Student's interval is exact; Efron's covers 86 % where there are 6."""
    draws = np.random.default_rng(4).standard_normal((count, 2000))
    low, high = bootstrap_interval(draws)
    assert 0.93 <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_unknown_values_are_left_out_of_their_column():
    values = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [3.0, 5.0, np.nan]])
    low, high = bootstrap_interval(values)
    assert 1 <= low[0] < 2 < high[0] <= 3
    assert low[1] == high[1] == 5
    assert np.isnan([low[2], high[2]]).all()


def test_several_videos_of_a_prompt_count_as_one():
    """The same prompts with ten equal seeds each are no more evidence than with one."""
    once = estimate_mean(numbered([1, 2, 4, 8]))
    often = estimate_mean([(prompt, value) for prompt, value in numbered([1, 2, 4, 8]) for _ in range(10)])
    assert (often.videos, often.prompts) == (40, 4)
    assert (once.mean, once.deviation, once.low, once.high) == (often.mean, often.deviation, often.low, often.high)
    assert once.mean == 3.75
    assert once.deviation == pytest.approx(np.std([1, 2, 4, 8], ddof=1))


def test_one_prompt_has_no_interval_and_no_prompt_no_mean():
    alone = estimate_mean([("a", 2.0)])
    assert (alone.mean, alone.deviation, alone.low, alone.high) == (2.0, None, None, None)
    assert estimate_mean([]) is None


def test_paired_differences_have_narrow_intervals_where_prompts_vary():
    rng = np.random.default_rng(1)
    hard = 10 * rng.standard_normal(20)  # some prompts are harder than others
    baseline = {(number,): (f"prompt {number}", value) for number, value in enumerate(hard)}
    better = {(number,): (f"prompt {number}", value + 1) for number, value in enumerate(hard[:15])}
    difference = estimate_mean(paired_differences(better | {("alone",): ("alone", 100.0)}, baseline))
    assert difference.videos == 15
    assert (difference.mean, difference.low, difference.high) == pytest.approx((1, 1, 1))
    assert paired_differences({("alone",): ("alone", 1.0)}, baseline) == []


def test_p_values_equal_the_share_of_sign_flips():
    """Where signs are chance, p < 0.1 happens once in ten; of 10 equal differences all signs agree twice in 2^10."""
    rng = np.random.default_rng(2)
    drawn = [p_value(numbered(rng.standard_normal(12))) for _ in range(200)]
    assert np.mean(np.array(drawn) < 0.1) == pytest.approx(0.1, abs=0.06)
    assert p_value(numbered([1.0] * 10)) == pytest.approx(2 / 2**10)
    assert p_value(numbered([-1.0] * 10)) == pytest.approx(2 / 2**10)
    assert p_value(numbered([0.0] * 10)) == p_value(numbered([3.0])) == 1
    assert p_value(numbered([1, 2, 3, -1])) == pytest.approx(
        6 / 16
    )  # 5 and more: +-(1+2+3+1), +-(1+2+3-1), +-(2+3+1-1)
    assert p_value(numbered(rng.standard_normal(40) + 2)) < 1e-3


def test_several_seeds_of_a_prompt_do_not_lower_the_p_value():
    assert p_value([(f"prompt {number}", 1.0) for number in range(5) for _ in range(9)]) == pytest.approx(2 / 2**5)


def test_q_values_control_the_false_discovery_rate():
    """300 tests of which 60 are of something: the share of false ones among those with q < 0.05 is below that."""
    rng = np.random.default_rng(3)
    real = [2e-6 * rng.random() for _ in range(60)]
    q = np.array(q_values([*real, *rng.random(240)]))
    assert (q[:60] < 0.05).all()
    assert (q[60:] < 0.05).sum() <= 3
    assert q_values([p_value(numbered([1.0] * 32)), *[1.0] * 600])[0] < 0.05  # one alone, as far as it can be
    assert q_values([]) == []
    assert q_values([0.03]) == pytest.approx([0.03])
    assert q_values([0.01, 0.02, 0.03]) == pytest.approx([0.03 * (1 + 1 / 2 + 1 / 3)] * 3)  # BH: 0.03
