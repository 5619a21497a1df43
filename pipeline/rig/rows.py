"""Rows from their parts: who and what (identity), and what the trace says (measured). Pure functions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pipeline import __version__
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.interval import Interval, block_energies_j, num_base_blocks, relative_interval
from pipeline.meter.energy import (
    CommonWindow,
    common_window,
    integrate_power_j,
    largest_gap_s,
    limit_range_w,
    mean_power_w,
    state_delta_s,
    state_mean,
)
from pipeline.meter.protocol import DeviceReading
from pipeline.percentile import slo_met
from pipeline.record import METHOD, Row
from pipeline.rig.reported import reported_columns
from pipeline.rig.seen import client_columns, counter_columns, has_foreign_process, has_uncounted_tokens, host_columns
from pipeline.steadiness import drift, is_steady
from pipeline.study import Study
from pipeline.trace import Context, Trace
from pipeline.verdict import Facts, judge
from pipeline.vocabulary import Boundary
from pipeline.window import block_tokens, summarise
from pipeline.workload import OperatingPoint

CHANGED_IN_METHOD_2 = frozenset(
    {"status", "reasons", "warnings", "output_tokens_per_joule_rel_ci95", "num_blocks", "client_cpu_s", "method"}
)
"""Columns of rows of method 1 that its traces do not give again under method 2."""


def identity(study: Study, config: EngineConfig, point: OperatingPoint, trial_id: str) -> dict[str, Any]:
    """Columns that say which case a row is about."""
    return {
        "trial_id": trial_id,
        "study_id": study.id,
        "case_id": study.case_id(config, point),
        "config_hash": config.config_hash,
        "config_json": canonical_json(config.requested()),
        "model": study.model.name,
        "weights": study.weights,
        "hardware": study.hardware.name,
        "num_gpus": config.parallelism.num_gpus if study.hardware.kind == "gpu" else 0,
        "engine": config.engine,
        "tool_version": __version__,
        "workload": study.workload.name,
        "plan": study.plan.name,
        "isl_tokens": study.workload.isl_tokens,
        "osl_tokens": study.workload.osl_tokens,
        "concurrency": point.concurrency,
        "request_rate_per_s": point.request_rate_per_s,
    }


def measured(trace: Trace, context: Context) -> dict[str, Any]:
    """Columns that follow from what was recorded around one window, and the verdict on it.

    The window is the meter's: it opens on the first tick after `open_ns` and closes on the last before `close_ns`.
    Where the meter gives none or had a fault, the load is still summarised over the asked window and the row has no
    energy: what a faulty meter gave before is not the window's.
    """
    plan, boundary, devices = context.plan, context.boundary, trace.devices
    energy = None if context.meter_faults else common_window(devices, trace.open_ns, trace.close_ns)
    t0_ns, t1_ns = (energy.t0_ns, energy.t1_ns) if energy else (trace.open_ns, trace.close_ns)
    window_s = (t1_ns - t0_ns) * 1e-9
    load = summarise(trace.requests, t0_ns, t1_ns, plan.block_s, trace.point)
    energy_j = energy.energy_j if energy and energy.energy_j > 0 else None
    second_j = _sum([integrate_power_j(device.samples, t0_ns, t1_ns) for device in devices.values()])
    interval = energy and interval_over(devices, energy, partial(block_tokens, trace.requests, t0_ns, t1_ns))
    columns = {
        "method": METHOD,
        "boundary": boundary,
        "warmup_unsettled": context.warmup_unsettled,
        "window_s": window_s,
        "is_extended": context.is_extended,
        "output_tokens": load.output_tokens,
        "input_tokens": load.input_tokens,
        "num_completed": load.num_completed,
        "num_failed": load.num_failed,
        "occupancy": load.occupancy,
        "gpu_energy_j": energy.energy_j if energy and boundary is Boundary.GPU else None,
        "gpu_energy_integral_j": second_j if boundary is Boundary.GPU else None,
        "cpu_energy_j": energy.energy_j if energy and boundary is Boundary.CPU else None,
        "power_w": energy.power_w if energy else None,
        "output_tokens_per_joule": load.output_tokens / energy_j if energy_j and load.output_tokens else None,
        "total_tokens_per_joule": (load.output_tokens + load.input_tokens) / energy_j
        if energy_j and load.output_tokens
        else None,
        "output_tokens_per_s": load.output_tokens / window_s,
        "output_tokens_per_s_per_user": 1 / load.tpot_p50_s if load.tpot_p50_s else None,
        "output_tokens_per_joule_rel_ci95": interval.rel_ci95 if interval else None,
        "num_blocks": interval.num_blocks if interval else None,
        "block_autocorrelation": interval.autocorrelation if interval else None,
        "drift": load.drift,
        "power_drift": drift(_energies_j(devices, t0_ns, t1_ns, len(load.block_tokens))) if energy else None,
        "isl_mean_tokens": load.isl_mean_tokens,
        "osl_mean_tokens": load.osl_mean_tokens,
        **{name: getattr(load, name) for name in _LATENCIES},
        "slo": context.slo.name,
        "slo_met": slo_met(load, context.slo),
        "gpu_temperature_mean_c": _mean(devices, "temperature_c", t0_ns, t1_ns),
        "memory_temperature_mean_c": _mean(devices, "memory_temperature_c", t0_ns, t1_ns),
        "memory_power_w": _sum([mean_power_w(d.samples, "memory_power_w", t0_ns, t1_ns) for d in devices.values()]),
        "memory_clock_mean_mhz": _mean(devices, "memory_clock_mhz", t0_ns, t1_ns),
        "sm_clock_mean_mhz": _mean(devices, "sm_clock_mhz", t0_ns, t1_ns),
        "gpu_busy_mean": _mean(devices, "gpu_busy", t0_ns, t1_ns),
        "power_limit_w": _sum([_lowest(limit_range_w(d.states, t0_ns, t1_ns)) for d in devices.values()]),
        "throttle_s": _longest(devices, "thermal_ns", t0_ns, t1_ns),
        "brake_s": _longest(devices, "brake_ns", t0_ns, t1_ns),
        "power_cap_s": _longest(devices, "power_cap_ns", t0_ns, t1_ns),
        **client_columns(trace.client, t0_ns, t1_ns),
        **host_columns(trace.host, t0_ns, t1_ns),
        **counter_columns(trace),
        **reported_columns(trace, boundary),
    }
    status, reasons, warnings = judge(
        Facts(
            output_tokens=load.output_tokens,
            energy_j=energy_j,
            second_reading_j=second_j,
            largest_gap_s=_largest_gap_s(devices, t0_ns, t1_ns),
            num_devices=len(devices) if boundary is Boundary.GPU else 0,
            num_gpus=context.num_gpus,
            has_foreign_process=has_foreign_process(trace),
            power_limit_range_w=_widest_limit_w(devices, trace.open_ns, trace.close_ns),
            thermal_s=columns["throttle_s"],
            brake_s=columns["brake_s"],
            num_completed=load.num_completed,
            num_failed=load.num_failed,
            occupancy=load.occupancy,
            is_closed_loop=trace.point.concurrency is not None,
            is_steady=is_steady(load.block_tokens, plan.steady_tolerance),
            warmup_unsettled=context.warmup_unsettled,
            is_window_long_enough=context.is_window_long_enough,
            output_tokens_per_s=columns["output_tokens_per_s"],
            bound_tokens_per_s=context.bound_tokens_per_s,
            output_tokens_per_joule=columns["output_tokens_per_joule"],
            bound_tokens_per_joule=context.bound_tokens_per_joule,
            rel_ci95=columns["output_tokens_per_joule_rel_ci95"],
            num_new_kernels=columns["num_new_kernels"],
            num_compile_lines=columns["num_compile_lines"],
            client_core_share=columns["client_core_share"],
            client_lag_p99_s=columns["client_lag_p99_s"],
            host_busy_share=columns["host_busy_share"],
            host_steal_share=columns["host_steal_share"],
            gpu_busy=_least(devices, "gpu_busy", t0_ns, t1_ns),
            num_running=columns["num_running_mean"],
            num_waiting=columns["num_waiting_mean"],
            num_preemptions=columns["num_preemptions"],
            token_disagreement=columns["token_disagreement"],
            itl_p50_s=load.itl_p50_s,
            has_uncounted_tokens=has_uncounted_tokens(trace.requests),
            num_constant_weights=context.num_constant_weights,
            is_engine_untested=context.is_engine_untested,
            start_warnings=context.start_warnings,
            is_instrumented=context.is_instrumented,
            is_dummy_weights=context.is_dummy_weights,
            meter_faults=context.meter_faults,
        ),
        plan,
    )
    return {**columns, "status": status, "reasons": reasons, "warnings": warnings}


_LATENCIES = tuple(f.name for f in dataclasses.fields(Row) if f.name.startswith(("ttft_", "tpot_", "itl_", "e2e_")))


def utc(monotonic_ns: int, now_ns: int, now: datetime | None = None) -> str:
    """Wall-clock time of a monotonic instant, ISO 8601 in UTC."""
    when = (now or datetime.now(UTC)) - timedelta(microseconds=(now_ns - monotonic_ns) / 1000)
    return when.isoformat(timespec="milliseconds")


def interval_over(
    devices: Mapping[str, DeviceReading], window: CommonWindow, tokens: Callable[[int], Sequence[float]]
) -> Interval | None:
    """The interval of tokens per joule over a window; `tokens` gives those of so many equal blocks of it."""
    num_blocks = num_base_blocks((window.t1_ns - window.t0_ns) * 1e-9)
    return relative_interval(tokens(num_blocks), _energies_j(devices, window.t0_ns, window.t1_ns, num_blocks))


def _energies_j(devices: Mapping[str, DeviceReading], t0_ns: int, t1_ns: int, num_blocks: int) -> list[float]:
    """Joules per block of equal length, summed over devices."""
    per_device = [
        block_energies_j([(t.t_ns, t.energy_j) for t in device.ticks], t0_ns, t1_ns, num_blocks)
        for device in devices.values()
    ]
    return [sum(block) for block in zip(*per_device, strict=True)]


def _largest_gap_s(devices: dict[str, DeviceReading], t0_ns: int, t1_ns: int) -> float | None:
    """Longest time without a tick, or without a power sample where a device has them."""
    gaps = []
    for device in devices.values():
        gaps.append(largest_gap_s([tick.t_ns for tick in device.ticks], t0_ns, t1_ns))
        samples = [sample.t_ns for sample in device.samples if sample.power_w is not None]
        gaps += [largest_gap_s(samples, t0_ns, t1_ns)] if samples else []
    return max((gap for gap in gaps if gap is not None), default=None)


def _widest_limit_w(devices: dict[str, DeviceReading], t0_ns: int, t1_ns: int) -> tuple[float, float] | None:
    ranges = [found for device in devices.values() if (found := limit_range_w(device.states, t0_ns, t1_ns))]
    return max(ranges, key=lambda found: found[1] - found[0], default=None)


def _lowest(limits_w: tuple[float, float] | None) -> float | None:
    return None if limits_w is None else limits_w[0]


def _sum(values: list[float | None]) -> float | None:
    """Sum over devices; None if any is unknown or there is none."""
    known = _all_known(values)
    return sum(known) if known else None


def _all_known(values: list[float | None]) -> list[float]:
    """The values of all devices, or nothing where one is unknown: a part does not stand for the whole."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def _mean(devices: dict[str, DeviceReading], name: str, t0_ns: int, t1_ns: int) -> float | None:
    means = _all_known([state_mean(device.states, name, t0_ns, t1_ns) for device in devices.values()])
    return sum(means) / len(means) if means else None


def _least(devices: dict[str, DeviceReading], name: str, t0_ns: int, t1_ns: int) -> float | None:
    means = [state_mean(device.states, name, t0_ns, t1_ns) for device in devices.values()]
    return min((mean for mean in means if mean is not None), default=None)


def _longest(devices: dict[str, DeviceReading], name: str, t0_ns: int, t1_ns: int) -> float | None:
    spans = [state_delta_s(device.states, name, t0_ns, t1_ns) for device in devices.values()]
    return max(_all_known(spans), default=None)
