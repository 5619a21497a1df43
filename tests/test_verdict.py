import dataclasses
from typing import Any, Literal

import pytest

from pipeline.study import Plan
from pipeline.verdict import (
    MAX_BUSY_SHARE,
    MAX_CLIENT_LAG_S,
    MAX_CORE_SHARE,
    MAX_GAP_S,
    MAX_STEAL_SHARE,
    MIN_GPU_BUSY,
    MIN_OCCUPANCY,
    Facts,
    judge,
    plan_evidence,
)
from pipeline.vocabulary import Evidence, Reason, RowStatus

GOOD = Facts(
    output_tokens=1000, energy_j=100.0, second_reading_j=101.0, largest_gap_s=0.1, num_devices=1, num_gpus=1,
    has_foreign_process=False, power_limit_range_w=(700.0, 700.0), thermal_s=0.0, brake_s=0.0,
    num_completed=100, num_failed=0, occupancy=0.99, is_closed_loop=True, is_steady=True, warmup_unsettled=(),
    is_window_long_enough=True, output_tokens_per_s=50.0, bound_tokens_per_s=60.0,
    output_tokens_per_joule=5.0, bound_tokens_per_joule=6.0, rel_ci95=0.01, num_new_kernels=0,
    num_compile_lines=0, client_core_share=0.1, client_lag_p99_s=0.001, host_busy_share=0.2, host_steal_share=0.0,
    gpu_busy=0.99, num_running=60.0, num_waiting=0.0, num_preemptions=0, token_disagreement=0.001, itl_p50_s=0.012,
    has_uncounted_tokens=False, num_constant_weights=0, is_engine_untested=False, is_instrumented=False,
    start_warnings=(), is_dummy_weights=False, meter_faults=(),
)  # fmt: skip

OPTIONAL = [field.name for field in dataclasses.fields(Facts) if "None" in str(field.type)]

FATAL: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.NO_TOKENS, {"output_tokens": 0, "output_tokens_per_s": 0.0}),
    (Reason.NO_ENERGY, {"energy_j": None, "second_reading_j": None}),
    (Reason.NO_ENERGY, {"energy_j": 0.0}),
    (Reason.NO_ENERGY, {"energy_j": -5.0, "second_reading_j": None}),
    (Reason.NO_ENERGY, {"meter_faults": (Reason.NO_ENERGY,)}),
    (Reason.COUNTER_RESET, {"meter_faults": (Reason.COUNTER_RESET,)}),
    (Reason.GPU_COUNT_MISMATCH, {"num_gpus": 2}),
    (Reason.GPU_UNUSED, {"gpu_busy": 0.009}),
    (Reason.ABOVE_PHYSICAL_BOUND, {"output_tokens_per_s": 60.1}),
    (Reason.ABOVE_PHYSICAL_BOUND, {"output_tokens_per_joule": 6.1}),
    (Reason.WEIGHTS_CONSTANT, {"num_constant_weights": 1}),
    (Reason.ERROR_RATE, {"num_failed": 1, "num_completed": 0}),
    (Reason.INSTRUMENTED, {"is_instrumented": True}),
    (Reason.DUMMY_WEIGHTS, {"is_dummy_weights": True}),
]
"""Invalid whatever the plan."""

GATED: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.ERROR_RATE, {"num_failed": 2}),
    (Reason.OCCUPANCY_LOW, {"occupancy": MIN_OCCUPANCY - 0.01}),
    (Reason.NOT_STEADY, {"is_steady": False}),
    (Reason.KERNELS_COMPILING, {"num_new_kernels": 1}),
    (Reason.KERNELS_COMPILING, {"num_compile_lines": 1}),
    (Reason.CLIENT_BOUND, {"client_core_share": MAX_CORE_SHARE + 0.01}),
    (Reason.CLIENT_BOUND, {"client_lag_p99_s": MAX_CLIENT_LAG_S + 0.001}),
    (Reason.HOST_BOUND, {"host_steal_share": MAX_STEAL_SHARE + 0.01}),
    (Reason.HOST_BOUND, {"host_busy_share": MAX_BUSY_SHARE + 0.01}),
    (Reason.THROTTLED_THERMAL, {"thermal_s": 0.001}),
    (Reason.POWER_BRAKE, {"brake_s": 0.001}),
    (Reason.LIMIT_CHANGED, {"power_limit_range_w": (500.0, 700.0)}),
    (Reason.FOREIGN_PROCESS, {"has_foreign_process": True}),
    (Reason.SAMPLE_GAP, {"largest_gap_s": MAX_GAP_S + 0.01}),
    (Reason.SAMPLE_GAP, {"second_reading_j": None}),
    (Reason.TOKENS_UNCOUNTED, {"has_uncounted_tokens": True}),
    (Reason.READING_DISAGREEMENT, {"second_reading_j": 103.0}),
    (Reason.READING_DISAGREEMENT, {"second_reading_j": 97.0}),
    (Reason.TOKEN_MISMATCH, {"token_disagreement": 0.011}),
    (Reason.TOKEN_MISMATCH, {"token_disagreement": -0.011}),
    (Reason.KV_PREEMPTION, {"num_preemptions": 1}),
    (Reason.QUEUE_LIMITED, {"is_closed_loop": False, "occupancy": None, "num_waiting": 10.0}),
]
"""Invalid where the plan enforces its gates."""

WARNED: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.QUEUE_LIMITED, {"num_waiting": 10.0}),
    (Reason.GPU_IDLE, {"gpu_busy": MIN_GPU_BUSY - 0.01}),
    (Reason.INTERVAL_UNKNOWN, {"rel_ci95": None}),
    (Reason.INTERVAL_WIDE, {"rel_ci95": 0.021}),
    (Reason.ALIASING_RISK, {"itl_p50_s": 0.051}),
    (Reason.ALIASING_RISK, {"itl_p50_s": 0.098}),
    (Reason.WARMUP_CAPPED, {"warmup_unsettled": ("temperature",)}),
    (Reason.WINDOW_SHORT, {"is_window_long_enough": False}),
    (Reason.ENGINE_UNTESTED, {"is_engine_untested": True}),
    (Reason.DRAFTS_OF_RANDOM_TEXT, {"start_warnings": (Reason.DRAFTS_OF_RANDOM_TEXT,)}),
    (Reason.LOSSY_SETTING, {"start_warnings": (Reason.LOSSY_SETTING,)}),
]
"""Never invalid: dropping such rows would be selecting."""

HARMLESS: list[dict[str, Any]] = [
    {},
    {"num_completed": 0},
    {"num_completed": 9999, "num_failed": 1},
    {"occupancy": MIN_OCCUPANCY},
    {"client_core_share": MAX_CORE_SHARE, "client_lag_p99_s": MAX_CLIENT_LAG_S},
    {"host_steal_share": MAX_STEAL_SHARE, "host_busy_share": MAX_BUSY_SHARE},
    {"num_gpus": 0, "num_devices": 0, "host_busy_share": 1.0, "itl_p50_s": 0.05, "second_reading_j": None},
    {"largest_gap_s": MAX_GAP_S},
    {"second_reading_j": 101.9},
    {"bound_tokens_per_s": None, "output_tokens_per_s": 1e9},
    {"output_tokens_per_s": 60.0},
    {"output_tokens_per_joule": 6.0},
    {"bound_tokens_per_joule": None, "output_tokens_per_joule": 1e9},
    {"token_disagreement": -0.01},
    {"num_waiting": 3.0},
    {"gpu_busy": MIN_GPU_BUSY},
    {"rel_ci95": 0.02},
    {"itl_p50_s": 0.033},
    {"num_running": None, "num_waiting": 10.0},
    *({name: None} for name in OPTIONAL if name not in {"energy_j", "second_reading_j", "rel_ci95"}),
]
"""Just within every gate, or unknown."""


def plan(gates: Literal["warn", "enforce"]) -> Plan:
    return Plan(
        name="test", warmup_s=1, warmup_max_s=2, window_s=10, block_s=1, gates=gates, steady_tolerance=0.05,
        max_error_rate=0.001, max_reading_disagreement=0.02, hang_s=10, max_rel_ci95=0.02,
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


@pytest.mark.parametrize(("reason", "facts"), WARNED)
def test_a_warning_is_never_a_reason(reason: Reason, facts: dict[str, Any]) -> None:
    changed = dataclasses.replace(GOOD, **facts)
    assert judge(changed, plan("enforce")) == (RowStatus.OK, (), (reason,))
    assert judge(changed, plan("warn")) == (RowStatus.OK, (), tuple(sorted((Reason.DEMO_PLAN, reason))))


def test_every_reason_is_tested_here() -> None:
    elsewhere = {Reason.TEMPERATURE_APART, Reason.IMPORTED_WINDOW}  # neighbours.py, importers/trtllm_bench.py
    assert {reason for reason, _ in FATAL + GATED + WARNED} | {Reason.DEMO_PLAN} | elsewhere == set(Reason)


def test_all_reasons_are_given_at_once_and_in_a_fixed_order() -> None:
    facts = dataclasses.replace(
        GOOD, output_tokens=0, energy_j=None, occupancy=0.1, is_steady=False, client_core_share=2.0, thermal_s=1.0,
        num_failed=50, meter_faults=(Reason.COUNTER_RESET,), itl_p50_s=0.1,
    )  # fmt: skip
    status, reasons, warnings = judge(facts, plan("enforce"))
    assert status is RowStatus.INVALID
    assert reasons == (
        Reason.CLIENT_BOUND, Reason.COUNTER_RESET, Reason.ERROR_RATE, Reason.NO_ENERGY, Reason.NO_TOKENS,
        Reason.NOT_STEADY, Reason.OCCUPANCY_LOW, Reason.THROTTLED_THERMAL,
    )  # fmt: skip
    assert warnings == (Reason.ALIASING_RISK,)


@pytest.mark.parametrize("evidence", Evidence)
def test_a_plan_that_does_not_enforce_its_gates_never_measures(evidence: Evidence) -> None:
    assert plan_evidence(plan("enforce"), evidence) is evidence
    weakened = Evidence.ESTIMATED if evidence is Evidence.MEASURED else evidence
    assert plan_evidence(plan("warn"), evidence) is weakened
