import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.record import Row
from pipeline.score import best_row, curve, latency_slack, meets, misses, score, slack, usable, within
from pipeline.vocabulary import RowStatus
from tests.builders import INVALID, make_row, make_slo

FloatArray = npt.NDArray[np.float64]
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


@pytest.mark.parametrize("values", [[3.0], [1.0, 3.0], [1.0, 0.5]])
def test_one_or_two_loads_are_taken_as_they_are(values: list[float]) -> None:
    assert score(ladder(values), NO_SLO) == pytest.approx(max(values))


def test_repeated_windows_at_a_load_count_by_their_geometric_mean() -> None:
    rows = [make_row(output_tokens_per_joule=value) for value in (1.0, 4.0)]
    assert score(rows, NO_SLO) == pytest.approx(2.0)


def test_a_window_counts_by_its_interval() -> None:
    wide, narrow = ({"output_tokens_per_joule_rel_ci95": ci} for ci in (0.2, 0.02))
    rows = [make_row(output_tokens_per_joule=1.0, **narrow), make_row(output_tokens_per_joule=4.0, **wide)]
    assert score(rows, NO_SLO) == pytest.approx(4 ** (1 / (1 + (0.2 / 0.02) ** 2)), rel=0.01)
    assert score([make_row(**narrow, output_tokens_per_joule=v) for v in (1.0, 4.0)], NO_SLO) == pytest.approx(2.0)


def test_windows_of_hardly_any_certainty_do_not_let_the_curve_run_away() -> None:
    windows = {1: (3.3, 1.04), 4: (37.9, None), 16: (24.9, 1.64), 64: (15.4, 3.9)}  # of the embedded engine, plan=demo
    rows = [
        make_row(concurrency=load, output_tokens_per_joule=value, output_tokens_per_joule_rel_ci95=ci)
        for load, (value, ci) in windows.items()
    ]
    assert max(curve(rows).values()) < 1.1 * 37.9


GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
QUADRUPLE, DOUBLE = (1, 4, 16, 64, 256), (1, 2, 4, 8, 16, 32, 64, 128, 256)

Curve = Callable[[FloatArray], FloatArray]
CURVES: dict[str, Curve] = {
    "proportional": lambda x: np.log(2) * x,
    "saturates at 16": lambda x: np.log(2) * x - np.log(16 + 2**x),
    "saturates at 128": lambda x: np.log(2) * x - np.log(128 + 2**x),
    "peaks": lambda x: -0.06 * (x - 5.5) ** 2,
    "saturates and falls": lambda x: np.log(2) * x - np.log(16 + 2**x) - 0.02 * np.maximum(0, x - 4) ** 2,
}
"""Log tokens per joule over log2 load."""


def on(curve_of: Curve, loads: Sequence[int], noise: FloatArray | float = 0.0, ci: float | None = 0.02) -> list[Row]:
    values = np.exp(curve_of(np.log2(loads)) + noise)
    return [
        make_row(concurrency=load, output_tokens_per_joule=float(value), output_tokens_per_joule_rel_ci95=ci)
        for load, value in zip(loads, values, strict=True)
    ]


def scored(rows: Sequence[Row]) -> float:
    found = score(rows, NO_SLO)
    assert found is not None
    return found


@pytest.mark.parametrize("loads", [QUADRUPLE, DOUBLE, GRID, (8, 32, 128), (16, 32, 48, 64, 96)])
@pytest.mark.parametrize("name", CURVES)
def test_a_smooth_curve_without_noise_is_met_within_a_per_cent(name: str, loads: tuple[int, ...]) -> None:
    best = float(np.exp(CURVES[name](np.log2(loads))).max())
    assert scored(on(CURVES[name], loads)) == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("name", CURVES)
def test_far_lower_loads_hardly_move_the_score(name: str) -> None:
    generator = np.random.default_rng(0)
    near = (32, 64, 96, 128, 256)
    high = on(CURVES[name], near, generator.normal(0, 0.02, len(near)))
    alone = scored(high)
    for lower in ((1,), (2, 4), (1, 2, 3, 4)):
        assert scored([*on(CURVES[name], lower, 0.1), *high]) == pytest.approx(alone, rel=0.003)


def luckiest(rows: Sequence[Row]) -> float:
    return max(row.output_tokens_per_joule or 0.0 for row in rows)


def gain_by_luck(curve_of: Curve, loads: Sequence[int], best: Callable[[Sequence[Row]], float] = scored) -> float:
    """By how much the expected score, as a log, is above the best of the loads, where windows have 2 % noise."""
    noise = np.random.default_rng(0).normal(0, 0.02, (400, len(loads)))
    found = float(np.mean([np.log(best(on(curve_of, loads, each, ci=0.04))) for each in noise]))
    return found - float(curve_of(np.log2(loads)).max())


@pytest.mark.parametrize("name", ["peaks", "saturates and falls"])
def test_a_longer_ladder_does_not_win_by_being_longer(name: str) -> None:
    few, some, many = (gain_by_luck(CURVES[name], loads) for loads in (QUADRUPLE, DOUBLE, GRID))
    assert max(map(abs, (few, some, many))) < 0.006
    assert many < some
    assert gain_by_luck(CURVES[name], GRID, luckiest) > 0.008


def test_more_loads_over_one_range_gain_nothing_even_where_all_are_equal() -> None:
    def level(x: FloatArray) -> FloatArray:
        return 0 * x

    assert abs(gain_by_luck(level, GRID) - gain_by_luck(level, QUADRUPLE)) < 0.003
    assert gain_by_luck(level, GRID, luckiest) - gain_by_luck(level, QUADRUPLE, luckiest) > 0.01


def test_a_smooth_curve_is_kept_at_every_load() -> None:
    found = curve(on(CURVES["peaks"], LOADS))
    assert list(found) == list(LOADS)
    assert list(found.values()) == pytest.approx(list(np.exp(CURVES["peaks"](np.log2(LOADS)))), rel=0.01)


def test_one_lucky_window_is_smoothed_away() -> None:
    lucky = np.zeros(len(GRID))
    lucky[GRID.index(48)] = 0.06
    rows = on(CURVES["peaks"], GRID, lucky, ci=0.04)
    assert 1.0 < scored(rows) < 1.035
    best = best_row(rows, NO_SLO)
    assert best is not None
    assert best.concurrency == 48


def test_only_loads_that_meet_the_slo_may_win_though_all_shape_the_curve() -> None:
    rising = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    rows = [dataclasses.replace(row, tpot_p99_s=0.01 * 2**n) for n, row in enumerate(ladder(rising))]
    assert score(rows, make_slo(tpot_p99_s=0.04)) == pytest.approx(4.0)
    assert score(rows, make_slo(tpot_p99_s=0.001)) is None


@pytest.mark.parametrize(("ttft_p99_s", "is_missed"), [(0.05, False), (0.2, True), (None, False)])
def test_an_unknown_latency_is_not_known_to_miss(ttft_p99_s: float | None, is_missed: bool) -> None:
    row = make_row(ttft_p99_s=ttft_p99_s, tpot_p99_s=None)
    assert misses(row, make_slo(ttft_p99_s=0.1, tpot_p99_s=0.1)) is is_missed


COLUMNS = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "e2e_p50_s", "e2e_p99_s")


@pytest.mark.parametrize("column", COLUMNS)
def test_every_bound_is_on_the_column_of_its_name(column: str) -> None:
    slo = make_slo(**{column: 0.5})
    met, missed, unknown = (make_row(**{column: value}) for value in (0.5, 0.6, None))
    assert [meets(row, slo) for row in (met, missed, unknown)] == [True, False, False]
    assert [misses(row, slo) for row in (met, missed, unknown)] == [False, True, False]
    assert slack(missed, slo) == pytest.approx(np.log(1.2))


@given(st.floats(0.1, 1e4), st.floats(1e-4, 10))
def test_a_floor_on_what_a_user_sees_bounds_the_median_tpot(floor: float, tpot_p50_s: float) -> None:
    row = make_row(tpot_p50_s=tpot_p50_s)
    assert meets(row, make_slo(output_tokens_per_s_per_user_min=floor)) == (tpot_p50_s <= 1 / floor)
    both = make_slo(output_tokens_per_s_per_user_min=floor, tpot_p50_s=0.01)
    assert both.bounds == {"tpot_p50_s": min(0.01, 1 / floor)}


def test_a_model_that_knows_no_percentiles_keeps_the_tightest_bound() -> None:
    slo = make_slo(ttft_p99_s=1.0, ttft_p50_s=0.5, tpot_p99_s=0.1, e2e_p99_s=1.0)
    assert (slo.ttft_s, slo.tpot_s) == (0.5, 0.1)
    assert within(0.5, 0.1, slo)
    assert not within(0.6, 0.1, slo)
    assert latency_slack(0.6, 0.1, slo) == pytest.approx(np.log(1.2))
