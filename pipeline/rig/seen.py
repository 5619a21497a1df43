"""Columns of what was seen beside the requests and the joules: the client itself, the host, the engine's counters."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pipeline.engine.observed import CounterSample, HostSample
from pipeline.load.protocol import ClientSample, RequestRecord
from pipeline.percentile import percentile
from pipeline.trace import Trace
from pipeline.window import tokens_between


def client_columns(samples: Sequence[ClientSample], t0_ns: int, t1_ns: int) -> dict[str, float | None]:
    """What the client cost and how late it was; None where it said too little.

    Rates are taken between a worker's first and last sample in the window and scaled to the window.
    """
    inside = [s for s in samples if t0_ns <= s.t_ns < t1_ns]
    shares, lags_s = [], []
    for worker in sorted({s.worker for s in inside}):
        own = [s for s in inside if s.worker == worker]
        lags_s.append(percentile([s.lag_s for s in own], 0.99) or 0.0)
        elapsed_s = (own[-1].t_ns - own[0].t_ns) * 1e-9
        shares += [(own[-1].cpu_s - own[0].cpu_s) / elapsed_s] if elapsed_s > 0 else []
    return {
        "client_cpu_s": sum(shares) * (t1_ns - t0_ns) * 1e-9 if shares else None,
        "client_core_share": max(shares, default=None),
        "client_lag_p99_s": max(lags_s, default=None),
    }


def host_columns(samples: Sequence[HostSample], t0_ns: int, t1_ns: int) -> dict[str, float | int | None]:
    """What the engine's processes and its machine did between the first and the last sample in the window.

    Kernels are counted from the last sample before the window to the first after it: one compiled at an edge counts.
    """
    inside = [s for s in samples if t0_ns <= s.t_ns < t1_ns]
    if len(inside) < 2:
        return dict.fromkeys(
            ("engine_cpu_s", "host_busy_share", "host_steal_share", "num_new_kernels", "num_compile_lines")
        )
    first, last = inside[0], inside[-1]
    before = next((s for s in reversed(samples) if s.t_ns <= t0_ns), first)
    after = next((s for s in samples if s.t_ns >= t1_ns), last)
    elapsed_s = (last.t_ns - first.t_ns) * 1e-9
    engine_cpu_s = engine_cpu_between_s(first, last)
    return {
        "engine_cpu_s": None if engine_cpu_s is None else engine_cpu_s * (t1_ns - t0_ns) * 1e-9 / elapsed_s,
        "host_busy_share": (last.busy_s - first.busy_s) / elapsed_s / last.num_cores,
        "host_steal_share": (last.steal_s - first.steal_s) / elapsed_s / last.num_cores,
        "num_new_kernels": growth(before.num_cached_kernels, after.num_cached_kernels),
        "num_compile_lines": growth(before.num_compile_lines, after.num_compile_lines),
    }


def engine_cpu_between_s(first: HostSample, last: HostSample) -> float | None:
    """CPU seconds of the engine's processes between two samples; what one used before it was first seen counts.

    By sums, for the CPU of a child that ends moves into its parent's.
    """
    if first.processes is None or last.processes is None:
        return None
    return max(0.0, sum(process.cpu_s for process in last.processes) - sum(p.cpu_s for p in first.processes))


def counter_columns(trace: Trace) -> dict[str, Any]:
    """What the engine counted itself, read before and after the window: its means after, its growth across."""
    after = [c for c in trace.counters if c.t_ns >= trace.close_ns]
    before = [c for c in trace.counters if c.t_ns <= trace.open_ns]
    first, last = before[-1] if before else None, after[-1] if after else None
    return {
        "num_running_mean": _mean([c.num_running for c in after]),
        "num_waiting_mean": _mean([c.num_waiting for c in after]),
        "kv_cache_use_mean": _mean([c.kv_cache_use for c in after]),
        # Up to the first reading after the window: what happens later is not the window's.
        "num_preemptions": growth(first.num_preemptions, after[0].num_preemptions) if first and after else None,
        "token_disagreement": _disagreement(trace, first, last) if first and last else None,
    }


def _disagreement(trace: Trace, first: CounterSample, last: CounterSample) -> float | None:
    """The engine's tokens between two readings / those that reached the client in that time - 1."""
    generated = growth(first.output_tokens, last.output_tokens)
    received = tokens_between(trace.requests, first.t_ns, last.t_ns)
    return generated / received - 1 if generated is not None and received else None


def has_uncounted_tokens(requests: Sequence[RequestRecord]) -> bool:
    """Whether tokens of requests that still ran were counted by events, and events are not known to bring one each."""
    if not any(request.num_uncounted for request in requests):
        return False
    steps = {  # from the second event on: the first may stand for those cut away
        after - before
        for request in requests
        if request.is_completed
        for before, after in pairwise(request.event_tokens[1:])
    }
    return steps != {1}


def has_foreign_process(trace: Trace) -> bool | None:
    """Whether a process that is not the engine's held a context on a metered device; None if that cannot be told.

    In a container the driver may number processes as the host does. Then no number is the engine's, and only a process
    that was not there at the first reading is known to be foreign.
    """
    engine = {process.pid for sample in trace.host for process in sample.processes or ()}
    seen = [
        set(state.compute_pids) for d in trace.devices.values() for state in d.states if state.compute_pids is not None
    ]
    everyone = set().union(*seen)
    if not everyone:
        return None
    if everyone & engine:
        return bool(everyone - engine)
    at_first = set().union(
        *(next((s.compute_pids for s in d.states if s.compute_pids is not None), ()) for d in trace.devices.values())
    )
    return True if everyone - at_first else None


def growth(first: int | None, last: int | None) -> int | None:
    """How much a count grew; None where it is not known, or was started anew."""
    return None if first is None or last is None or last < first else last - first


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
