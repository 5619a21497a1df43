import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from pipeline.multiple_comparison import compare, detectable, detectable_among, difference, half_width

CLEAR = {"a": [1.0, 1.01, 0.99], "b": [0.5, 0.51, 0.49], "c": [0.9, 0.91, 0.89]}


def test_a_clear_winner_is_alone_and_first() -> None:
    found = compare(CLEAR)
    assert [each.name for each in found] == ["a", "c", "b"]
    assert [each.may_be_best for each in found] == [True, False, False]
    assert found[0].num == 3
    assert found[0].mean == pytest.approx(1.0)
    assert found[0].low == 0
    assert found[1].high == 0


def test_what_lies_within_the_noise_is_a_tie() -> None:
    found = compare({"a": [1.0, 1.1], "b": [1.04, 1.0], "c": [0.2, 0.3]})
    assert [each.name for each in found if each.may_be_best] == ["a", "b"]


def test_two_configs_are_compared_by_students_t() -> None:
    values = {"a": [1.0, 1.2, 1.1], "b": [0.9, 1.0, 0.95]}
    first, _ = compare(values)
    sd = math.sqrt((2 * 0.1**2 + 2 * 0.05**2) / 4)
    width = float(t.ppf(0.95, 4)) * sd * math.sqrt(2 / 3)
    assert first.high == pytest.approx(0.15 + width, rel=0.01)
    mean, half = difference(values, "a", "b") or (0.0, 0.0)
    assert mean == pytest.approx(0.15)
    assert half == pytest.approx(float(t.ppf(0.975, 4)) * sd * math.sqrt(2 / 3))


def test_nothing_is_told_without_spread_or_without_another() -> None:
    assert compare({"a": [1.0, 2.0]}) == []
    assert compare({"a": [1.0], "b": [2.0]}) == []
    assert difference({"a": [1.0], "b": [2.0]}, "a", "b") is None


def test_the_best_is_among_those_not_ruled_out_as_often_as_promised() -> None:
    chooser, num_kept, num_runs = np.random.default_rng(1), 0, 600
    for _ in range(num_runs):
        values = {name: list(chooser.normal(mean, 0.02, 3)) for name, mean in (("a", 0.01), ("b", 0.0), ("c", 0.0))}
        num_kept += next(each for each in compare(values) if each.name == "a").may_be_best
    assert num_kept / num_runs > 0.95


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.floats(-5, 5), min_size=1, max_size=4), min_size=2))
def test_one_at_least_may_be_best_and_intervals_hold_zero(values: dict[str, list[float]]) -> None:
    found = compare(values)
    assert [each.mean for each in found] == sorted((each.mean for each in found), reverse=True)
    assert all(each.low <= 0 <= each.high for each in found)
    assert not found or found[0].high >= max(each.high for each in found) or any(each.may_be_best for each in found)


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five() -> None:
    shift, chooser = detectable(0.02, 3, df=4), np.random.default_rng(2)
    found = 0
    for _ in range(1000):
        values = {"a": list(chooser.normal(shift, 0.02, 3)), "b": list(chooser.normal(0, 0.02, 3))}
        mean, half = difference(values, "a", "b") or (0.0, 0.0)
        found += mean > half
    assert 0.76 < found / 1000 < 0.84


def test_the_interval_of_a_mean_is_by_the_spread_of_all() -> None:
    values = {"a": [1.0, 1.2, 1.1], "b": [0.9]}
    widths = half_width(values)
    assert widths["a"] == pytest.approx(float(t.ppf(0.975, 2)) * 0.1 / math.sqrt(3))
    assert widths["b"] == pytest.approx(widths["a"] * math.sqrt(3))
    assert detectable_among(values) == pytest.approx(detectable(0.1, 1, df=2))
    assert half_width({"a": [1.0]}) == {}
    assert detectable_among({"a": [1.0]}) is None
