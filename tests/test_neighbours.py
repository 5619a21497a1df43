"""Warnings that come, or go, when a row is seen beside the others."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.neighbours import aliasing_cleared, cross_row_warnings, temperature_apart
from pipeline.record import Row
from pipeline.vocabulary import Reason, RowStatus
from tests.builders import make_row


def temperatures(*values: float | None, **columns: Any) -> list[Row]:
    return [make_row(row_id=str(n), gpu_temperature_mean_c=t, **columns) for n, t in enumerate(values)]


def test_more_than_three_degrees_from_the_median_is_apart() -> None:
    assert temperature_apart(temperatures(50.0, 53.0, 53.5, 56.0, 57.1, None)) == {"0", "4"}


def test_other_loads_and_studies_are_not_looked_at() -> None:
    rows = [make_row(gpu_temperature_mean_c=50.0), make_row(gpu_temperature_mean_c=60.0, concurrency=64),
            make_row(gpu_temperature_mean_c=70.0, study_id="other"),
            make_row(gpu_temperature_mean_c=80.0, concurrency=None, request_rate_per_s=1.0)]  # fmt: skip
    assert temperature_apart(rows) == frozenset()


def test_invalid_rows_do_not_move_the_median() -> None:
    hot = temperatures(70.0, 71.0, 72.0, status=RowStatus.INVALID)
    assert temperature_apart([make_row(row_id="cool", gpu_temperature_mean_c=50.0), *hot]) == {"0", "1", "2"}
    assert temperature_apart(hot) == frozenset()


@given(st.lists(st.integers(20, 90), min_size=1), st.integers(-10, 10))
def test_only_differences_of_temperature_count(values: list[int], shift: int) -> None:
    moved = temperatures(*(float(t + shift) for t in values))
    assert temperature_apart(temperatures(*map(float, values))) == temperature_apart(moved)


def ladder(power_w: dict[int, float], at_risk: set[int], **columns: Any) -> list[Row]:
    """One trial's rows, named by their concurrency."""
    return [
        make_row(row_id=str(load), concurrency=load, power_w=power,
                 warnings=(Reason.ALIASING_RISK,) if load in at_risk else (), **columns)
        for load, power in power_w.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("power_w", "is_cleared"), [(400.0, True), (407.0, True), (393.0, True), (412.0, False), (300.0, False)]
)
def test_power_on_the_line_through_its_neighbours_clears_the_risk(power_w: float, is_cleared: bool) -> None:
    rows = ladder({1: 200.0, 4: power_w, 16: 800.0}, {4})
    assert aliasing_cleared(rows) == ({"4"} if is_cleared else set())


@given(st.floats(-1, 1), st.floats(4, 7), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_a_power_law_is_always_smooth(slope: float, level: float, first: int, second: int, third: int) -> None:
    loads = (first, first + second, first + second + third)
    rows = ladder({load: math.exp(level + slope * math.log(load)) for load in loads}, {loads[1]})
    assert aliasing_cleared(rows) == {str(loads[1])}


def test_nothing_clears_it_without_both_neighbours_free_of_risk_in_the_same_trial() -> None:
    smooth = {1: 200.0, 4: 400.0, 16: 800.0}
    assert aliasing_cleared(ladder({1: 200.0, 4: 400.0}, {4})) == frozenset()
    assert aliasing_cleared(ladder(smooth, {1, 4})) == frozenset()
    assert aliasing_cleared(ladder(smooth, {4}, status=RowStatus.INVALID)) == frozenset()
    apart = [*ladder({1: 200.0, 4: 400.0}, {4}), *ladder({16: 800.0}, set(), trial_id="other")]
    assert aliasing_cleared(apart) == frozenset()


def test_windows_at_one_load_count_by_their_mean() -> None:
    rows = [*ladder({1: 100.0, 4: 400.0, 16: 800.0}, {4}), make_row(row_id="again", concurrency=1, power_w=400.0)]
    assert aliasing_cleared(rows) == {"4"}


def test_all_warnings_of_a_row_together() -> None:
    rows = ladder({1: 200.0, 4: 400.0, 16: 800.0}, {4})
    hot = make_row(
        row_id="hot", trial_id="other", concurrency=4, warnings=(Reason.INTERVAL_WIDE,), gpu_temperature_mean_c=60.0
    )
    cool = make_row(row_id="cool", trial_id="other", concurrency=4, gpu_temperature_mean_c=50.0)
    found = cross_row_warnings([*rows, hot, cool])
    assert found["4"] == found["1"] == ()
    assert found["hot"] == (Reason.INTERVAL_WIDE, Reason.TEMPERATURE_APART)
    assert found["cool"] == (Reason.TEMPERATURE_APART,)
    assert cross_row_warnings(ladder({4: 1.0}, {4}))["4"] == (Reason.ALIASING_RISK,)
