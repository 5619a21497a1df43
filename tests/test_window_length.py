import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.interval import Interval
from pipeline.study import Plan
from pipeline.window_length import must_extend, window_length_s
from tests.builders import make_study

PLAN = dataclasses.replace(
    make_study().plan, window_s=20.0, window_max_s=120.0, min_request_durations=3.0, max_rel_ci95=0.01
)


def plan(**values: Any) -> Plan:
    return dataclasses.replace(PLAN, **values)


@pytest.mark.parametrize(
    ("changes", "e2e_p50_s", "expected"),
    [
        ({}, 1.0, (20, True)),
        ({}, 20.0, (60, True)),
        ({}, 40.0, (120, True)),
        ({}, 41.0, (120, False)),
        ({}, None, (120, False)),
        ({"min_request_durations": 0.0}, 500.0, (20, True)),
        ({"min_request_durations": 0.0}, None, (20, True)),
        ({"window_max_s": None}, 5.0, (20, True)),
        ({"window_max_s": None}, 10.0, (20, False)),
        ({"window_max_s": 10.0}, 1.0, (20, True)),
    ],
)
def test_a_window_grows_with_its_requests_up_to_the_cap_and_says_if_that_is_too_short(
    changes: dict[str, float | None], e2e_p50_s: float | None, expected: tuple[float, bool]
) -> None:
    assert window_length_s(plan(**changes), e2e_p50_s) == expected


@given(st.floats(0.01, 1000), st.floats(0, 10))
def test_a_window_called_long_enough_is(e2e_p50_s: float, min_request_durations: float) -> None:
    asked = plan(min_request_durations=min_request_durations)
    length_s, is_long_enough = window_length_s(asked, e2e_p50_s)
    assert 20 <= length_s <= 120
    assert is_long_enough == (length_s >= min_request_durations * e2e_p50_s)


@pytest.mark.parametrize(
    ("rel_ci95", "limit", "extended"),
    [(0.02, 0.01, True), (0.01, 0.01, False), (None, 0.01, True), (0.02, None, False), (None, None, False)],
)
def test_a_window_is_extended_where_its_interval_is_unknown_or_wider_than_asked(
    rel_ci95: float | None, limit: float | None, extended: bool
) -> None:
    found = None if rel_ci95 is None else Interval(rel_ci95=rel_ci95, num_blocks=8, autocorrelation=0.0)
    assert must_extend(found, plan(max_rel_ci95=limit)) is extended
