"""A trace as one Parquet file of one line, and back.

The events of all requests lie in one list in order of time, each with the time since the one before: an engine answers
a whole batch at once, so these differences are small and alike, and take a third of what each request's own would.

Version 1 kept each request's own times, in whole microseconds after it was sent. Its traces are read as they were
written, and with their events in one list: less than a microsecond earlier than the list says, and a whole number of
them after the request was sent, is one time only, so that nothing is lost.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.columns import SCHEMA_VERSION, arrow_type
from pipeline.engine.observed import CounterSample, HostSample, ProcessSample
from pipeline.engine_config import canonical_json
from pipeline.load.protocol import ClientSample, RequestRecord
from pipeline.meter.protocol import DeviceReading, EnergyTick, PowerSample, StateSample
from pipeline.trace import Context, Trace
from pipeline.workload import OperatingPoint


def _struct(kind: Any, **nested: pa.DataType) -> pa.StructType:
    """The Arrow struct of a sample's dataclass, whose nested fields are given."""
    return pa.struct({f.name: nested.get(f.name) or arrow_type(f.type)[0] for f in dataclasses.fields(kind)})


_REQUEST = pa.struct({
    "index": pa.int64(), "isl_tokens": pa.int32(), "osl_tokens": pa.int32(),
    "sent_ns": pa.int64(), "end_ns": pa.int64(), "due_ns": pa.int64(), "error": pa.string(),
    "num_uncounted": pa.int32(),
})  # fmt: skip
_DEVICE = pa.struct({
    "uuid": pa.string(),
    "ticks": pa.list_(_struct(EnergyTick)),
    "samples": pa.list_(_struct(PowerSample)),
    "states": pa.list_(_struct(StateSample, compute_pids=pa.list_(pa.int64()))),
})  # fmt: skip
SCHEMA = pa.schema(
    {
        "row_id": pa.string(), "open_ns": pa.int64(), "close_ns": pa.int64(),
        "concurrency": pa.int64(), "request_rate_per_s": pa.float64(),
        "requests": pa.list_(_REQUEST), "devices": pa.list_(_DEVICE),
        "first_event_ns": pa.int64(),
        "event_gap_us": pa.list_(pa.int64()),
        "event_request": pa.list_(pa.int32()),
        "event_added_tokens": pa.list_(pa.int32()),
        "client": pa.list_(_struct(ClientSample)),
        "host": pa.list_(_struct(HostSample, processes=pa.list_(_struct(ProcessSample)))),
        "counters": pa.list_(_struct(CounterSample)),
        "context_json": pa.string(),
    },
    metadata={"schema_version": str(SCHEMA_VERSION), "record": "trace"},
)  # fmt: skip


def _integers(kind: pa.DataType, path: str) -> Iterator[str]:
    """Paths of the integers in a column, as Parquet names them."""
    if pa.types.is_integer(kind):
        yield path
    elif pa.types.is_list(kind):
        yield from _integers(kind.value_type, f"{path}.list.element")
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _integers(field.type, f"{path}.{field.name}")


ENCODINGS = {path: "DELTA_BINARY_PACKED" for field in SCHEMA for path in _integers(field.type, field.name)} | {
    f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("event_gap_us", "event_request", "event_added_tokens")
}
"""Times and counts grow in small steps. Events are differences already: bytes of equal rank side by side, most of them
zero, vanish when compressed; 0.7 bytes an event in all."""

_CONTEXT = TypeAdapter(Context)


def to_table(trace: Trace, row_id: str) -> pa.Table:
    """A trace as an Arrow table of one line; event times are stored as whole microseconds, rounded up."""
    names = _REQUEST.names
    devices = [
        {"uuid": uuid, "ticks": _plain(d.ticks), "samples": _plain(d.samples), "states": _plain(d.states)}
        for uuid, d in trace.devices.items()
    ]
    line = {
        "row_id": row_id, "open_ns": trace.open_ns, "close_ns": trace.close_ns,
        "concurrency": trace.point.concurrency, "request_rate_per_s": trace.point.request_rate_per_s,
        "requests": [{name: getattr(request, name) for name in names} for request in trace.requests],
        **_packed_events(trace.requests),
        "devices": devices, "client": _plain(trace.client), "host": _plain(trace.host),
        "counters": _plain(trace.counters),
        "context_json": trace.context and canonical_json(_CONTEXT.dump_python(trace.context, mode="json")),
    }  # fmt: skip
    return pa.Table.from_pylist([line], schema=SCHEMA)


def from_table(table: pa.Table) -> Trace:
    """The trace that `to_table` stored; what a version 1 trace does not hold is empty."""
    (line,) = table.to_pylist()
    context_json = line.get("context_json")
    is_version_1 = table.schema.metadata[b"schema_version"] == b"1"
    return Trace(
        open_ns=line["open_ns"],
        close_ns=line["close_ns"],
        point=OperatingPoint(concurrency=line["concurrency"], request_rate_per_s=line.get("request_rate_per_s")),
        requests=_requests(line, is_version_1=is_version_1),
        devices={values["uuid"]: _device(values) for values in line["devices"]},
        client=[ClientSample(**values) for values in line.get("client") or ()],
        host=[_host_sample(values) for values in line.get("host") or ()],
        counters=[CounterSample(**values) for values in line.get("counters") or ()],
        context=None if context_json is None else _CONTEXT.validate_json(context_json),
    )


def _packed_events(requests: Sequence[RequestRecord]) -> dict[str, Any]:
    """The events of all requests in order of time: microseconds since the last one, whose it is, tokens it added."""
    counts = [len(request.event_t_ns) for request in requests]
    if not sum(counts):
        return {"first_event_ns": None, "event_gap_us": [], "event_request": [], "event_added_tokens": []}
    times_ns = np.concatenate([np.asarray(request.event_t_ns, dtype=np.int64) for request in requests])
    added = np.concatenate([np.diff(np.asarray(r.event_tokens, dtype=np.int64), prepend=0) for r in requests])
    order = np.argsort(times_ns, kind="stable")
    first_ns = int(times_ns[order[0]])
    times_us = -((first_ns - times_ns[order]) // 1000)  # rounded up: none before its request was sent
    return {
        "first_event_ns": first_ns,
        "event_gap_us": np.diff(times_us, prepend=0),
        "event_request": np.repeat(np.arange(len(requests)), counts)[order],
        "event_added_tokens": added[order],
    }


def _requests(line: dict[str, Any], *, is_version_1: bool) -> list[RequestRecord]:
    """Requests with their events; a completed one ends with its last token, which was rounded."""
    requests = line["requests"]
    if "event_gap_us" in line:
        times_ns = (line["first_event_ns"] or 0) + 1000 * np.cumsum(np.asarray(line["event_gap_us"], dtype=np.int64))
        whose = np.asarray(line["event_request"], dtype=np.int64)
        if is_version_1:
            sent_ns = np.asarray([values["sent_ns"] for values in requests], dtype=np.int64)
            times_ns -= (times_ns - sent_ns[whose]) % 1000
        order = np.argsort(whose, kind="stable")
        edges = np.cumsum(np.bincount(whose, minlength=len(requests)))[:-1]
        times = np.split(times_ns[order], edges)
        tokens = np.split(np.asarray(line["event_added_tokens"], dtype=np.int64)[order], edges)
        events = [(t.tolist(), np.cumsum(n).tolist()) for t, n in zip(times, tokens, strict=True)]
    else:  # version 1, as it was written
        events = [
            ([values["sent_ns"] + after * 1000 for after in values.pop("event_after_us")], values.pop("event_tokens"))
            for values in requests
        ]
    records = []
    for values, (event_t_ns, event_tokens) in zip(requests, events, strict=False):  # without requests, no events
        record = RequestRecord(**values, event_t_ns=event_t_ns, event_tokens=event_tokens)
        if record.end_ns is not None and record.error is None:
            record.end_ns = event_t_ns[-1]
        records.append(record)
    return records


def _plain(samples: Sequence[Any]) -> list[dict[str, Any]]:
    """Samples as dicts."""
    return [dataclasses.asdict(sample) for sample in samples]


def _host_sample(values: dict[str, Any]) -> HostSample:
    processes = values.pop("processes")
    return HostSample(**values, processes=None if processes is None else tuple(ProcessSample(**p) for p in processes))


def _device(values: dict[str, Any]) -> DeviceReading:
    if "states" not in values:
        return _device_of_version_1(values)
    return DeviceReading(
        ticks=[EnergyTick(**tick) for tick in values["ticks"]],
        samples=[PowerSample(**sample) for sample in values["samples"]],
        states=[
            StateSample(**{**state, "compute_pids": None if pids is None else tuple(pids)})
            for state in values["states"]
            for pids in [state["compute_pids"]]
        ],
    )


def _device_of_version_1(values: dict[str, Any]) -> DeviceReading:
    """State was spread over the power samples, and heat and power brake were one counter, kept as heat here."""
    power = ("t_ns", "power_w", "power_average_w")
    states = [
        StateSample(t_ns=s["t_ns"], temperature_c=s["temperature_c"], sm_clock_mhz=s["sm_clock_mhz"])
        for s in values["samples"]
        if s["temperature_c"] is not None or s["sm_clock_mhz"] is not None
    ]
    limit_w = values["power_limit_w"]
    states += [StateSample(t_ns=p["t_ns"], thermal_ns=p["ns"], power_limit_w=limit_w) for p in values["throttle_ns"]]
    states += [StateSample(t_ns=p["t_ns"], power_cap_ns=p["ns"], power_limit_w=limit_w) for p in values["power_cap_ns"]]
    return DeviceReading(
        ticks=[EnergyTick(**tick) for tick in values["ticks"]],
        samples=[PowerSample(**{name: sample[name] for name in power}) for sample in values["samples"]],
        states=sorted(states, key=attrgetter("t_ns")),
    )
