import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.warmup import NUM_STEADY_BLOCKS, WarmupBlock, WarmupState, unsettled
from tests.builders import SECOND_NS, make_study

PLAN = dataclasses.replace(make_study().plan, steady_tolerance=0.05, max_temperature_change_c=1.0)
CALM = WarmupBlock(tokens_per_s=5000.0, occupancy=1.0, num_new_kernels=0, num_compile_lines=0, engine_cores=1.0)
FIVE = (CALM,) * NUM_STEADY_BLOCKS


def warming(change_c: float, span_s: int = 40) -> list[tuple[int, float]]:
    """Temperatures once a second that move by `change_c` in 30 s."""
    return [(second * SECOND_NS, 50 + change_c * second / 30) for second in range(span_s + 1)]


def blocks(**column: Sequence[Any]) -> WarmupState:
    """Calm blocks but for one column."""
    ((name, values),) = column.items()
    return WarmupState(blocks=[dataclasses.replace(CALM, **{name: value}) for value in values])


def test_a_calm_warmup_has_settled() -> None:
    assert unsettled(WarmupState(blocks=FIVE, temperatures_c=warming(0.5)), PLAN) == ()


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (WarmupState(blocks=[]), ("throughput",)),
        (WarmupState(blocks=FIVE[1:]), ("throughput",)),
        (blocks(occupancy=[0.7] * 5), ("occupancy",)),
        (blocks(occupancy=[0.8] * 5), ()),
        (blocks(occupancy=[0.0, *[0.9] * 5]), ()),
        (blocks(tokens_per_s=[4000, 4300, 4600, 4900, 5200]), ("throughput",)),
        (blocks(tokens_per_s=[1000, *[5000] * 5]), ()),
        (blocks(tokens_per_s=[5000, 5000, 2000, 5000, 5000]), ("throughput",)),
        (blocks(num_new_kernels=[0, 0, 0, 0, 1]), ("kernels",)),
        (blocks(num_new_kernels=[1, 0, 0, 0, 0, 0]), ()),
        (blocks(num_compile_lines=[2, 0, 0, 0, 0]), ("kernels",)),
        (blocks(engine_cores=[1, 1, 1, 1.6, 1]), ("kernels",)),
        (blocks(engine_cores=[1, 1, 1, 1.5, 1]), ()),
        (blocks(engine_cores=[8, 8, 8, 9.9, 8]), ()),
        (blocks(engine_cores=[8, 8, 8, 10.1, 8]), ("kernels",)),
        (blocks(engine_cores=[9, 1, 1, 1, 1, 1]), ()),
        (WarmupState(blocks=FIVE, temperatures_c=warming(0.9)), ()),
        (WarmupState(blocks=FIVE, temperatures_c=warming(1.1)), ("temperature",)),
        (WarmupState(blocks=FIVE, temperatures_c=warming(-1.1)), ("temperature",)),
        (WarmupState(blocks=FIVE, temperatures_c=warming(0, span_s=29)), ("temperature",)),
        (WarmupState(blocks=FIVE, temperatures_c=[(0, 50.0), (40 * SECOND_NS, 50.0)]), ("temperature",)),
    ],
)
def test_what_still_changes_is_named(state: WarmupState, names: tuple[str, ...]) -> None:
    assert unsettled(state, PLAN) == names


def test_a_warm_stretch_of_long_ago_does_not_count() -> None:
    ramp = [(n * SECOND_NS, 30.0 + n) for n in range(20)]
    flat = [(n * SECOND_NS, 50.0 + n % 2) for n in range(20, 60)]
    assert unsettled(WarmupState(blocks=FIVE, temperatures_c=ramp + flat), PLAN) == ()
    assert unsettled(WarmupState(blocks=FIVE, temperatures_c=ramp + flat[:20]), PLAN) == ("temperature",)


def test_temperature_counts_only_where_the_plan_asks() -> None:
    unasked = dataclasses.replace(PLAN, max_temperature_change_c=None)
    assert unsettled(WarmupState(blocks=FIVE, temperatures_c=warming(9)), unasked) == ()


def test_everything_is_named_at_once_in_a_fixed_order() -> None:
    block = WarmupBlock(tokens_per_s=0.0, occupancy=0.0, num_new_kernels=3)
    state = WarmupState(blocks=[block], temperatures_c=warming(9))
    assert unsettled(state, PLAN) == ("occupancy", "throughput", "kernels", "temperature")


@given(st.lists(st.floats(1, 1e5), max_size=12))
def test_what_cannot_be_seen_holds_nothing_up(rates: list[float]) -> None:
    blind = WarmupState(blocks=[WarmupBlock(tokens_per_s=rate) for rate in rates])
    assert set(unsettled(blind, PLAN)) <= {"throughput"}
