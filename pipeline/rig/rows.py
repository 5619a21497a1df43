"""Rows from their parts: who and what (identity), and what the trace says (measured). Pure functions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline import __version__
from pipeline.meter.energy import common_window, cumulative_delta_s, integrate_power_j
from pipeline.meter.protocol import DeviceReading
from pipeline.record import Boundary, Reason
from pipeline.study import EngineConfig, OperatingPoint, Plan, Study, canonical_json
from pipeline.trace import Trace
from pipeline.verdict import Facts, judge
from pipeline.window import block_energies_j, is_steady, relative_ci95, summarise


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
    }


def measured(
    trace: Trace,
    plan: Plan,
    boundary: Boundary,
    *,
    faults: tuple[Reason, ...] = (),
    warmup_was_steady: bool = True,
    bound_tokens_per_s: float | None = None,
    client_cpu_s: float = 0.0,
) -> dict[str, Any]:
    """Columns that follow from what was recorded around one window, and the verdict on it.

    The window is the meter's: it opens on the first tick after `open_ns` and closes on the last before `close_ns`.
    Where the meter gives none, the load is still summarised over the asked window and the row has no energy.

    Args:
        trace: Requests and readings.
        plan: Block length and gates.
        boundary: What the joules cover.
        faults: What the meter complained of.
        warmup_was_steady: Whether throughput settled before the warm-up's cap.
        bound_tokens_per_s: What the hardware's published peaks allow, or None.
        client_cpu_s: CPU time of the load client over the window.
    """
    energy = common_window(trace.devices, trace.open_ns, trace.close_ns)
    t0_ns, t1_ns = (energy.t0_ns, energy.t1_ns) if energy else (trace.open_ns, trace.close_ns)
    window_s = (t1_ns - t0_ns) * 1e-9
    load = summarise(trace.requests, t0_ns, t1_ns, plan.block_s, trace.concurrency)
    energy_j = energy.energy_j if energy else None
    second_j = _sum([integrate_power_j(device.samples, t0_ns, t1_ns) for device in trace.devices.values()])
    has_second = any(s.power_w is not None for device in trace.devices.values() for s in device.samples)
    throttle_s = _longest(trace.devices, "throttle_ns", t0_ns, t1_ns)
    tokens_per_s = load.output_tokens / window_s
    status, reasons, warnings = judge(
        Facts(
            output_tokens=load.output_tokens,
            energy_j=energy_j,
            second_reading_j=second_j,
            second_reading_lost=energy_j is not None and second_j is None and has_second,
            num_completed=load.num_completed,
            num_failed=load.num_failed,
            occupancy=load.occupancy,
            is_steady=is_steady(load.block_tokens, plan.steady_tolerance),
            warmup_was_steady=warmup_was_steady,
            output_tokens_per_s=tokens_per_s,
            bound_tokens_per_s=bound_tokens_per_s,
            throttle_s=throttle_s,
            client_load=client_cpu_s / window_s,
            meter_faults=faults,
        ),
        plan,
    )
    divisor_j = energy_j if energy_j is not None and energy_j > 0 else None
    return {
        "status": status,
        "reasons": reasons,
        "warnings": warnings,
        "boundary": boundary,
        "window_s": window_s,
        "output_tokens": load.output_tokens,
        "input_tokens": load.input_tokens,
        "num_completed": load.num_completed,
        "num_failed": load.num_failed,
        "occupancy": load.occupancy,
        "gpu_energy_j": energy_j if boundary is Boundary.GPU else None,
        "gpu_energy_integral_j": second_j if boundary is Boundary.GPU else None,
        "cpu_energy_j": energy_j if boundary is Boundary.CPU else None,
        "power_w": energy.power_w if energy else None,
        "output_tokens_per_joule": load.output_tokens / divisor_j if divisor_j and load.output_tokens else None,
        "total_tokens_per_joule": (load.output_tokens + load.input_tokens) / divisor_j if divisor_j else None,
        "output_tokens_per_s": tokens_per_s,
        "output_tokens_per_s_per_user": 1 / load.tpot_p50_s if load.tpot_p50_s else None,
        "output_tokens_per_joule_rel_ci95": _block_ci(trace, load.block_tokens, t0_ns, t1_ns) if energy else None,
        "num_blocks": len(load.block_tokens),
        "drift": load.drift,
        "isl_mean_tokens": load.isl_mean_tokens,
        "osl_mean_tokens": load.osl_mean_tokens,
        "ttft_p50_s": load.ttft_p50_s,
        "ttft_p99_s": load.ttft_p99_s,
        "tpot_p50_s": load.tpot_p50_s,
        "tpot_p99_s": load.tpot_p99_s,
        "e2e_p50_s": load.e2e_p50_s,
        "e2e_p99_s": load.e2e_p99_s,
        "gpu_temperature_mean_c": _mean_sample(trace.devices, "temperature_c", t0_ns, t1_ns),
        "sm_clock_mean_mhz": _mean_sample(trace.devices, "sm_clock_mhz", t0_ns, t1_ns),
        "power_limit_w": _sum([device.power_limit_w for device in trace.devices.values()]),
        "throttle_s": throttle_s,
        "power_cap_s": _longest(trace.devices, "power_cap_ns", t0_ns, t1_ns),
        "client_cpu_s": client_cpu_s,
    }


def utc(monotonic_ns: int, now_ns: int, now: datetime | None = None) -> str:
    """Wall-clock time of a monotonic instant, ISO 8601 in UTC."""
    when = (now or datetime.now(UTC)) - timedelta(microseconds=(now_ns - monotonic_ns) / 1000)
    return when.isoformat(timespec="milliseconds")


def _block_ci(trace: Trace, block_tokens: tuple[int, ...], t0_ns: int, t1_ns: int) -> float | None:
    """Relative 95 % half-width of tokens per joule over the blocks; energies summed over devices."""
    per_device = [
        block_energies_j([(t.t_ns, t.energy_j) for t in device.ticks], t0_ns, t1_ns, len(block_tokens))
        for device in trace.devices.values()
    ]
    energies = [sum(block) for block in zip(*per_device, strict=True)]
    if min(energies) <= 0:
        return None
    return relative_ci95([tokens / energy for tokens, energy in zip(block_tokens, energies, strict=True)])


def _sum(values: list[float | None]) -> float | None:
    """Sum over devices; None if any is unknown or there is none."""
    known = _all_known(values)
    return sum(known) if known else None


def _all_known(values: list[float | None]) -> list[float]:
    """The values of all devices, or nothing where one is unknown: a part does not stand for the whole."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def _mean_sample(devices: dict[str, DeviceReading], name: str, t0_ns: int, t1_ns: int) -> float | None:
    samples = [s for device in devices.values() for s in device.samples if t0_ns <= s.t_ns < t1_ns]
    values = [value for s in samples if (value := getattr(s, name)) is not None]
    return sum(values) / len(values) if values else None


def _longest(devices: dict[str, DeviceReading], name: str, t0_ns: int, t1_ns: int) -> float | None:
    spans = [cumulative_delta_s(getattr(device, name), t0_ns, t1_ns) for device in devices.values()]
    return max(_all_known(spans), default=None)
