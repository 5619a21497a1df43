"""Ours beside published points: the same case alone, interpolated and never beyond, and a reason for every other."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline.against.side_by_side as side_by_side_module
from pipeline.against.public import Public
from pipeline.against.side_by_side import FIGURES, Asked, Placed, side_by_side
from pipeline.record import Row
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus
from tests.builders import make_row

CONFIG = '{"parallelism.tp":1,"precision.weights":"fp4"}'

CASE: dict[str, Any] = {
    "model": "gpt-oss-120b", "hardware": "h100", "num_gpus": 1, "isl_tokens": 1024, "osl_tokens": 1024,
    "config_json": CONFIG, "boundary": Boundary.GPU, "concurrency": 8,
}  # fmt: skip


def at(tpot_s: float, per_joule: float, **columns: Any) -> Row:
    """A row with so many tokens/J at 500 W."""
    per_s = per_joule * 500.0
    return make_row(
        **CASE | {"tpot_p50_s": tpot_s, "power_w": 500.0, "output_tokens_per_s": per_s,
                  "output_tokens_per_joule": per_joule} | columns
    )  # fmt: skip


def theirs(*rows: Row) -> Public:
    imported = tuple(dataclasses.replace(row, origin="imported", source_tool="inferencex") for row in rows)
    return Public("inferencex", imported, frozenset(row.model for row in imported), "test")


SERIES = theirs(at(0.005, 1.0), at(0.010, 2.0, concurrency=32), at(0.040, 4.0, concurrency=128))


def one(row: Row, public: Public = SERIES, asked: Asked | None = None) -> Placed:
    (placed,), refused = side_by_side([row], public, asked or Asked())
    assert refused == []
    return placed


def why(row: Row, public: Public = SERIES, asked: Asked | None = None) -> str:
    placed, (refused,) = side_by_side([row], public, asked or Asked())
    assert placed == []
    return refused.reason


@given(st.floats(0.005, 0.040), st.floats(0.1, 10))
def test_between_two_points_figures_lie_on_a_line_of_logarithms(tpot_s: float, per_joule: float) -> None:
    placed = one(at(tpot_s, per_joule))
    # tokens/J go as TPOT up to 10 ms, and as its square root beyond
    expected = tpot_s / 0.005 if tpot_s <= 0.010 else 2 * math.sqrt(tpot_s / 0.010)
    assert placed.theirs["output_tokens_per_joule"] == pytest.approx(expected, rel=1e-6)
    assert placed.ratios["output_tokens_per_joule"] == pytest.approx(per_joule / expected, rel=1e-6)
    assert placed.theirs["power_w_per_gpu"] == pytest.approx(500.0)
    ends = [row.output_tokens_per_joule or 0.0 for row in placed.neighbours]
    assert min(ends) * (1 - 1e-9) <= placed.theirs["output_tokens_per_joule"] <= max(ends) * (1 + 1e-9)


@given(st.floats(0.0001, 0.00499) | st.floats(0.0401, 10))
def test_beyond_the_published_range_nothing_is_said(tpot_s: float) -> None:
    reason = why(at(tpot_s, 1.0))
    assert reason.endswith("is beyond the public 25 to 200 of 1 x h100, trtllm, tp=1, workload")


def test_a_published_point_beside_itself_is_1_and_needs_no_neighbour() -> None:
    placed = one(at(0.010, 2.0))
    assert placed.ratios == dict.fromkeys(FIGURES, pytest.approx(1.0))
    assert len(placed.neighbours) == 1


def test_a_point_that_another_beats_in_both_is_no_neighbour() -> None:
    beaten = at(0.020, 0.5, concurrency=64)
    public = theirs(*SERIES.rows, beaten)
    assert one(at(0.020, 2.0), public).theirs == one(at(0.020, 2.0)).theirs


def test_each_published_configuration_is_a_series_of_its_own() -> None:
    wide = '{"parallelism.tp":2,"precision.weights":"fp4"}'
    public = theirs(*SERIES.rows, *(dataclasses.replace(row, config_json=wide, num_gpus=2) for row in SERIES.rows))
    placed, refused = side_by_side([at(0.010, 2.0)], public, Asked())
    assert [each.ratios["output_tokens_per_s_per_gpu"] for each in placed] == pytest.approx([1.0, 2.0])
    assert refused == []


def test_windows_of_one_case_are_one_line_of_their_geometric_mean() -> None:
    (placed,), _ = side_by_side([at(0.010, 1.0), at(0.010, 4.0)], SERIES, Asked())
    assert len(placed.rows) == 2
    assert placed.ours["output_tokens_per_joule"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"model": "llama-3.1-8b"}, "no public point of model=llama-3.1-8b; there are: gpt-oss-120b"),
        ({"hardware": "h200"}, "no public point of hardware=h200; there are: h100"),
        ({"config_json": '{"precision.weights":"fp8"}'}, "no public point of precision.weights=fp8; there are: fp4"),
        ({"isl_tokens": 8192}, "no public point of isl_tokens=8192 within 25 %; there are: 1024"),
        ({"osl_tokens": 818}, "no public point of osl_tokens=818 within 25 %"),
        ({"weights": "random"}, "--allow-random-weights"),
        ({"status": RowStatus.INVALID, "reasons": (Reason.NOT_STEADY,)}, "invalid (not_steady)"),
        ({"origin": "imported"}, "it is no row of ours"),
        ({"energy_evidence": Evidence.ESTIMATED}, "its joules are estimated of boundary=gpu"),
        ({"boundary": Boundary.CPU}, "its joules are measured of boundary=cpu"),
        ({"throughput_evidence": Evidence.MODELLED}, "its tokens are modelled"),
        ({"num_gpus": 0}, "it is of no GPU"),
        ({"tpot_p50_s": None}, "its tpot_p50_s is not known"),
    ],
)
def test_what_is_no_apple_has_its_reason(columns: dict[str, Any], said: str) -> None:
    assert said in why(at(0.010, 1.0, **columns))


def test_a_row_under_a_former_name_of_the_model_is_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    former = at(0.010, 2.0, model="gptoss")
    assert why(former).startswith("no public point of model=gptoss")
    monkeypatch.setattr(side_by_side_module, "present_name", lambda name: {"gptoss": "gpt-oss-120b"}.get(name, name))
    assert one(former).ratios == pytest.approx(dict.fromkeys(FIGURES, 1.0))


def test_lengths_may_differ_by_the_tolerance() -> None:
    for row, tolerance in (
        (at(0.010, 1.0, osl_tokens=820, isl_tokens=1280), 0.25),
        (at(0.010, 1.0, osl_tokens=600), 0.8),
    ):
        assert one(row, asked=Asked(tolerance=tolerance)).rows == (row,)


def test_random_weights_are_placed_where_asked_for() -> None:
    placed = one(at(0.010, 1.0, weights="random"), asked=Asked(allow_random_weights=True))
    assert placed.rows[0].weights == "random"


def test_boards_and_facility_are_never_mixed() -> None:
    provisioned = [dataclasses.replace(row, boundary=Boundary.FACILITY) for row in SERIES.rows]
    assert "no public point of boundary=gpu; there are: facility" in why(at(0.010, 1.0), theirs(*provisioned))
    placed = one(at(0.010, 1.0), theirs(*provisioned), Asked(boundary=Boundary.FACILITY))
    # By one table of kW on both sides, it is the ratio of tokens/s per GPU: 500 W x 1 tok/J against 2 tok/J.
    assert placed.ours["power_w_per_gpu"] == placed.theirs["power_w_per_gpu"] == pytest.approx(1730)
    assert placed.ratios["output_tokens_per_joule"] == pytest.approx(0.5)
    assert placed.ratios["output_tokens_per_joule"] == pytest.approx(placed.ratios["output_tokens_per_s_per_gpu"])


def test_every_row_is_placed_or_refused() -> None:
    rows = [
        at(0.010, 1.0),
        at(0.010, 1.0, hardware="h200", case_id="other"),
        at(9.0, 1.0, concurrency=9, case_id="slow"),
    ]
    placed, refused = side_by_side(rows, SERIES, Asked())
    assert {row.row_id for each in placed for row in each.rows} | {each.row.row_id for each in refused} == {
        row.row_id for row in rows
    }
