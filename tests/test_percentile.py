import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.percentile import percentile, percentile_bounds, slo_met
from pipeline.vocabulary import Met
from tests.builders import make_row, make_slo


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.fractions(Fraction(1, 100), 1, max_denominator=100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int], share: Fraction) -> None:
    found = percentile([float(value) for value in values], float(share))
    enough = (v for v in sorted(values) if sum(other <= v for other in values) >= share * len(values))
    assert found == next(enough)


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(99, 100)])
def test_the_ranks_in_use_are_exact_for_every_sample_size(share: Fraction) -> None:
    for count in range(1, 2000):
        assert percentile(range(count), float(share)) == math.ceil(share * count) - 1


def test_no_values_have_no_percentile() -> None:
    assert percentile([], 0.5) is None


@given(st.lists(st.floats(0, 100), max_size=400), st.sampled_from([0.5, 0.9, 0.99]))
def test_bounds_are_values_in_order_around_the_percentile(values: list[float], share: float) -> None:
    low, high = percentile_bounds(values, share)
    found = percentile(values, share)
    assert {low, high} <= {None, *values}
    if low is not None:
        assert found is not None
        assert low <= found
    if high is not None:
        assert found is not None
        assert high >= found


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_ranks_are_the_sharpest_that_hold_19_times_in_20(share: float) -> None:
    for count in (1, 2, 5, 20, 298, 299, 300, 473, 1000):
        low, high = percentile_bounds([float(n) for n in range(1, count + 1)], share)
        at_least = [stats.binom.sf(k - 1, count, share) for k in range(1, count + 1)]
        fewer_than = [stats.binom.cdf(k - 1, count, share) for k in range(1, count + 1)]
        assert low == max((k for k, chance in enumerate(at_least, 1) if chance >= 0.95), default=None)
        assert high == min((k for k, chance in enumerate(fewer_than, 1) if chance >= 0.95), default=None)


def test_a_99th_percentile_has_an_upper_bound_from_299_values_on() -> None:
    values = [float(n) for n in range(299)]
    assert percentile_bounds(values[:298], 0.99)[1] is None
    assert percentile_bounds(values, 0.99)[1] == 298
    assert percentile_bounds([], 0.99) == (None, None)


def test_bounds_hold_the_true_percentile_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    truth = -math.log(0.01)
    bounds = [percentile_bounds(rng.exponential(size=700).tolist(), 0.99) for _ in range(2000)]
    too_high = sum(low is not None and low > truth for low, _ in bounds)
    too_low = sum(high is not None and high < truth for _, high in bounds)
    assert 0.01 < too_high / 2000 < 0.06
    assert 0.01 < too_low / 2000 < 0.06


@pytest.mark.parametrize(
    ("ttft", "tpot", "met"),
    [
        ((0.8, 0.9), (0.01, 0.02), Met.YES),
        ((0.8, 1.0), (0.01, 0.05), Met.YES),
        ((0.8, 1.1), (0.01, 0.02), Met.UNDECIDED),
        ((1.0, 1.1), (0.01, 0.02), Met.UNDECIDED),
        ((1.1, 1.2), (0.01, 0.02), Met.NO),
        ((0.8, 1.1), (0.06, 0.07), Met.NO),
        ((1.1, None), (None, None), Met.NO),
        ((0.8, None), (0.01, 0.02), Met.UNDECIDED),
        ((None, None), (0.01, 0.02), Met.UNDECIDED),
    ],
)
def test_an_slo_is_met_or_missed_only_where_the_bounds_prove_it(
    ttft: tuple[float | None, float | None], tpot: tuple[float | None, float | None], met: Met
) -> None:
    row = make_row(ttft_p99_low_s=ttft[0], ttft_p99_high_s=ttft[1], tpot_p99_low_s=tpot[0], tpot_p99_high_s=tpot[1])
    assert slo_met(row, make_slo(ttft_p99_s=1.0, tpot_p99_s=0.05)) is met


def test_only_what_an_slo_bounds_counts() -> None:
    row = make_row(ttft_p99_low_s=2.0, ttft_p99_high_s=3.0, tpot_p99_low_s=0.01, tpot_p99_high_s=0.02)
    assert slo_met(row, make_slo(tpot_p99_s=0.05)) is Met.YES
    assert slo_met(row, make_slo(ttft_p99_s=1.0)) is Met.NO
    assert slo_met(row, make_slo()) is None


def test_a_bound_on_a_percentile_without_bounds_of_its_own_is_never_proven() -> None:
    row = make_row(ttft_p99_low_s=0.1, ttft_p99_high_s=0.2, e2e_p99_s=0.1, ttft_p50_s=0.1)
    for slo in (make_slo(ttft_p99_s=1.0, e2e_p99_s=1.0), make_slo(ttft_p99_s=1.0, ttft_p50_s=1.0)):
        assert slo_met(row, slo) is Met.UNDECIDED
    assert slo_met(row, make_slo(ttft_p99_s=0.05, e2e_p99_s=1.0)) is Met.NO


BOUND = st.none() | st.floats(0, 3)


@given(BOUND, st.floats(0, 1), st.floats(0.1, 3), st.floats(0.1, 3))
def test_a_looser_slo_is_never_met_less(low: float | None, spread: float, limit: float, more: float) -> None:
    order = [Met.NO, Met.UNDECIDED, Met.YES]
    row = make_row(ttft_p99_low_s=low, ttft_p99_high_s=None if low is None else low + spread)
    tight, loose = (slo_met(row, make_slo(ttft_p99_s=bound)) for bound in (limit, limit + more))
    assert tight is not None
    assert loose is not None
    assert order.index(loose) >= order.index(tight)
