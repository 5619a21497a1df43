"""The evidence behind one row as one Parquet file of one line, and back: requests, energy readings, window.

Anyone can recompute the row from it. Times are nanoseconds on the monotonic clock of the machine that measured.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.load.protocol import RequestRecord
from pipeline.meter.protocol import DeviceReading, EnergyTick, PowerSample
from pipeline.record import SCHEMA_VERSION

MARGIN_NS = 2_000_000_000
"""Kept on either side of a window: more than the longest gap between power samples that is integrated over."""

T = TypeVar("T")

_PAIRS = pa.list_(pa.struct({"t_ns": pa.int64(), "ns": pa.int64()}))
_REQUEST = pa.struct({
    "index": pa.int64(), "isl_tokens": pa.int32(), "osl_tokens": pa.int32(),
    "sent_ns": pa.int64(), "end_ns": pa.int64(),
    "error": pa.string(), "event_after_us": pa.list_(pa.int64()), "event_tokens": pa.list_(pa.int32()),
})  # fmt: skip
_DEVICE = pa.struct({
    "uuid": pa.string(), "power_limit_w": pa.float64(),
    "ticks": pa.list_(pa.struct({"t_ns": pa.int64(), "energy_j": pa.float64()})),
    "samples": pa.list_(pa.struct({
        "t_ns": pa.int64(), "power_w": pa.float64(), "power_average_w": pa.float64(), "temperature_c": pa.float64(),
        "sm_clock_mhz": pa.float64()})),
    "throttle_ns": _PAIRS, "power_cap_ns": _PAIRS,
})  # fmt: skip
SCHEMA = pa.schema(
    {
        "row_id": pa.string(), "open_ns": pa.int64(), "close_ns": pa.int64(), "concurrency": pa.int64(),
        "requests": pa.list_(_REQUEST), "devices": pa.list_(_DEVICE),
    },
    {"schema_version": str(SCHEMA_VERSION), "record": "trace"},
)  # fmt: skip

PACKED_COLUMNS = (
    "requests.list.element.event_after_us.list.element",
    "requests.list.element.event_tokens.list.element",
)
"""Rising integers, most of the bytes: stored as differences they take 1.9 bytes an event instead of 5.7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything measured around one window.

    Attributes:
        open_ns: When the window was asked to open; it opens on each device's next tick.
        close_ns: When it was asked to close.
        concurrency: Requests the client meant to keep in flight.
        requests: Requests that touch the window.
        devices: Readings by device UUID that touch the window.
    """

    open_ns: int
    close_ns: int
    concurrency: int
    requests: list[RequestRecord]
    devices: dict[str, DeviceReading]


def to_table(trace: Trace, row_id: str) -> pa.Table:
    """A trace as an Arrow table of one line; event times are stored as whole microseconds after sending."""
    requests = [
        {
            "index": r.index, "isl_tokens": r.isl_tokens, "osl_tokens": r.osl_tokens, "sent_ns": r.sent_ns,
            "end_ns": r.end_ns, "error": r.error, "event_tokens": r.event_tokens,
            "event_after_us": [(t - r.sent_ns) // 1000 for t in r.event_t_ns],
        }
        for r in trace.requests
    ]  # fmt: skip
    devices = [
        {
            "uuid": uuid, "power_limit_w": d.power_limit_w,
            "ticks": [{"t_ns": t.t_ns, "energy_j": t.energy_j} for t in d.ticks],
            "samples": [{name: getattr(s, name) for name in s.__dataclass_fields__} for s in d.samples],
            "throttle_ns": [{"t_ns": t, "ns": n} for t, n in d.throttle_ns],
            "power_cap_ns": [{"t_ns": t, "ns": n} for t, n in d.power_cap_ns],
        }
        for uuid, d in trace.devices.items()
    ]  # fmt: skip
    line = {
        "row_id": row_id, "open_ns": trace.open_ns, "close_ns": trace.close_ns, "concurrency": trace.concurrency,
        "requests": requests, "devices": devices,
    }  # fmt: skip
    return pa.Table.from_pylist([line], schema=SCHEMA)


def from_table(table: pa.Table) -> Trace:
    """The trace that `to_table` stored."""
    (line,) = table.to_pylist()
    return Trace(
        open_ns=line["open_ns"],
        close_ns=line["close_ns"],
        concurrency=line["concurrency"],
        requests=[_request(values) for values in line["requests"]],
        devices={values["uuid"]: _device(values) for values in line["devices"]},
    )


def cut(trace: Trace) -> Trace:
    """Only what the window needs: requests that touch it, and readings around it.

    Of a request's events before the window the first (it gives TTFT and TPOT) and the last (it gives the count so
    far) stay.
    """
    touching = [
        r for r in trace.requests if r.sent_ns < trace.close_ns and (r.end_ns is None or r.end_ns >= trace.open_ns)
    ]
    return Trace(
        open_ns=trace.open_ns,
        close_ns=trace.close_ns,
        concurrency=trace.concurrency,
        requests=[_thin(request, trace.open_ns) for request in touching],
        devices={uuid: _cut_device(d, trace.open_ns, trace.close_ns) for uuid, d in trace.devices.items()},
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
    low, high = open_ns - MARGIN_NS, close_ns + MARGIN_NS

    def touching(readings: list[T], time_ns: Callable[[T], int]) -> list[T]:
        first = max(0, bisect_right(readings, low, key=time_ns) - 1)
        return readings[first : bisect_left(readings, high, key=time_ns) + 1]

    return DeviceReading(
        ticks=touching(device.ticks, attrgetter("t_ns")),
        samples=touching(device.samples, attrgetter("t_ns")),
        throttle_ns=touching(device.throttle_ns, itemgetter(0)),
        power_cap_ns=touching(device.power_cap_ns, itemgetter(0)),
        power_limit_w=device.power_limit_w,
    )


def _request(values: dict[str, Any]) -> RequestRecord:
    after_us = values.pop("event_after_us")
    record = RequestRecord(**values, event_t_ns=[values["sent_ns"] + t * 1000 for t in after_us])
    if record.end_ns is not None and record.error is None:
        record.end_ns = record.event_t_ns[-1]  # a completed request ends with its last token, which was rounded
    return record


def _device(values: dict[str, Any]) -> DeviceReading:
    return DeviceReading(
        ticks=[EnergyTick(**t) for t in values["ticks"]],
        samples=[PowerSample(**s) for s in values["samples"]],
        throttle_ns=[(p["t_ns"], p["ns"]) for p in values["throttle_ns"]],
        power_cap_ns=[(p["t_ns"], p["ns"]) for p in values["power_cap_ns"]],
        power_limit_w=values["power_limit_w"],
    )
