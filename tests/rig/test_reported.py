"""What the engine says of itself, against what the client and the meter saw over the same time."""

import dataclasses
from typing import Any

import pytest

from pipeline.engine.observed import CounterSample
from pipeline.meter.protocol import DeviceReading
from pipeline.rig.reported import reported_columns
from pipeline.trace import Trace, cut
from pipeline.trace_file import from_table, to_table
from pipeline.vocabulary import Boundary
from pipeline.workload import OperatingPoint
from tests.builders import SECOND_NS, make_request, steady_device

REQUESTS = [make_request(n - 10, [(n - 10 + 0.1 * m, m) for m in range(1, 11)]) for n in range(50)]
"""One request a second from -10 s on, ten tokens each; the one sent at n ends at n + 1."""


def counted(t_s: float, **values: Any) -> CounterSample:
    return CounterSample(t_ns=round(t_s * SECOND_NS), **values)


def joules(t_s: float, energy_j: float) -> CounterSample:
    """A reading of joules a little before that of the counters."""
    return counted(t_s + 0.01, energy_j=energy_j, energy_t_ns=round(t_s * SECOND_NS))


def trace(*counters: CounterSample, devices: dict[str, DeviceReading] | None = None) -> Trace:
    """Twenty seconds; two devices of 300 W and 100 W, read from -10 s to 40 s."""
    both = {"GPU-0": steady_device(300, -10, 40), "GPU-1": steady_device(100, -10, 40)}
    return Trace(
        open_ns=0, close_ns=20 * SECOND_NS, point=OperatingPoint(concurrency=1), requests=REQUESTS,
        devices=both if devices is None else devices, counters=list(counters),
    )  # fmt: skip


def columns(made: Trace, boundary: Boundary = Boundary.GPU) -> dict[str, Any]:
    return reported_columns(made, boundary)


def energy(made: Trace, boundary: Boundary = Boundary.GPU) -> tuple[float | None, float | None]:
    found = columns(made, boundary)
    return found["engine_energy_j"], found["engine_energy_disagreement"]


def test_joules_are_compared_over_the_time_between_the_readings_and_not_the_window() -> None:
    made = trace(joules(-5, 50_000), joules(-0.53, 51_000), joules(21, 51_000 + 400 * 21.53), joules(25, 99_000))
    assert energy(dataclasses.replace(made, counters=made.counters[:3])) == pytest.approx((400 * 21.53, 0), abs=1e-9)
    total_j, disagreement = energy(made)
    assert total_j == pytest.approx(48_000)
    assert disagreement == pytest.approx(48_000 / (400 * 25.53) - 1)


def test_joules_are_ours_interpolated_between_ticks() -> None:
    assert energy(trace(joules(-0.02, 0), joules(20.07, 400 * 20.09 * 1.01)))[1] == pytest.approx(0.01)


def test_a_cut_and_stored_trace_gives_the_same_columns() -> None:
    made = trace(
        joules(-0.5, 100), counted(-0.4, finished_tokens=7, num_ttfts=1, ttft_sum_s=0.5), joules(28, 11_500),
        counted(28.2, finished_tokens=300, num_ttfts=30, ttft_sum_s=8.5),
    )  # fmt: skip
    found = columns(made)
    assert None not in {found["engine_energy_disagreement"], found["finished_token_disagreement"]}
    assert columns(from_table(to_table(cut(made), "row"))) == pytest.approx(found)


def test_a_last_reading_that_our_ticks_do_not_reach_gives_way_to_the_one_before() -> None:
    devices = {"GPU-0": steady_device(300, -10, 22)}
    made = trace(joules(-1, 0), joules(21, 300 * 22), joules(22.05, 9_000), devices=devices)
    assert energy(made) == pytest.approx((6_600, 0), abs=1e-9)


@pytest.mark.parametrize("devices", [{}, {"GPU-0": DeviceReading()}, {"GPU-0": steady_device(300, -0.1, 40)}])
def test_joules_that_ours_do_not_cover_are_kept_without_a_comparison(devices: dict[str, DeviceReading]) -> None:
    made = trace(joules(-0.5, 10), joules(21, 110), devices=devices)
    assert energy(made) == (100, None)


def test_joules_of_gpus_are_not_compared_with_those_of_a_cpu() -> None:
    assert energy(trace(joules(-0.5, 10), joules(21, 110)), Boundary.CPU) == (100, None)


@pytest.mark.parametrize(
    "readings",
    [
        (),
        (joules(-1, 10),),
        (joules(21, 10),),
        (joules(1, 10), joules(21, 20)),
        (joules(-1, 10), joules(19, 20)),
        (joules(-1, 10), joules(21, 9)),  # started anew
        (counted(-1, num_running=1.0), counted(21, num_running=1.0)),
    ],
)
def test_without_a_reading_on_either_side_nothing_is_said(readings: tuple[CounterSample, ...]) -> None:
    assert energy(trace(*readings)) == (None, None)


def test_tokens_are_compared_over_requests_that_finished_between_the_readings() -> None:
    before, after = counted(-0.5, finished_tokens=1000), counted(21.5, finished_tokens=1220)
    made = trace(before, counted(20.5, finished_tokens=1210), after)  # ends at 0 s, 1 s ... 21 s
    assert columns(made)["finished_token_disagreement"] == pytest.approx(0)
    more = dataclasses.replace(after, finished_tokens=1231)
    assert columns(trace(before, more))["finished_token_disagreement"] == pytest.approx(0.05)
    failed = [dataclasses.replace(request, error="reset") for request in REQUESTS[:20]]
    made = dataclasses.replace(trace(before, after), requests=[*failed, *REQUESTS[20:]])
    assert columns(made)["finished_token_disagreement"] == pytest.approx(220 / 110 - 1)  # of the failed, none counts


def test_times_are_means_of_what_was_added_between_the_readings() -> None:
    before = counted(-0.5, num_ttfts=10, ttft_sum_s=9.0, num_queued=10, queue_sum_s=0.0)
    after = counted(21, num_ttfts=30, ttft_sum_s=10.0, num_queued=20, queue_sum_s=0.0)
    found = columns(trace(before, after))
    assert found["engine_ttft_mean_s"] == pytest.approx(0.05)
    assert found["engine_queue_mean_s"] == 0


@pytest.mark.parametrize(
    "after",
    [
        counted(21),
        counted(21, num_ttfts=10, ttft_sum_s=1.0, finished_tokens=100),  # none finished
        counted(21, num_ttfts=9, ttft_sum_s=0.5, finished_tokens=9),  # started anew
        counted(-0.2, num_ttfts=20, ttft_sum_s=2.0, finished_tokens=200),
    ],
)
def test_without_a_finished_request_no_time_is_invented(after: CounterSample) -> None:
    found = columns(trace(counted(-0.5, num_ttfts=10, ttft_sum_s=1.0, finished_tokens=100), after))
    assert found["engine_ttft_mean_s"] is None
    assert found["engine_queue_mean_s"] is None
    assert found["finished_token_disagreement"] in {None, -1}
