"""Variance components: against textbook formulae, against what cannot matter, and their coverage by simulation."""

import math
import statistics
from itertools import chain
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.coverage_components import DESIGNS, coverage
from pipeline.variance_components import components

VALUES = st.floats(-1, 1).map(lambda value: round(value, 3))
NESTED = st.lists(st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=4), min_size=1, max_size=4)
NUM_TRIALS = 400
"""Standard error of a coverage of 95 %: 1.1 %."""


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
@pytest.mark.parametrize("sds", [(0.01, 0.01, 0.003), (0.02, 0.003, 0.005)])
def test_intervals_hold_the_truth_in_95_of_100(
    design: tuple[tuple[int, ...], ...], sds: tuple[float, float, float]
) -> None:
    for shares in coverage(design, sds, NUM_TRIALS).values():
        assert shares is None or min(shares) >= 0.91


def balanced(num_visits: int, num_starts: int, num_windows: int, seed: int) -> list[list[list[float]]]:
    rng = np.random.default_rng(seed)
    visits = rng.normal(0, 0.02, (num_visits, 1, 1))
    starts = rng.normal(0, 0.01, (num_visits, num_starts, 1))
    windows = rng.normal(0, 0.004, (num_visits, num_starts, num_windows))
    drawn: list[list[list[float]]] = (visits + starts + windows).tolist()
    return drawn


@given(st.integers(2, 4), st.integers(2, 5), st.integers(2, 4), st.integers(0, 1000))
def test_a_balanced_design_gives_the_textbook_anova(i: int, j: int, k: int, seed: int) -> None:
    y = np.array(balanced(i, j, k, seed))
    start_means, visit_means = y.mean(axis=2), y.mean(axis=(1, 2))
    ms_window = ((y - start_means[:, :, None]) ** 2).sum() / (i * j * (k - 1))
    ms_start = k * ((start_means - visit_means[:, None]) ** 2).sum() / (i * (j - 1))
    ms_visit = j * k * ((visit_means - visit_means.mean()) ** 2).sum() / (i - 1)
    found = components(y.tolist())
    assert found.window.sd == pytest.approx(math.sqrt(ms_window))
    assert found.start.sd == pytest.approx(math.sqrt(max(0, (ms_start - ms_window) / k)), abs=1e-9)
    assert found.visit.sd == pytest.approx(math.sqrt(max(0, (ms_visit - ms_start) / (j * k))), abs=1e-9)
    assert (found.window.df, found.start.df, found.visit.df) == (i * j * (k - 1), i * (j - 1), i - 1)
    # The lower end of the interval leaves 0 exactly where the F-test of the level rejects.
    critical = stats.f.isf(0.025, i * (j - 1), i * j * (k - 1))
    assert found.start.low is not None
    assert (found.start.low > 0) == (ms_start / ms_window > critical)


def test_windows_alone_have_the_exact_chi_square_interval() -> None:
    windows = [0.01, 0.03, -0.02, 0.0, 0.015]
    found = components([[windows]])
    sum_of_squares = 4 * statistics.variance(windows)
    assert found.window.low == pytest.approx(math.sqrt(sum_of_squares / stats.chi2.ppf(0.975, 4)))
    assert found.window.high == pytest.approx(math.sqrt(sum_of_squares / stats.chi2.ppf(0.025, 4)))
    assert found.window.upper == pytest.approx(math.sqrt(sum_of_squares / stats.chi2.ppf(0.05, 4)))


def test_a_level_without_two_units_side_by_side_is_unknown_not_zero() -> None:
    found = components([[[0.1, 0.2]]])
    assert (found.start.sd, found.start.df, found.start.num_units) == (None, 0, 1)
    assert (found.visit.sd, found.visit.upper, found.visit.num_units) == (None, None, 1)
    assert found.start_mean_sd is None
    assert found.window.df == 1


def test_what_cannot_be_told_apart_is_part_of_the_level_above() -> None:
    one_window = components([[[0.1], [0.2], [0.4]]])
    assert one_window.window.sd is None
    assert one_window.start.includes == ("window",)
    assert one_window.start.sd == pytest.approx(statistics.stdev([0.1, 0.2, 0.4]))
    one_start = components([[[0.1]], [[0.2]], [[0.4]]])
    assert one_start.visit.includes == ("window", "start")
    assert one_start.visit.sd == pytest.approx(statistics.stdev([0.1, 0.2, 0.4]))
    assert components([[[0.1, 0.2]], [[0.3, 0.5]]]).visit.includes == ("start",)


def test_a_negative_estimate_is_zero_with_an_upper_bound() -> None:
    found = components([[[-0.01, 0.01], [-0.01, 0.01], [-0.01, 0.01]]])
    assert found.start.sd == 0
    assert found.start.low == 0
    assert found.start.upper is not None
    assert found.start.upper > 0.001


@given(NESTED, VALUES)
def test_a_common_shift_changes_nothing_and_intervals_are_in_order(
    design: list[list[list[float]]], shift: float
) -> None:
    found = components(design)
    moved = components([[[value + shift for value in start] for start in visit] for visit in design])
    for level in ("window", "start", "visit"):
        part, other = getattr(found, level), getattr(moved, level)
        assert part.df == other.df
        if part.df:
            assert part.sd == pytest.approx(other.sd, abs=1e-6)
            assert 0 <= part.low <= part.sd * (1 + 1e-9) <= part.high * (1 + 1e-9) + 1e-12
            assert part.upper <= part.high + 1e-12
    assert found.window.num_units == len([*chain.from_iterable(chain.from_iterable(design))])


@given(NESTED, st.randoms(use_true_random=False))
def test_the_order_of_units_does_not_matter(design: list[list[list[float]]], random: Random) -> None:
    shuffled = [random.sample(visit, len(visit)) for visit in random.sample(design, len(design))]
    first, second = components(design), components(shuffled)
    for level in ("window", "start", "visit"):
        part, other = getattr(first, level), getattr(second, level)
        assert part.df == other.df
        if part.df:
            assert (part.sd, part.high) == pytest.approx((other.sd, other.high), rel=1e-6, abs=1e-6)
