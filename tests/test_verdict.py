import dataclasses
from typing import Any, Literal

import pytest

from pipeline.record import Evidence, Reason, RowStatus
from pipeline.study import Plan
from pipeline.verdict import MAX_CLIENT_LOAD, MIN_OCCUPANCY, Facts, judge, plan_evidence

GOOD = Facts(
    output_tokens=1000, energy_j=100.0, second_reading_j=101.0, second_reading_lost=False, num_completed=100,
    num_failed=0, occupancy=0.99,
    is_steady=True, warmup_was_steady=True, output_tokens_per_s=50.0, bound_tokens_per_s=60.0, throttle_s=0.0,
    client_load=0.1, meter_faults=(),
)  # fmt: skip

FATAL: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.NO_TOKENS, {"output_tokens": 0, "output_tokens_per_s": 0.0}),
    (Reason.NO_ENERGY, {"energy_j": None, "second_reading_j": None}),
    (Reason.NO_ENERGY, {"energy_j": 0.0}),
    (Reason.NO_ENERGY, {"energy_j": -5.0, "second_reading_j": None}),
    (Reason.NO_ENERGY, {"meter_faults": (Reason.NO_ENERGY,)}),
    (Reason.COUNTER_RESET, {"meter_faults": (Reason.COUNTER_RESET,)}),
    (Reason.ABOVE_PHYSICAL_BOUND, {"output_tokens_per_s": 60.1}),
]
"""Invalid whatever the plan."""

GATED: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.ERROR_RATE, {"num_failed": 2}),
    (Reason.ERROR_RATE, {"num_failed": 1, "num_completed": 0}),
    (Reason.OCCUPANCY_LOW, {"occupancy": MIN_OCCUPANCY - 0.01}),
    (Reason.NOT_STEADY, {"is_steady": False}),
    (Reason.NOT_STEADY, {"warmup_was_steady": False}),
    (Reason.CLIENT_BOUND, {"client_load": MAX_CLIENT_LOAD + 0.01}),
    (Reason.THERMAL_OR_BRAKE, {"throttle_s": 0.001}),
    (Reason.READING_DISAGREEMENT, {"second_reading_j": 103.0}),
    (Reason.READING_DISAGREEMENT, {"second_reading_j": 97.0}),
    (Reason.SECOND_READING_LOST, {"second_reading_j": None, "second_reading_lost": True}),
]
"""Invalid where the plan enforces its gates."""

HARMLESS: list[dict[str, Any]] = [
    {},
    {"num_completed": 0},
    {"num_completed": 9999, "num_failed": 1},
    {"occupancy": MIN_OCCUPANCY},
    {"client_load": MAX_CLIENT_LOAD},
    {"throttle_s": None},
    {"second_reading_j": None},
    {"second_reading_j": 101.9},
    {"bound_tokens_per_s": None, "output_tokens_per_s": 1e9},
    {"output_tokens_per_s": 60.0},
]
"""Just within every gate, or unknown."""


def plan(gates: Literal["warn", "enforce"]) -> Plan:
    return Plan(
        name="test", warmup_s=1, warmup_max_s=2, window_s=10, block_s=1, gates=gates, steady_tolerance=0.05,
        max_error_rate=0.001, max_reading_disagreement=0.02, hang_s=10,
    )  # fmt: skip


@pytest.mark.parametrize("facts", HARMLESS)
def test_a_window_within_every_gate_is_ok(facts: dict[str, Any]) -> None:
    changed = dataclasses.replace(GOOD, **facts)
    assert judge(changed, plan("enforce")) == (RowStatus.OK, (), ())
    assert judge(changed, plan("warn")) == (RowStatus.OK, (), (Reason.DEMO_PLAN,))


@pytest.mark.parametrize(("reason", "facts"), FATAL)
def test_what_makes_no_number_is_invalid_under_any_plan(reason: Reason, facts: dict[str, Any]) -> None:
    changed = dataclasses.replace(GOOD, **facts)
    assert judge(changed, plan("enforce")) == (RowStatus.INVALID, (reason,), ())
    assert judge(changed, plan("warn")) == (RowStatus.INVALID, (reason,), (Reason.DEMO_PLAN,))


@pytest.mark.parametrize(("reason", "facts"), GATED)
def test_a_broken_gate_is_a_reason_or_a_warning_as_the_plan_says(reason: Reason, facts: dict[str, Any]) -> None:
    changed = dataclasses.replace(GOOD, **facts)
    assert judge(changed, plan("enforce")) == (RowStatus.INVALID, (reason,), ())
    assert judge(changed, plan("warn")) == (RowStatus.OK, (), tuple(sorted((Reason.DEMO_PLAN, reason))))


def test_every_reason_is_tested_here() -> None:
    assert {reason for reason, _ in FATAL + GATED} | {Reason.DEMO_PLAN} == set(Reason)


def test_all_reasons_are_given_at_once_and_in_a_fixed_order() -> None:
    facts = dataclasses.replace(
        GOOD, output_tokens=0, energy_j=None, occupancy=0.1, is_steady=False, client_load=2.0, throttle_s=1.0,
        num_failed=50, meter_faults=(Reason.COUNTER_RESET,),
    )  # fmt: skip
    status, reasons, _ = judge(facts, plan("enforce"))
    assert status is RowStatus.INVALID
    assert list(reasons) == sorted(set(Reason) - {
        Reason.DEMO_PLAN, Reason.ABOVE_PHYSICAL_BOUND, Reason.READING_DISAGREEMENT, Reason.SECOND_READING_LOST,
    })  # fmt: skip


@pytest.mark.parametrize("evidence", Evidence)
def test_a_plan_that_does_not_enforce_its_gates_never_measures(evidence: Evidence) -> None:
    assert plan_evidence(plan("enforce"), evidence) is evidence
    weakened = Evidence.ESTIMATED if evidence is Evidence.MEASURED else evidence
    assert plan_evidence(plan("warn"), evidence) is weakened
