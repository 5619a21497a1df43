import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.record import Row
from pipeline.score import MIN_CURVE_POINTS, best_row, curve, meets, misses, score, slack, usable
from pipeline.vocabulary import RowStatus
from tests.builders import INVALID, make_row, make_slo

LOADS = (1, 2, 4, 8, 16, 32, 64)
NO_SLO = make_slo()

latency_s = st.none() | st.floats(0.001, 10)
rows_at_any_load = st.lists(
    st.builds(
        lambda load, value, ttft, tpot, valid: make_row(
            concurrency=load, output_tokens_per_joule=value, ttft_p99_s=ttft, tpot_p99_s=tpot,
            status=RowStatus.OK if valid else RowStatus.INVALID,
        ),
        st.sampled_from(LOADS),
        st.none() | st.floats(0.01, 100),
        latency_s,
        latency_s,
        st.booleans(),
    ),
    max_size=12,
)  # fmt: skip
bound_s = st.none() | st.floats(0.001, 10)


def ladder(values: list[float], **columns: object) -> list[Row]:
    return [
        make_row(concurrency=load, output_tokens_per_joule=v, **columns) for load, v in zip(LOADS, values, strict=False)
    ]


@given(st.data(), rows_at_any_load, bound_s, bound_s)
def test_the_order_of_rows_does_not_matter(
    data: st.DataObject, rows: list[Row], ttft: float | None, tpot: float | None
) -> None:
    slo = make_slo(ttft, tpot)
    assert score(data.draw(st.permutations(rows)), slo) == score(rows, slo)


@given(rows_at_any_load, bound_s, bound_s, st.floats(0.1, 1), st.floats(0.1, 1))
def test_tightening_the_slo_never_raises_the_score(
    rows: list[Row], ttft: float | None, tpot: float | None, tighter: float, tighter_still: float
) -> None:
    loose = make_slo(ttft, tpot)
    tight = make_slo((ttft or 10) * tighter, (tpot or 10) * tighter_still)
    loose_score, tight_score = score(rows, loose), score(rows, tight)
    if tight_score is not None:
        assert loose_score is not None
        assert tight_score <= loose_score


@given(rows_at_any_load, bound_s, bound_s)
def test_there_is_a_score_exactly_if_a_usable_row_meets_the_slo(
    rows: list[Row], ttft: float | None, tpot: float | None
) -> None:
    slo = make_slo(ttft, tpot)
    assert (score(rows, slo) is None) == (best_row(rows, slo) is None)
    assert (score(rows, slo) is None) == (not any(meets(row, slo) for row in usable(rows)))


@given(rows_at_any_load)
def test_invalid_rows_change_nothing(rows: list[Row]) -> None:
    assert score(rows, NO_SLO) == score(usable(rows), NO_SLO)
    spoiled = [dataclasses.replace(row, status=RowStatus.INVALID) for row in rows]
    assert score(spoiled, NO_SLO) is None
    assert score([*rows, *spoiled], NO_SLO) == pytest.approx(score(rows, NO_SLO))


def test_nothing_in_nothing_out() -> None:
    assert score([], NO_SLO) is None
    assert score([make_row(output_tokens_per_joule=None)], NO_SLO) is None
    assert score([make_row(**INVALID)], NO_SLO) is None
    assert best_row([], NO_SLO) is None
    assert curve([]) == {}


def test_an_unknown_latency_meets_no_bound_and_any_absent_one() -> None:
    unknown = make_row(ttft_p99_s=None, tpot_p99_s=None)
    assert meets(unknown, NO_SLO)
    assert not meets(unknown, make_slo(ttft_p99_s=1e9))
    assert not meets(unknown, make_slo(tpot_p99_s=1e9))
    assert score([unknown], make_slo(tpot_p99_s=1e9)) is None


@pytest.mark.parametrize(("ttft", "tpot", "met"), [(0.4, 0.04, True), (0.41, 0.04, False), (0.4, 0.041, False)])
def test_every_bound_must_be_met_and_may_be_touched(ttft: float, tpot: float, met: bool) -> None:
    row, slo = make_row(ttft_p99_s=ttft, tpot_p99_s=tpot), make_slo(0.4, 0.04)
    assert meets(row, slo) is met
    assert (slack(row, slo) <= 0) is met


@given(latency_s, latency_s, bound_s, bound_s)
def test_slack_is_positive_exactly_where_the_slo_is_broken(
    ttft: float | None, tpot: float | None, ttft_bound: float | None, tpot_bound: float | None
) -> None:
    row, slo = make_row(ttft_p99_s=ttft, tpot_p99_s=tpot), make_slo(ttft_bound, tpot_bound)
    if meets(row, slo):
        assert slack(row, slo) <= 0
    else:
        assert slack(row, slo) >= 0


def test_slack_is_the_log_of_the_worst_ratio() -> None:
    row = make_row(ttft_p99_s=0.2, tpot_p99_s=0.3)
    assert slack(row, make_slo(0.1, 0.1)) == pytest.approx(np.log(3))
    assert slack(row, make_slo(0.1, None)) == pytest.approx(np.log(2))
    assert slack(row, NO_SLO) < 0


def test_few_points_are_taken_as_they_are() -> None:
    values = [1.0, 3.0, 2.0, 5.0][: MIN_CURVE_POINTS - 1]
    assert score(ladder(values), NO_SLO) == pytest.approx(max(values))


def test_repeated_windows_at_a_load_count_by_their_geometric_mean() -> None:
    rows = [make_row(output_tokens_per_joule=value) for value in (1.0, 4.0)]
    assert score(rows, NO_SLO) == pytest.approx(2.0)


def test_a_smooth_curve_is_kept_as_it_is() -> None:
    values = [float(np.exp(0.3 + 0.5 * x - 0.06 * x**2)) for x in range(len(LOADS))]
    assert score(ladder(values), NO_SLO) == pytest.approx(max(values))
    assert list(curve(ladder(values)).values()) == pytest.approx(values)


def test_one_lucky_window_is_smoothed_away() -> None:
    values = [float(np.exp(0.5 * x - 0.06 * x**2)) for x in range(len(LOADS))]
    lucky = [*values]
    lucky[4] *= 1.5
    found = score(ladder(lucky), NO_SLO)
    assert found is not None
    assert max(values) < found < max(values) * 1.15
    best = best_row(ladder(lucky), NO_SLO)
    assert best is not None
    assert best.output_tokens_per_joule == max(lucky)


def test_only_loads_that_meet_the_slo_may_win_though_all_shape_the_curve() -> None:
    rising = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    rows = [dataclasses.replace(row, tpot_p99_s=0.01 * 2**n) for n, row in enumerate(ladder(rising))]
    assert score(rows, make_slo(tpot_p99_s=0.04)) == pytest.approx(4.0)
    assert score(rows, make_slo(tpot_p99_s=0.001)) is None


@pytest.mark.parametrize(("ttft_p99_s", "is_missed"), [(0.05, False), (0.2, True), (None, False)])
def test_an_unknown_latency_is_not_known_to_miss(ttft_p99_s: float | None, is_missed: bool) -> None:
    row = make_row(ttft_p99_s=ttft_p99_s, tpot_p99_s=None)
    assert misses(row, make_slo(ttft_p99_s=0.1, tpot_p99_s=0.1)) is is_missed
