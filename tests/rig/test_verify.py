"""A row against its trace: every column counts, rounding does not, and what an older method lacked is left out."""

import dataclasses
from typing import Any

import pytest

from pipeline.record import METHOD, Row
from pipeline.rig.rows import CHANGED_IN_METHOD_2, measured
from pipeline.rig.verify import verify
from pipeline.trace import Context, Trace
from pipeline.vocabulary import Boundary, Reason, RowStatus
from pipeline.workload import OperatingPoint
from tests.builders import SECOND_NS, make_request, make_row, make_study, steady_device

STUDY = make_study("plan=quick")
CONTEXT = Context(plan=STUDY.plan, slo=STUDY.slo, boundary=Boundary.GPU, num_gpus=1)
TRACE = Trace(
    open_ns=0, close_ns=20 * SECOND_NS, point=OperatingPoint(concurrency=1), context=CONTEXT,
    requests=[make_request(n - 10, [(n - 10 + 0.1 * m, m) for m in range(1, 11)]) for n in range(40)],
    devices={"GPU-0": steady_device(300, -3, 23)},
)  # fmt: skip
COLUMNS = measured(TRACE, CONTEXT)
IDENTITY = {"concurrency": 1, "request_rate_per_s": None, "num_gpus": 1, "gpu_uuids": ("GPU-0",)}
"""What else a trace says of its row."""

ROW = make_row(**COLUMNS | IDENTITY)


def differing(row: Row, trace: Trace = TRACE) -> list[str]:
    return [difference.column for difference in verify(row, trace, STUDY).differences]


def test_a_row_follows_from_its_trace_in_every_column() -> None:
    found = verify(ROW, TRACE, STUDY)
    assert (found.num_equal, found.differences, found.not_compared) == (len(COLUMNS | IDENTITY), (), ())


@pytest.mark.parametrize(
    "change",
    [
        {"output_tokens": COLUMNS["output_tokens"] + 1},
        {"gpu_energy_j": COLUMNS["gpu_energy_j"] * (1 + 1e-6)},
        {"output_tokens_per_joule": None},
        {"memory_power_w": 30.0},
        {"status": RowStatus.INVALID},
        {"reasons": (Reason.NOT_STEADY,)},
        {"warnings": ()},
        {"method": METHOD + 1},
        {"concurrency": 2},
        {"num_gpus": 2},
        {"gpu_uuids": ("GPU-1",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_any_kind_is_found_and_nothing_else(change: dict[str, Any]) -> None:
    (column,) = change
    found = verify(dataclasses.replace(ROW, **change), TRACE, STUDY)
    assert [(d.column, d.stored, d.recomputed) for d in found.differences] == [
        (column, change[column], (COLUMNS | IDENTITY)[column])
    ]
    assert found.num_equal == len(COLUMNS | IDENTITY) - 1


def test_the_last_digits_of_a_sum_may_differ() -> None:
    assert differing(dataclasses.replace(ROW, gpu_energy_j=COLUMNS["gpu_energy_j"] * (1 + 1e-12))) == []


def test_a_change_of_the_evidence_is_found() -> None:
    fewer = dataclasses.replace(TRACE, requests=[r for r in TRACE.requests if r.sent_ns != 5 * SECOND_NS])
    assert {"output_tokens", "output_tokens_per_joule", "num_completed"} <= set(differing(ROW, fewer))


def test_the_plan_of_the_trace_counts_and_not_that_of_the_study() -> None:
    other = make_study("plan=demo")
    assert verify(ROW, TRACE, other).differences == ()


def test_of_a_trace_without_context_only_what_its_row_had_is_compared() -> None:
    old = dataclasses.replace(
        ROW, method=1, status=RowStatus.INVALID, num_blocks=3, block_autocorrelation=None, power_drift=None
    )
    without = dataclasses.replace(TRACE, context=None)
    found = verify(old, without, STUDY)
    assert found.differences == ()
    assert {*CHANGED_IN_METHOD_2, "block_autocorrelation", "power_drift"} <= set(found.not_compared)
    assert found.num_equal + len(found.not_compared) == len(COLUMNS | IDENTITY)
    assert differing(dataclasses.replace(old, output_tokens=1), without) == ["output_tokens"]
