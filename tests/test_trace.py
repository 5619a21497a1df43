import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.observed import CounterSample, HostSample, ProcessSample
from pipeline.load.protocol import ClientSample, RequestRecord
from pipeline.meter.protocol import DeviceReading, EnergyTick, PowerSample, StateSample
from pipeline.rig.rows import measured
from pipeline.store import Store
from pipeline.trace import Context, Trace, cut
from pipeline.trace_file import ENCODINGS, SCHEMA, from_table, to_table
from pipeline.vocabulary import Boundary
from pipeline.workload import OperatingPoint
from tests.builders import SECOND_NS, make_request, make_row, make_study, steady_device

CONTEXT = Context(
    plan=make_study().plan, slo=make_study().slo, boundary=Boundary.GPU, num_gpus=1, bound_tokens_per_s=1e9
)
END_S = 20
EVENTS = ("first_event_ns", "event_gap_us", "event_request", "event_added_tokens")

times_ns = st.lists(st.integers(0, END_S * SECOND_NS), max_size=12, unique=True).map(sorted)
maybe = st.none() | st.floats(0, 1000)


@st.composite
def requests(draw: st.DrawFn) -> RequestRecord:
    times = draw(times_ns)
    steps = draw(st.lists(st.integers(1, 9), min_size=len(times), max_size=len(times)))
    fate = draw(st.sampled_from(["completed", "running", "failed"]))
    last_ns = times[-1] if times else draw(st.integers(0, END_S * SECOND_NS))
    ended = {"completed": last_ns if times else None, "running": None, "failed": draw(st.none() | st.just(last_ns + 7))}
    return RequestRecord(
        index=draw(st.integers(0, 10**6)),
        isl_tokens=draw(st.integers(1, 9999)),
        osl_tokens=draw(st.integers(1, 9999)),
        sent_ns=draw(st.integers(0, times[0] if times else last_ns)),
        event_t_ns=times,
        event_tokens=[sum(steps[: n + 1]) for n in range(len(steps))],
        end_ns=ended[fate],
        error="HTTP 500: broken" if fate == "failed" else None,
    )


@st.composite
def devices(draw: st.DrawFn) -> DeviceReading:
    """Readings at any times, dense or sparse: gaps of many seconds are likely."""
    dense = range(0, draw(st.sampled_from([0, END_S])) * SECOND_NS, SECOND_NS // 2)
    return DeviceReading(
        ticks=[EnergyTick(t, 100.0 * n) for n, t in enumerate(draw(times_ns))],
        samples=[PowerSample(t_ns=t, power_w=draw(maybe)) for t in sorted({*dense, *draw(times_ns)})],
        states=[
            StateSample(
                t_ns=t, temperature_c=draw(maybe), sm_clock_mhz=draw(maybe), power_limit_w=draw(maybe),
                thermal_ns=n * 10**7, power_cap_ns=n * 10**7, compute_pids=draw(st.none() | st.just((1, 2))),
            )
            for n, t in enumerate(draw(times_ns))
        ],
    )  # fmt: skip


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    open_ns, close_ns = sorted(draw(st.lists(st.integers(0, END_S * SECOND_NS), min_size=2, max_size=2, unique=True)))
    counters = [
        CounterSample(
            t_ns=t,
            output_tokens=n * 100,
            num_running=draw(maybe),
            energy_j=1000.0 + n,
            energy_t_ns=t,
            finished_tokens=90 * n,
            num_ttfts=n,
            ttft_sum_s=0.5 * n,
        )
        for n, t in enumerate(sorted([draw(st.integers(0, open_ns)), draw(st.integers(close_ns, END_S * SECOND_NS))]))
    ]
    processes = draw(st.none() | st.just((ProcessSample(pid=1, name="engine", cpu_s=2.0),)))
    return Trace(
        open_ns=open_ns,
        close_ns=close_ns,
        point=draw(st.sampled_from([OperatingPoint(concurrency=8), OperatingPoint(request_rate_per_s=2.5)])),
        requests=draw(st.lists(requests(), max_size=6)),
        devices={f"GPU-{n}": device for n, device in enumerate(draw(st.lists(devices(), max_size=2)))},
        client=[ClientSample(t_ns=t, worker=0, cpu_s=t * 1e-10, lag_s=0.001) for t in draw(times_ns)],
        host=[
            HostSample(t_ns=t, num_cores=2, busy_s=t * 1e-9, steal_s=0.0, processes=processes) for t in draw(times_ns)
        ],
        counters=draw(st.sampled_from([[], counters])),
        context=draw(st.sampled_from([None, CONTEXT])),
    )


def columns(trace: Trace) -> dict[str, Any]:
    return measured(trace, CONTEXT)


def timeless(request: RequestRecord) -> RequestRecord:
    return dataclasses.replace(request, event_t_ns=[], end_ns=None)


@given(traces())
@settings(max_examples=60)
def test_a_trace_comes_back_within_a_microsecond(trace: Trace) -> None:
    back = from_table(to_table(trace, "row"))
    assert dataclasses.replace(back, requests=[]) == dataclasses.replace(trace, requests=[])
    for stored, original in zip(back.requests, trace.requests, strict=True):
        assert all(0 <= s - t < 1000 for s, t in zip(stored.event_t_ns, original.event_t_ns, strict=True))
        assert (stored.end_ns is None) == (original.end_ns is None)
        if stored.end_ns is not None and original.end_ns is not None:
            assert 0 <= stored.end_ns - original.end_ns < 1000
        assert timeless(stored) == timeless(original)


@given(traces())
@settings(max_examples=60)
def test_what_is_stored_is_stored_exactly(trace: Trace) -> None:
    once = from_table(to_table(trace, "row"))
    assert from_table(to_table(once, "row")) == once


def version_1(requests: list[dict[str, Any]], **events: Any) -> pa.Table:
    """A trace of schema version 1; its events lie in its requests, or are given."""
    line = {"row_id": "row", "open_ns": 0, "close_ns": 1, "concurrency": 1, "requests": requests, "devices": []}
    return pa.Table.from_pylist([line | events]).replace_schema_metadata({"schema_version": "1", "record": "trace"})


@given(st.lists(requests(), max_size=5))
def test_a_trace_of_version_1_loses_nothing_with_its_events_in_one_list(some: list[RequestRecord]) -> None:
    untimed = [
        {name: getattr(r, name) for name in ("index", "isl_tokens", "osl_tokens", "sent_ns", "end_ns", "error")}
        for r in some
    ]
    own_events = [
        {"event_after_us": [(t - r.sent_ns) // 1000 for t in r.event_t_ns], "event_tokens": r.event_tokens}
        for r in some
    ]
    as_written = from_table(version_1([a | b for a, b in zip(untimed, own_events, strict=True)]))
    assert [r.event_tokens for r in as_written.requests] == [r.event_tokens for r in some]
    (line,) = to_table(as_written, "row").to_pylist()
    events = {name: line[name] for name in EVENTS}
    assert from_table(version_1(untimed, **events)) == as_written


@given(traces())
@settings(max_examples=60)
def test_a_cut_trace_gives_the_same_row_as_the_whole(trace: Trace) -> None:
    assert columns(cut(trace)) == columns(trace)


@given(traces())
@settings(max_examples=60)
def test_cutting_twice_is_cutting_once(trace: Trace) -> None:
    assert cut(cut(trace)) == cut(trace)


@given(traces())
@settings(max_examples=60)
def test_cutting_leaves_the_original_alone(trace: Trace) -> None:
    before = from_table(to_table(trace, "row"))
    cut(trace)
    assert from_table(to_table(trace, "row")) == before


def test_a_cut_trace_is_short() -> None:
    long = Trace(
        open_ns=500 * SECOND_NS,
        close_ns=510 * SECOND_NS,
        point=OperatingPoint(concurrency=1),
        requests=[make_request(10 * n, [(10 * n + m / 10, m) for m in range(1, 100)]) for n in range(100)],
        devices={"GPU-0": steady_device(300, 0, 1000)},
    )
    short = cut(long)
    assert 10 / 0.1 <= len(short.devices["GPU-0"].ticks) <= 16 / 0.1
    assert [request.sent_ns // SECOND_NS for request in short.requests] == [500]
    assert columns(short) == columns(long)
    assert columns(short)["gpu_energy_j"] == pytest.approx(3000)


def test_readings_much_rarer_than_the_margin_still_reach_over_the_window() -> None:
    rare = [StateSample(t_ns=t * SECOND_NS, thermal_ns=t * SECOND_NS // 20) for t in (0, 100)]
    device = dataclasses.replace(steady_device(300, 0, 100), states=rare)
    trace = Trace(
        open_ns=40 * SECOND_NS,
        close_ns=60 * SECOND_NS,
        point=OperatingPoint(concurrency=1),
        requests=[],
        devices={"GPU-0": device},
    )
    assert columns(cut(trace))["throttle_s"] == columns(trace)["throttle_s"] == pytest.approx(1)


def test_a_quantity_that_is_seldom_answered_still_reaches_over_the_window() -> None:
    limited = StateSample(t_ns=0, power_limit_w=500.0, compute_pids=(7,))
    silent = [StateSample(t_ns=t * SECOND_NS, temperature_c=40.0) for t in range(1, 100)]
    device = dataclasses.replace(steady_device(300, 0, 100), states=[limited, *silent])
    trace = Trace(
        open_ns=40 * SECOND_NS,
        close_ns=60 * SECOND_NS,
        point=OperatingPoint(concurrency=1),
        requests=[],
        devices={"GPU-0": device},
    )
    short = cut(trace)
    assert len(short.devices["GPU-0"].states) == 1 + len(range(38, 63))
    assert columns(short)["power_limit_w"] == 500
    assert columns(short) == columns(trace)


def test_a_request_that_ends_as_the_window_opens_is_in_it() -> None:
    trace = Trace(
        open_ns=5 * SECOND_NS,
        close_ns=9 * SECOND_NS,
        point=OperatingPoint(concurrency=1),
        requests=[make_request(3, [(4, 1), (5, 2)])],
        devices={"GPU-0": steady_device(300, 0, 20, period_s=1)},
    )
    assert columns(trace)["num_completed"] == 1
    assert columns(cut(trace)) == columns(trace)


def encodings(path: Path) -> dict[str, str]:
    """Of every column of a Parquet file that is not stored plainly."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    return {c.path_in_schema: e for c in columns for e in c.encodings if e not in ("RLE", "PLAIN")}


def test_a_row_can_be_computed_again_from_its_file(tmp_path: Path) -> None:
    trace = cut(
        Trace(
            open_ns=5 * SECOND_NS,
            close_ns=15 * SECOND_NS,
            point=OperatingPoint(concurrency=1),
            requests=[make_request(n, [(n + 0.123456789 * m, m) for m in range(1, 8)]) for n in range(20)],
            devices={"GPU-0": steady_device(300, 0, 20), "GPU-1": steady_device(200, 0.03, 20)},
        )
    )
    table = to_table(trace, "row")
    trace_file, sha = Store(tmp_path).append_trace(table, "test", "row", ENCODINGS)
    read = Store(tmp_path).read_trace(make_row(trace_file=trace_file, trace_sha256=sha))
    assert read.schema.equals(SCHEMA)
    assert encodings(tmp_path / trace_file) == ENCODINGS
    assert from_table(read) == from_table(table)
    assert columns(from_table(read)) == columns(from_table(table))


def test_a_request_of_hours_is_stored() -> None:
    slow = make_request(0, [(1, 1), (7200, 2)])
    trace = Trace(
        open_ns=0, close_ns=7201 * SECOND_NS, point=OperatingPoint(concurrency=1), requests=[slow], devices={}
    )
    assert from_table(to_table(trace, "row")).requests == [slow]
