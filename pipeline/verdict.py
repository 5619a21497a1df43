"""Whether a window may be scored: a closed list of reasons, given the bounds as values.

With `gates: enforce` a reason makes the row invalid; with `gates: warn` it is a warning and the row only shows
that everything works.
"""

from dataclasses import dataclass

from pipeline.record import Evidence, Reason, RowStatus
from pipeline.study import Plan

MIN_OCCUPANCY = 0.8
"""Requests in flight at the client; what the engine queues is not seen here."""

MAX_CLIENT_LOAD = 0.8
"""Share of one core above which the client may delay what it stamps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the verdict looks at; None where unknown.

    Attributes:
        output_tokens: Tokens in the window.
        energy_j: Joules within the boundary.
        second_reading_j: Integral of instantaneous power, where the meter has one.
        second_reading_lost: Whether the meter has one and it has a hole in this window.
        num_completed: Requests completed.
        num_failed: Requests failed.
        occupancy: Mean requests in flight / concurrency.
        is_steady: Whether throughput had neither trend nor stall.
        warmup_was_steady: Whether throughput settled before the warm-up's cap.
        output_tokens_per_s: Throughput.
        bound_tokens_per_s: What published peak bandwidth and arithmetic allow.
        throttle_s: Time held back for heat or by a power brake.
        client_load: CPU seconds of the client / window.
        meter_faults: What the meter complained of.
    """

    output_tokens: int
    energy_j: float | None
    second_reading_j: float | None
    second_reading_lost: bool
    num_completed: int
    num_failed: int
    occupancy: float
    is_steady: bool
    warmup_was_steady: bool
    output_tokens_per_s: float
    bound_tokens_per_s: float | None
    throttle_s: float | None
    client_load: float
    meter_faults: tuple[Reason, ...]


def judge(facts: Facts, plan: Plan) -> tuple[RowStatus, tuple[Reason, ...], tuple[Reason, ...]]:
    """Status, reasons (why invalid) and warnings of a window.

    No tokens, no energy, a reset counter, or a throughput beyond physics is invalid under any plan.
    """
    fatal = {*facts.meter_faults}
    if facts.output_tokens == 0:
        fatal.add(Reason.NO_TOKENS)
    if facts.energy_j is None or facts.energy_j <= 0:
        fatal.add(Reason.NO_ENERGY)
    if facts.bound_tokens_per_s is not None and facts.output_tokens_per_s > facts.bound_tokens_per_s:
        fatal.add(Reason.ABOVE_PHYSICAL_BOUND)
    gated = _gates(facts, plan)
    if plan.gates == "enforce":
        fatal, warnings = fatal | gated, set()
    else:
        warnings = gated | {Reason.DEMO_PLAN}
    return RowStatus.INVALID if fatal else RowStatus.OK, tuple(sorted(fatal)), tuple(sorted(warnings))


def plan_evidence(plan: Plan, evidence: Evidence) -> Evidence:
    """A plan that does not enforce its gates never measures: its rows are estimates at best."""
    return Evidence.ESTIMATED if plan.gates == "warn" and evidence is Evidence.MEASURED else evidence


def _gates(facts: Facts, plan: Plan) -> set[Reason]:
    requests = facts.num_completed + facts.num_failed
    broken = {
        Reason.ERROR_RATE: requests > 0 and facts.num_failed / requests > plan.max_error_rate,
        Reason.OCCUPANCY_LOW: facts.occupancy < MIN_OCCUPANCY,
        Reason.NOT_STEADY: not (facts.warmup_was_steady and facts.is_steady),
        Reason.CLIENT_BOUND: facts.client_load > MAX_CLIENT_LOAD,
        Reason.THERMAL_OR_BRAKE: facts.throttle_s is not None and facts.throttle_s > 0,
        Reason.SECOND_READING_LOST: facts.second_reading_lost,
        Reason.READING_DISAGREEMENT: _disagreement(facts) > plan.max_reading_disagreement,
    }
    return {reason for reason, is_broken in broken.items() if is_broken}


def _disagreement(facts: Facts) -> float:
    """How far the second energy reading is from the first, relative; 0 where there is only one."""
    if not facts.energy_j or facts.second_reading_j is None:
        return 0.0
    return abs(facts.second_reading_j / facts.energy_j - 1)
