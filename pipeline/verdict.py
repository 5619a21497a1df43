"""Whether a window may be scored: a closed list of reasons, given the bounds as values.

With `gates: enforce` a broken gate makes the row invalid; with `gates: warn` it is a warning and the row only shows
that everything works. Warnings never make a row invalid: dropping noisy rows is selecting.
"""

from dataclasses import dataclass

from pipeline.study import Plan
from pipeline.vocabulary import Evidence, Reason, RowStatus

MIN_OCCUPANCY = 0.8
"""Requests in flight at the client / concurrency. Source: ML.ENERGY v3 asks for as much of max_num_seqs."""

MAX_CORE_SHARE = 0.8
"""Of one core, by the busiest worker of the client: above it the client may delay what it stamps."""

MAX_CLIENT_LAG_S = 0.02
"""99th percentile of how late the client's timers fire; a stamp may be as late. A decode step takes 5 ms or more."""

MAX_GAP_S = 0.5
"""Longest hole in ticks or power samples: five refreshes of a 100 ms sensor."""

MAX_STEAL_SHARE, MAX_BUSY_SHARE = 0.02, 0.98
"""Of all cores: taken by another virtual machine, and working. Beyond either the engine waits for a core."""

MIN_GPU_BUSY = 0.8
"""Share of the time in which a kernel runs; below it the GPU waits for the engine's host side."""

MIN_GPU_USE = 0.01
"""A reserved GPU below it does not take part: the wrong one is metered, or one is paid for in vain."""

MAX_WAITING_SHARE = 0.05
"""Of the requests in the engine, queued."""

ALIASED_ITLS_S, ALIASING_MARGIN = (0.05, 0.1), 0.05
"""A sensor that sees 25 of each 100 ms (arXiv 2312.02741) errs by up to 30 % where the load's period locks to 100 or
50 ms; at 33, 137 or 200 ms it errs by 0.13 % (simulation of a two to one square wave)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the verdict looks at; None where it is unknown, which breaks no gate but those of tokens and energy.

    Attributes:
        output_tokens: Tokens in the window.
        energy_j: Joules within the boundary.
        second_reading_j: Integral of instantaneous power.
        largest_gap_s: Longest time without a tick, or without a power sample where the meter has them, of any device.
        num_devices: Devices that were metered.
        num_gpus: Devices that the deployment reserves; 0 on a CPU.
        has_foreign_process: Whether a process that is not the engine's held a context on a metered device.
        power_limit_range_w: Lowest and highest enforced limit of the device where they differ most.
        thermal_s: Time held back for heat.
        brake_s: Time held back by a power brake.
        num_completed: Requests completed.
        num_failed: Requests failed.
        occupancy: Mean requests in flight / concurrency; None in an open loop.
        is_closed_loop: Whether the client waits for an answer before it sends the next request.
        is_steady: Whether throughput had neither trend nor stall.
        warmup_unsettled: What had not settled when the warm-up hit its cap.
        is_window_long_enough: Whether the plan's cap left room for as many request durations as it asks for.
        output_tokens_per_s: Throughput.
        bound_tokens_per_s: What published peak bandwidth and arithmetic allow.
        output_tokens_per_joule: Efficiency.
        bound_tokens_per_joule: The bound of throughput at the power of idle boards.
        rel_ci95: Half-width of the interval.
        num_new_kernels: Files added to the kernel caches.
        num_compile_lines: Log lines that tell of a kernel compiled.
        client_core_share: Of one core, the busiest worker of the client.
        client_lag_p99_s: How late the client's timers fired.
        host_busy_share: Share of all cores that worked.
        host_steal_share: Share of all cores that were taken.
        gpu_busy: Share of the time in which a kernel ran, least of the devices.
        num_running: Requests in the engine's batch.
        num_waiting: Requests queued in the engine.
        num_preemptions: Requests evicted and computed again.
        token_disagreement: Engine's count / client's count - 1.
        itl_p50_s: Median inter-token latency.
        has_uncounted_tokens: Whether tokens were counted by stream events that may bring several each.
        num_constant_weights: Weight tensors that hold a single value, by the engine's account.
        is_engine_untested: Whether nothing that we know of the engine was checked against its version.
        is_instrumented: Whether the engine was started with metrics of its own that are not part of the config.
        is_dummy_weights: Whether the engine filled its weights as it liked.
        start_warnings: What the reader of every row of this start should know of its config.
        meter_faults: What the meter complained of.
    """

    output_tokens: int
    energy_j: float | None
    second_reading_j: float | None
    largest_gap_s: float | None
    num_devices: int
    num_gpus: int
    has_foreign_process: bool | None
    power_limit_range_w: tuple[float, float] | None
    thermal_s: float | None
    brake_s: float | None
    num_completed: int
    num_failed: int
    occupancy: float | None
    is_closed_loop: bool
    is_steady: bool
    warmup_unsettled: tuple[str, ...]
    is_window_long_enough: bool
    output_tokens_per_s: float
    bound_tokens_per_s: float | None
    output_tokens_per_joule: float | None
    bound_tokens_per_joule: float | None
    rel_ci95: float | None
    num_new_kernels: int | None
    num_compile_lines: int | None
    client_core_share: float | None
    client_lag_p99_s: float | None
    host_busy_share: float | None
    host_steal_share: float | None
    gpu_busy: float | None
    num_running: float | None
    num_waiting: float | None
    num_preemptions: int | None
    token_disagreement: float | None
    itl_p50_s: float | None
    has_uncounted_tokens: bool
    num_constant_weights: int | None
    is_engine_untested: bool
    is_instrumented: bool
    is_dummy_weights: bool
    start_warnings: tuple[Reason, ...]
    meter_faults: tuple[Reason, ...]


def judge(facts: Facts, plan: Plan) -> tuple[RowStatus, tuple[Reason, ...], tuple[Reason, ...]]:
    """Status, reasons (why invalid) and warnings of a window.

    No tokens, no energy, a meter's fault, the wrong devices, a throughput beyond physics, weights that are none, or an
    engine that was made to watch itself is invalid under any plan.
    """
    fatal = {*facts.meter_faults} | _true({
        Reason.NO_TOKENS: facts.output_tokens == 0,
        Reason.NO_ENERGY: facts.energy_j is None or facts.energy_j <= 0,
        Reason.GPU_COUNT_MISMATCH: facts.num_gpus > 0 and facts.num_devices != facts.num_gpus,
        Reason.GPU_UNUSED: facts.num_gpus > 0 and _below(facts.gpu_busy, MIN_GPU_USE),
        Reason.ABOVE_PHYSICAL_BOUND: _above(facts.output_tokens_per_s, facts.bound_tokens_per_s)
        or _above(facts.output_tokens_per_joule, facts.bound_tokens_per_joule),
        Reason.WEIGHTS_CONSTANT: _above(facts.num_constant_weights, 0),
        Reason.ERROR_RATE: facts.num_failed > 0 and facts.num_completed == 0,
        Reason.INSTRUMENTED: facts.is_instrumented,
        Reason.DUMMY_WEIGHTS: facts.is_dummy_weights,
    })  # fmt: skip
    gated, warnings = _gates(facts, plan), _warnings(facts, plan)
    if plan.gates == "enforce":
        fatal |= gated
    else:
        warnings |= gated | {Reason.DEMO_PLAN}
    return RowStatus.INVALID if fatal else RowStatus.OK, tuple(sorted(fatal)), tuple(sorted(warnings - fatal))


def plan_evidence(plan: Plan, evidence: Evidence) -> Evidence:
    """A plan that does not enforce its gates never measures: its rows are estimates at best."""
    return Evidence.ESTIMATED if plan.gates == "warn" and evidence is Evidence.MEASURED else evidence


def _gates(facts: Facts, plan: Plan) -> set[Reason]:
    requests = facts.num_completed + facts.num_failed
    limits = facts.power_limit_range_w
    return _true({
        Reason.ERROR_RATE: requests > 0 and facts.num_failed / requests > plan.max_error_rate,
        Reason.OCCUPANCY_LOW: _below(facts.occupancy, MIN_OCCUPANCY),
        Reason.NOT_STEADY: not facts.is_steady,
        Reason.KERNELS_COMPILING: _above(facts.num_new_kernels, 0) or _above(facts.num_compile_lines, 0),
        Reason.CLIENT_BOUND: _above(facts.client_core_share, MAX_CORE_SHARE)
        or _above(facts.client_lag_p99_s, MAX_CLIENT_LAG_S),
        Reason.HOST_BOUND: _above(facts.host_steal_share, MAX_STEAL_SHARE)
        or (facts.num_gpus > 0 and _above(facts.host_busy_share, MAX_BUSY_SHARE)),  # a CPU is meant to be busy
        Reason.THROTTLED_THERMAL: _above(facts.thermal_s, 0),
        Reason.POWER_BRAKE: _above(facts.brake_s, 0),
        Reason.LIMIT_CHANGED: limits is not None and limits[0] != limits[1],
        Reason.FOREIGN_PROCESS: facts.has_foreign_process is True,
        Reason.SAMPLE_GAP: _above(facts.largest_gap_s, MAX_GAP_S)
        or (facts.num_gpus > 0 and _above(facts.energy_j, 0) and facts.second_reading_j is None),
        Reason.READING_DISAGREEMENT: _disagreement(facts) > plan.max_reading_disagreement,
        Reason.TOKENS_UNCOUNTED: facts.has_uncounted_tokens,
        Reason.TOKEN_MISMATCH: abs(facts.token_disagreement or 0.0) > plan.max_token_disagreement,
        Reason.KV_PREEMPTION: _above(facts.num_preemptions, 0),
        # A queue in an open loop grows without end; in a closed loop it is a load that the engine cuts down, see below.
        Reason.QUEUE_LIMITED: not facts.is_closed_loop and _is_queueing(facts),
    })  # fmt: skip


def _warnings(facts: Facts, plan: Plan) -> set[Reason]:
    return _true({
        Reason.QUEUE_LIMITED: facts.is_closed_loop and _is_queueing(facts),
        Reason.GPU_IDLE: _below(facts.gpu_busy, MIN_GPU_BUSY) and not _below(facts.gpu_busy, MIN_GPU_USE),
        Reason.INTERVAL_UNKNOWN: facts.rel_ci95 is None,
        Reason.INTERVAL_WIDE: _above(facts.rel_ci95, plan.max_rel_ci95),
        Reason.ALIASING_RISK: facts.num_gpus > 0 and _is_aliased(facts.itl_p50_s),
        Reason.WARMUP_CAPPED: bool(facts.warmup_unsettled),
        Reason.WINDOW_SHORT: not facts.is_window_long_enough,
        Reason.ENGINE_UNTESTED: facts.is_engine_untested,
    }) | {*facts.start_warnings}  # fmt: skip


def _true(broken: dict[Reason, bool]) -> set[Reason]:
    return {reason for reason, is_broken in broken.items() if is_broken}


def _above(value: float | None, limit: float | None) -> bool:
    """Whether a value is known to exceed a limit, if there is one."""
    return value is not None and limit is not None and value > limit


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _is_queueing(facts: Facts) -> bool:
    if facts.num_waiting is None or facts.num_running is None:
        return False
    return facts.num_waiting > MAX_WAITING_SHARE * (facts.num_running + facts.num_waiting)


def _is_aliased(itl_s: float | None) -> bool:
    return itl_s is not None and any(abs(itl_s / period_s - 1) < ALIASING_MARGIN for period_s in ALIASED_ITLS_S)


def _disagreement(facts: Facts) -> float:
    """How far the second energy reading is from the first, relative; 0 where there is only one."""
    if not facts.energy_j or facts.second_reading_j is None:
        return 0.0
    return abs(facts.second_reading_j / facts.energy_j - 1)
