"""The evidence behind one row: requests, energy readings, the window, and what else the row follows from.

Anyone can recompute the row from it. Times are nanoseconds on the monotonic clock of the machine that measured.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeVar

from pipeline.engine.observed import CounterSample, HostSample
from pipeline.load.protocol import ClientSample, RequestRecord
from pipeline.meter.protocol import DeviceReading, StateSample
from pipeline.study import Plan
from pipeline.vocabulary import Boundary, Reason
from pipeline.workload import OperatingPoint, Slo

MARGIN_NS = 2_000_000_000
"""Kept on either side of a window: more than the longest gap between power samples that is integrated over."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a row follows from besides the readings.

    Attributes:
        plan: Blocks and gates.
        slo: Latency owed.
        boundary: What the joules cover.
        num_gpus: Devices that the deployment reserves; 0 on a CPU.
        meter_faults: What the meter complained of.
        warmup_unsettled: What had not settled when the warm-up hit its cap.
        is_window_long_enough: Whether the plan's cap left room for as many request durations as it asks for.
        is_extended: Whether the window was doubled for a wide interval.
        bound_tokens_per_s: What the hardware's published peaks allow, or None.
        bound_tokens_per_joule: The same at the power of idle boards.
        num_constant_weights: Weight tensors that hold a single value, by the engine's account, or None.
        is_engine_untested: Whether nothing that we know of the engine was checked against its version.
        is_instrumented: Whether the engine was started with metrics of its own that are not part of the config.
        is_dummy_weights: Whether the engine filled its weights as it liked.
        start_warnings: What the reader of every row of this start should know of its config.
    """

    plan: Plan
    slo: Slo
    boundary: Boundary
    num_gpus: int
    meter_faults: tuple[Reason, ...] = ()
    warmup_unsettled: tuple[str, ...] = ()
    is_window_long_enough: bool = True
    is_extended: bool = False
    bound_tokens_per_s: float | None = None
    bound_tokens_per_joule: float | None = None
    num_constant_weights: int | None = None
    is_engine_untested: bool = False
    is_instrumented: bool = False
    is_dummy_weights: bool = False
    start_warnings: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything measured around one window.

    Attributes:
        open_ns: When the window was asked to open; it opens on each device's next tick.
        close_ns: When it was asked to close.
        point: The load.
        requests: Requests that touch the window.
        devices: Readings by device UUID that touch the window.
        client: What the client's workers say of themselves.
        host: The engine and its machine, seen from outside.
        counters: The engine's own counters, read before and after the window, never within.
        context: What else the row follows from; None in traces of schema version 1.
    """

    open_ns: int
    close_ns: int
    point: OperatingPoint
    requests: list[RequestRecord]
    devices: dict[str, DeviceReading]
    client: list[ClientSample] = field(default_factory=list)
    host: list[HostSample] = field(default_factory=list)
    counters: list[CounterSample] = field(default_factory=list)
    context: Context | None = None


def cut(trace: Trace) -> Trace:
    """Only what the window needs: requests that touch it or the reading of counters, and readings around it.

    Where the engine told its joules, ours reach from its first reading to its last.

    Of a request's events before the window the first (it gives TTFT and TPOT) and the last (it gives the count so
    far) stay.
    """
    start_ns = min([trace.open_ns, *(c.t_ns for c in trace.counters)])
    end_ns = max([trace.close_ns, *(c.t_ns for c in trace.counters)])
    energy_read_ns = [c.energy_t_ns for c in trace.counters if c.energy_t_ns is not None]
    from_ns, to_ns = min([trace.open_ns, *energy_read_ns]), max([trace.close_ns, *energy_read_ns])
    touching = [r for r in trace.requests if r.sent_ns < end_ns and (r.end_ns is None or r.end_ns >= start_ns)]
    return dataclasses.replace(
        trace,
        requests=[_thin(request, start_ns) for request in touching],
        devices={uuid: _cut_device(d, from_ns, to_ns) for uuid, d in trace.devices.items()},
        client=_touching(trace.client, trace.open_ns, trace.close_ns),
        host=_touching(trace.host, trace.open_ns, trace.close_ns),
    )


def _thin(request: RequestRecord, open_ns: int) -> RequestRecord:
    num_before = bisect_left(request.event_t_ns, open_ns)
    if num_before <= 2:
        return request
    return dataclasses.replace(
        request,
        event_t_ns=[request.event_t_ns[0], *request.event_t_ns[num_before - 1 :]],
        event_tokens=[request.event_tokens[0], *request.event_tokens[num_before - 1 :]],
    )


def _cut_device(device: DeviceReading, open_ns: int, close_ns: int) -> DeviceReading:
    return DeviceReading(
        ticks=_touching(device.ticks, open_ns, close_ns),
        samples=_touching(device.samples, open_ns, close_ns),
        states=_cut_states(device.states, open_ns, close_ns),
    )


def _cut_states(states: list[StateSample], open_ns: int, close_ns: int) -> list[StateSample]:
    """States around the window and, of every quantity, the answers next to it: a device may leave some out for long."""
    answering = [[s for s in states if getattr(s, name) is not None] for name in StateSample.__dataclass_fields__]
    kept = {s.t_ns: s for answers in answering for s in _touching(answers, open_ns, close_ns)}
    return [kept[t_ns] for t_ns in sorted(kept)]


def _touching(readings: list[T], open_ns: int, close_ns: int) -> list[T]:
    """Readings within the margin, and the next one on either side."""
    time_ns: Callable[[T], int] = attrgetter("t_ns")
    first = max(0, bisect_right(readings, open_ns - MARGIN_NS, key=time_ns) - 1)
    return readings[first : bisect_left(readings, close_ns + MARGIN_NS, key=time_ns) + 1]
