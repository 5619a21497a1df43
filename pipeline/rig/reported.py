"""Columns of what the engine says of itself in our units: its joules, tokens and times over the time between readings.

They stand beside ours and replace none of them. Readings lie before and after the window, so the time between them is
somewhat longer than the window.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.engine.observed import CounterSample
from pipeline.load.protocol import RequestRecord
from pipeline.meter.protocol import DeviceReading
from pipeline.rig.seen import growth
from pipeline.trace import Trace
from pipeline.vocabulary import Boundary


def reported_columns(trace: Trace, boundary: Boundary) -> dict[str, Any]:
    """What the engine counted from the last reading before the window to the last one after it.

    Requests that end at the moment of a reading may be counted on one side only, so a few of them are no disagreement.
    """
    before = [c for c in trace.counters if c.t_ns <= trace.open_ns]
    after = [c for c in trace.counters if c.t_ns >= trace.close_ns]
    devices = trace.devices if boundary is Boundary.GPU else {}
    return {
        **_energy_columns(trace, devices),
        **(_request_columns(trace.requests, before[-1], after[-1]) if before and after else _request_columns()),
    }


def _energy_columns(trace: Trace, devices: Mapping[str, DeviceReading]) -> dict[str, float | None]:
    """The engine's joules, and how far they are from ours; ours are interpolated at the times of its readings.

    Its counter is read between two ticks of the sensor and stands still there: a reading errs by a tick (0.1 s) of
    power at most.
    """
    known = [
        (c.energy_t_ns, c.energy_j) for c in trace.counters if c.energy_t_ns is not None and c.energy_j is not None
    ]
    before = [reading for reading in known if reading[0] <= trace.open_ns]
    spans = [
        (before[-1], after) for after in known if before and after[0] >= trace.close_ns and after[1] >= before[-1][1]
    ]
    if not spans:
        return {"engine_energy_j": None, "engine_energy_disagreement": None}
    metered = [span for span in spans if _metered_j(devices, span[0][0], span[1][0]) is not None]
    (from_ns, from_j), (to_ns, to_j) = (metered or spans)[-1]
    ours_j = _metered_j(devices, from_ns, to_ns)
    return {
        "engine_energy_j": to_j - from_j,
        "engine_energy_disagreement": (to_j - from_j) / ours_j - 1 if ours_j else None,
    }


def _metered_j(devices: Mapping[str, DeviceReading], from_ns: int, to_ns: int) -> float | None:
    """Our joules of all devices between two moments; None where the ticks of one do not reach both."""
    energies_j = []
    for device in devices.values():
        times_ns = [tick.t_ns for tick in device.ticks]
        if not times_ns or times_ns[0] > from_ns or times_ns[-1] < to_ns:
            return None
        at_from_j, at_to_j = np.interp([from_ns, to_ns], times_ns, [tick.energy_j for tick in device.ticks])
        energies_j.append(float(at_to_j - at_from_j))
    return sum(sorted(energies_j)) if energies_j else None


_NOTHING = CounterSample(t_ns=0)


def _request_columns(
    requests: Sequence[RequestRecord] = (), first: CounterSample = _NOTHING, last: CounterSample = _NOTHING
) -> dict[str, float | None]:
    """Of the requests that finished between two readings: their tokens against ours, and what the engine took."""
    generated = growth(first.finished_tokens, last.finished_tokens)
    received = sum(
        request.output_tokens
        for request in requests
        if request.is_completed and request.end_ns is not None and first.t_ns <= request.end_ns < last.t_ns
    )
    return {
        "finished_token_disagreement": generated / received - 1 if generated is not None and received else None,
        "engine_ttft_mean_s": _mean_s(first.num_ttfts, last.num_ttfts, first.ttft_sum_s, last.ttft_sum_s),
        "engine_queue_mean_s": _mean_s(first.num_queued, last.num_queued, first.queue_sum_s, last.queue_sum_s),
    }


def _mean_s(first: int | None, last: int | None, first_sum_s: float | None, last_sum_s: float | None) -> float | None:
    """Mean of what a histogram gathered between two readings."""
    count = growth(first, last)
    return (last_sum_s - first_sum_s) / count if count and first_sum_s is not None and last_sum_s is not None else None
