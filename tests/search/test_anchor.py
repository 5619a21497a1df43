"""One study on several sets of GPUs: what the search reads is relative to the anchor on each."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.record import Row
from pipeline.search.anchor import as_on_first_set
from pipeline.vocabulary import RowStatus
from tests.builders import make_row


def row(gpu: str, config: str, value: float, load: int = 8, **columns: object) -> Row:
    return make_row(
        gpu_uuids=(gpu,), config_hash=config, output_tokens_per_joule=value, concurrency=load, **columns,
    )  # fmt: skip


def test_rows_of_one_set_are_as_they_were() -> None:
    rows = [row("GPU-a", "anchor", 2.0), row("GPU-a", "other", 3.0)]
    assert as_on_first_set(rows, "anchor") == rows
    assert as_on_first_set([], "anchor") == []


@given(st.lists(st.floats(0.8, 1.25), min_size=2, max_size=4), st.lists(st.floats(1, 10), min_size=2, max_size=5))
def test_what_a_set_adds_to_all_configs_alike_is_taken_out(factors: list[float], values: list[float]) -> None:
    rows = [
        row(f"GPU-{n}", "anchor" if config == 0 else f"config-{config}", value * factor, load)
        for n, factor in enumerate(factors)
        for config, value in enumerate(values)
        for load in (8, 32)
    ]
    found = as_on_first_set(rows, "anchor")
    for before, after in zip(rows, found, strict=True):
        expected = values[0 if before.config_hash == "anchor" else int(before.config_hash[7:])] * factors[0]
        assert after.output_tokens_per_joule == pytest.approx(expected)


def test_an_interval_is_widened_by_the_anchors_own_uncertainty_and_the_first_sets_is_not() -> None:
    rows = [row(gpu, name, 2.0, output_tokens_per_joule_rel_ci95=0.01) for gpu in "ab" for name in ("anchor", "x")]
    first, _, _, moved = as_on_first_set(rows, "anchor")
    assert first.output_tokens_per_joule_rel_ci95 == 0.01
    assert moved.output_tokens_per_joule_rel_ci95 == pytest.approx(math.hypot(0.01, 1.96 * 0.015 * math.sqrt(2)))


@pytest.mark.parametrize(
    "anchor", [[], [row("b", "anchor", 2.0, 64)], [row("b", "anchor", 2.0, status=RowStatus.INVALID)]]
)
def test_rows_of_a_set_whose_level_is_not_known_are_left_out(anchor: list[Row]) -> None:
    rows = [row("a", "anchor", 2.0), *anchor, row("b", "x", 3.0)]
    assert as_on_first_set(rows, "anchor") == rows[:1]
