"""Which loads a trial measures, played through against curves."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.record import Row
from pipeline.search.ladder import MAX_UNUSABLE, AdaptiveLadder, FixedLadder, Grid, Ladder
from pipeline.vocabulary import Reason
from pipeline.workload import CONCURRENCY_GRID, OperatingPoint, Slo, Workload
from tests.builders import INVALID, make_row, make_slo

NO_SLO = make_slo()

Answer = Callable[[float], dict[str, Any]]
"""Columns of the row at a load."""


def closed(*loads: int) -> Workload:
    return Workload(name="w", source="test", isl_tokens=8, osl_tokens=8, length_ratio_min=1, concurrency=loads)


def poisson(*rates: float) -> Workload:
    return Workload(
        name="w", source="test", isl_tokens=8, osl_tokens=8, length_ratio_min=1, arrival="poisson",
        request_rate_per_s=rates,
    )  # fmt: skip


def play(ladder: Ladder, answer: Answer, rows: Sequence[Row] = ()) -> list[float]:
    """The loads measured until the ladder is done."""
    known, loads = list(rows), list[float]()
    while (point := ladder.next_load(known)) is not None:
        assert point in ladder.left(known)
        known.append(
            make_row(concurrency=point.concurrency, request_rate_per_s=point.request_rate_per_s, **answer(point.load))
        )
        loads.append(point.load)
        assert len(loads) <= 100, "never ends"
    assert ladder.left(known) == []
    return loads


def adaptive(workload: Workload, first: float, slo: Slo = NO_SLO) -> AdaptiveLadder:
    grid = Grid.of(workload)
    (point,) = [point for point in grid.points if point.load == first]
    return AdaptiveLadder(grid=grid, slo=slo, first=point)


def peak_at(peak: float, tpot_per_load_s: float = 0.001) -> Answer:
    def answer(load: float) -> dict[str, Any]:
        value = math.exp(-abs(math.log2(load / peak)) * (0.3 if load < peak else 0.1))
        return {"output_tokens_per_joule": value, "tpot_p99_s": tpot_per_load_s * load}

    return answer


# --- the grid


def test_the_grid_lies_between_the_ends_of_the_workload() -> None:
    grid = Grid.of(closed(3, 16, 48))
    assert [point.concurrency for point in grid.points] == [3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert sorted(grid.points[n].load for n in grid.coarse) == [3, 4, 8, 16, 32, 48]


def test_rates_are_spaced_like_the_grid() -> None:
    grid = Grid.of(poisson(0.3, 5))
    assert [point.request_rate_per_s for point in grid.points] == [0.3, 0.45, 0.6, 0.9, 1.2, 1.8, 2.4, 3.6, 4.8, 5]
    assert sorted(grid.points[n].load for n in grid.coarse) == [0.3, 0.6, 1.2, 2.4, 4.8, 5]


@pytest.mark.parametrize("workload", [closed(8), poisson(2.5)])
def test_one_load_is_a_grid_of_one(workload: Workload) -> None:
    grid = Grid.of(workload)
    assert grid.points == workload.ladder
    assert play(adaptive(workload, grid.points[0].load), peak_at(4)) == [grid.points[0].load]


def test_a_schedule_is_one_load() -> None:
    workload = Workload(name="w", source="test", isl_tokens=8, osl_tokens=8, length_ratio_min=1, arrival="schedule")
    assert Grid.of(workload).points == (OperatingPoint(),)


# --- adaptive


@pytest.mark.parametrize(
    ("first", "peak", "loads"),
    [
        (64, 1024, [64, 128, 256, 512, 1024, 768]),  # up to the end of the range
        (64, 64, [64, 128, 256, 32, 96, 48]),  # the model was right
        (64, 24, [64, 128, 256, 32, 16, 48, 24]),  # too high
        (1024, 1024, [1024, 512, 768]),
        (1, 1, [1, 2, 4]),  # nothing lies between 1 and 2
    ],
)
def test_it_doubles_while_that_helps_and_closes_in_on_the_best(first: int, peak: int, loads: list[int]) -> None:
    assert play(adaptive(closed(1, 1024), first), peak_at(peak)) == loads


def test_it_goes_down_until_the_slo_is_met_and_then_close_to_where_it_breaks() -> None:
    slo = make_slo(tpot_p99_s=0.025)
    assert play(adaptive(closed(1, 256), 128, slo), peak_at(64)) == [128, 64, 32, 16, 8, 24]


def test_it_ends_at_the_bottom_where_no_load_meets_the_slo() -> None:
    assert play(adaptive(closed(1, 16), 4, make_slo(tpot_p99_s=1e-6)), peak_at(64)) == [4, 2, 1]


@given(st.data())
def test_the_best_of_any_curve_with_one_peak_is_found(data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.lists(st.sampled_from(CONCURRENCY_GRID), min_size=2, max_size=2, unique=True)))
    grid = Grid.of(closed(low, high))
    size = len(grid.points)
    peak = data.draw(st.integers(0, size - 1))
    steps = data.draw(st.lists(st.floats(1e-3, 1), min_size=size, max_size=size))
    height = [-sum(steps[min(n, peak) : max(n, peak)]) for n in range(size)]
    value = {point.load: math.exp(each) for point, each in zip(grid.points, height, strict=True)}
    num_met = data.draw(st.integers(0, size))
    slo = make_slo(tpot_p99_s=grid.points[num_met - 1].load if num_met else 0.5)
    first = grid.points[data.draw(st.sampled_from(sorted(grid.coarse)))]
    loads = play(
        AdaptiveLadder(grid=grid, slo=slo, first=first),
        lambda load: {"output_tokens_per_joule": value[load], "tpot_p99_s": load},
    )
    assert max(Counter(loads).values()) == 1
    assert set(loads) <= {point.load for point in grid.points}
    if num_met:
        found = max((load for load in loads if load <= (slo.tpot_p99_s or 0)), key=lambda load: value[load])
        assert found == grid.points[min(peak, num_met - 1)].load


@given(st.data())
def test_whatever_comes_back_it_ends_and_asks_for_no_load_twice(data: st.DataObject) -> None:
    ladder = adaptive(closed(2, 512), data.draw(st.sampled_from([2, 4, 16, 512])), make_slo(tpot_p99_s=0.1))

    def answer(load: float) -> dict[str, Any]:
        return data.draw(
            st.sampled_from(
                [
                    INVALID,
                    INVALID | {"reasons": (Reason.KV_PREEMPTION,)},
                    {"tpot_p99_s": None},
                    {"tpot_p99_s": 1.0},
                    *({"output_tokens_per_joule": value} for value in (0.5, 1.0, 2.0, 4.0)),
                ]
            )
        )

    loads = play(ladder, answer)
    assert max(Counter(loads).values()) == 1
    assert set(loads) <= {load for load in CONCURRENCY_GRID if 2 <= load <= 512}


@pytest.mark.parametrize("invalid", [16, 32, 64, 128, 24, 96])
def test_an_invalid_load_is_passed_over(invalid: int) -> None:
    curve = peak_at(48)
    loads = play(adaptive(closed(1, 1024), 64), lambda load: INVALID if load == invalid else curve(load))
    assert Counter(loads)[invalid] <= 1
    assert {32, 48, 64} <= {*loads, invalid}


def test_loads_beyond_an_overloaded_one_are_not_tried() -> None:
    def answer(load: float) -> dict[str, Any]:
        overloaded = INVALID | {"reasons": (Reason.QUEUE_LIMITED,)}
        return overloaded if load > 3 else {"output_tokens_per_joule": load}

    assert play(adaptive(poisson(0.5, 32), 1), answer) == [1, 2, 4, 3]


def test_a_config_whose_every_row_is_invalid_is_given_up() -> None:
    assert play(adaptive(closed(1, 1024), 64), lambda _: INVALID) == [64, 128, 32][:MAX_UNUSABLE]


def test_rows_that_are_there_are_used_and_not_repeated() -> None:
    curve = peak_at(48)
    earlier = [make_row(concurrency=load, **curve(load)) for load in (1, 4, 16, 64, 256)]
    loads = play(adaptive(closed(1, 1024), 512), curve, earlier)
    assert not {1, 4, 16, 64, 256} & {*loads}
    assert 48 in loads


def test_an_interrupted_ladder_goes_on_as_it_was() -> None:
    curve, ladder = peak_at(48), adaptive(closed(1, 1024), 256)
    whole = play(ladder, curve)
    for cut in range(len(whole)):
        earlier = [make_row(concurrency=int(load), **curve(load)) for load in whole[:cut]]
        assert play(ladder, curve, earlier) == whole[cut:]


# --- fixed


def fixed(*loads: int, slo: Slo = NO_SLO) -> FixedLadder:
    return FixedLadder(points=closed(*loads).ladder, slo=slo)


def test_a_fixed_ladder_takes_every_load_in_turn() -> None:
    assert play(fixed(1, 4, 16), peak_at(4)) == [1, 4, 16]
    assert play(fixed(1, 4, 16), lambda _: INVALID) == [1, 4, 16]


def test_a_fixed_ladder_ends_where_the_slo_breaks() -> None:
    assert play(fixed(1, 4, 16, 64, slo=make_slo(tpot_p99_s=0.01)), peak_at(4)) == [1, 4, 16]


def test_a_load_below_one_that_broke_the_slo_is_still_measured() -> None:
    ladder = fixed(1, 4, 16, 64, slo=make_slo(tpot_p99_s=0.01))
    assert play(ladder, peak_at(4), [make_row(concurrency=16, tpot_p99_s=0.016)]) == [1, 4]
