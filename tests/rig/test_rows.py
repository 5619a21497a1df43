import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.engine.observed import CounterSample, HostSample, ProcessSample
from pipeline.engine_config import EngineConfig
from pipeline.load.protocol import ClientSample, RequestRecord
from pipeline.meter.protocol import DeviceReading, StateSample
from pipeline.record import Row
from pipeline.rig.rows import identity, measured, utc
from pipeline.rig.seen import has_foreign_process, has_uncounted_tokens
from pipeline.study import Plan
from pipeline.trace import Context, Trace
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus
from pipeline.workload import OperatingPoint
from tests.builders import MODELLED, SECOND_NS, make_request, make_row, make_study, steady_device

PLAN = make_study(*MODELLED, "plan=quick").plan
DEMO = make_study().plan
NO_SLO = make_study("slo=none").slo


def columns(made: Trace, plan: Plan = PLAN, boundary: Boundary = Boundary.GPU, **context: Any) -> dict[str, Any]:
    """What a trace gives in a context whose devices are as many as the trace has."""
    num_gpus = len(made.devices) if boundary is Boundary.GPU else 0
    given: dict[str, Any] = {"plan": plan, "slo": NO_SLO, "boundary": boundary, "num_gpus": num_gpus}
    return measured(made, Context(**given | context))


def with_states(**values: Any) -> dict[str, DeviceReading]:
    """A device whose state changes from its first sample to its last."""
    steady = steady_device(300, -3, 23)
    names = {name: value if isinstance(value, tuple) else (value, value) for name, value in values.items()}
    ends = [
        StateSample(t_ns=t * SECOND_NS, **{name: v[n] for name, v in names.items()}) for n, t in enumerate((-3, 23))
    ]
    return {"GPU-0": dataclasses.replace(steady, states=ends)}


REQUESTS = [make_request(n - 10, [(n - 10 + 0.1 * m, m) for m in range(1, 11)]) for n in range(40)]
"""One request a second, ten tokens each, one in flight."""


def trace(
    devices: dict[str, DeviceReading] | None = None, requests: list[RequestRecord] | None = None, concurrency: int = 1
) -> Trace:
    return Trace(
        open_ns=round(0.05 * SECOND_NS),
        close_ns=round(20.05 * SECOND_NS),
        point=OperatingPoint(concurrency=concurrency),
        requests=REQUESTS if requests is None else requests,
        devices={"GPU-0": steady_device(300, -3, 23)} if devices is None else devices,
    )


def test_the_window_is_the_meters_and_both_sides_share_it() -> None:
    row = columns(trace(), bound_tokens_per_s=11.0)
    assert row["window_s"] == pytest.approx(19.9)
    assert row["gpu_energy_j"] == pytest.approx(300 * 19.9)
    assert row["output_tokens"] == 199
    assert row["output_tokens_per_s"] == pytest.approx(10)
    assert row["power_w"] == pytest.approx(300)
    assert row["output_tokens_per_joule"] == pytest.approx(199 / (300 * 19.9))
    assert row["output_tokens_per_joule"] * row["gpu_energy_j"] == pytest.approx(row["output_tokens"])
    assert (row["status"], row["reasons"]) == (RowStatus.OK, ())
    assert row["warnings"] == (Reason.ALIASING_RISK,)  # a token every 100 ms, as often as the sensor looks


def test_every_column_is_one_of_the_row_and_holds_a_number_or_null() -> None:
    for made in (trace(), trace(devices={}), trace(requests=[])):
        found = columns(made)
        assert set(found) < set(Row.schema().names)
        row = make_row(**found)
        assert Row.from_dict(row.to_dict()) == row


def test_the_second_reading_and_the_state_of_the_device_are_kept() -> None:
    row = columns(trace())
    assert row["gpu_energy_integral_j"] == pytest.approx(row["gpu_energy_j"])
    assert row["gpu_temperature_mean_c"] == pytest.approx(50)
    assert row["sm_clock_mean_mhz"] == pytest.approx(1500)
    assert row["power_limit_w"] == 700
    assert row["throttle_s"] == 0
    assert row["power_cap_s"] == pytest.approx(1.99)
    assert row["output_tokens_per_joule_rel_ci95"] == pytest.approx(0, abs=0.05)
    assert row["num_blocks"] >= 8


def test_devices_are_added_up_over_the_time_they_share() -> None:
    both = {"GPU-0": steady_device(300, -3, 23), "GPU-1": steady_device(100, -2.97, 23.03)}
    row = columns(trace(both))
    assert row["power_w"] == pytest.approx(400)
    assert row["gpu_energy_j"] == pytest.approx(400 * row["window_s"])
    assert row["window_s"] < 20
    assert row["gpu_energy_integral_j"] == pytest.approx(row["gpu_energy_j"], rel=1e-6)
    assert row["power_limit_w"] == 1400


def test_a_second_reading_that_one_device_lacks_is_unknown_and_not_a_part_of_it() -> None:
    silent = dataclasses.replace(steady_device(100, -3, 23), samples=[], states=[])
    row = columns(trace({"GPU-0": steady_device(300, -3, 23), "GPU-1": silent}))
    assert row["gpu_energy_integral_j"] is None
    assert row["power_limit_w"] is None
    assert row["gpu_energy_j"] is not None


@pytest.mark.parametrize(
    "devices",
    [
        {},
        {"GPU-0": DeviceReading()},
        {"GPU-0": steady_device(300, -3, 23), "GPU-1": DeviceReading()},
        {"GPU-0": steady_device(300, -3, 0)},
    ],
)
def test_without_energy_the_load_is_still_told_and_no_joule_is_invented(devices: dict[str, DeviceReading]) -> None:
    row = columns(trace(devices))
    assert row["reasons"] == (Reason.NO_ENERGY,)
    assert row["status"] is RowStatus.INVALID
    assert row["window_s"] == pytest.approx(20)
    assert row["output_tokens"] == 200
    for name in ("gpu_energy_j", "cpu_energy_j", "power_w", "output_tokens_per_joule", "total_tokens_per_joule",
                 "output_tokens_per_joule_rel_ci95"):  # fmt: skip
        assert row[name] is None, name


def test_the_sum_over_no_devices_is_unknown() -> None:
    row = columns(trace({}))
    for name in ("gpu_energy_integral_j", "power_limit_w", "throttle_s", "power_cap_s", "gpu_temperature_mean_c"):
        assert row[name] is None, name


def test_a_counter_that_stands_still_gives_no_infinite_efficiency() -> None:
    row = columns(trace({"GPU-0": steady_device(0, -3, 23)}))
    assert Reason.NO_ENERGY in row["reasons"]
    assert row["output_tokens_per_joule"] is None
    assert row["total_tokens_per_joule"] is None
    assert row["output_tokens_per_joule_rel_ci95"] is None


def test_a_counter_that_runs_backwards_gives_no_negative_efficiency() -> None:
    row = columns(trace({"GPU-0": steady_device(-300, -3, 23)}))
    assert Reason.NO_ENERGY in row["reasons"]
    assert row["output_tokens_per_joule"] is None
    assert row["total_tokens_per_joule"] is None


@pytest.mark.parametrize("plan", [PLAN, DEMO])
def test_what_a_faulty_meter_gave_is_no_energy_of_the_window(plan: Plan) -> None:
    row = columns(trace(), plan, meter_faults=(Reason.COUNTER_RESET,))
    assert row["reasons"] == (Reason.COUNTER_RESET, Reason.NO_ENERGY)
    assert (row["gpu_energy_j"], row["power_w"], row["output_tokens_per_joule"]) == (None, None, None)
    assert row["output_tokens"] == 200


def test_energy_without_tokens_is_kept_and_not_scored() -> None:
    row = columns(trace(requests=[]))
    assert Reason.NO_TOKENS in row["reasons"]
    assert row["gpu_energy_j"] is not None
    assert row["output_tokens_per_joule"] is None
    assert row["total_tokens_per_joule"] is None
    assert row["ttft_p50_s"] is None
    assert row["output_tokens_per_s_per_user"] is None


def test_energy_lands_on_the_side_of_its_boundary() -> None:
    gpu, cpu = (columns(trace(), boundary=boundary) for boundary in (Boundary.GPU, Boundary.CPU))
    assert cpu["cpu_energy_j"] == gpu["gpu_energy_j"]
    assert (cpu["gpu_energy_j"], cpu["gpu_energy_integral_j"], gpu["cpu_energy_j"]) == (None, None, None)
    assert cpu["output_tokens_per_joule"] == gpu["output_tokens_per_joule"]


@pytest.mark.parametrize(
    ("made", "arguments", "reason"),
    [
        (trace(), {"bound_tokens_per_s": 9.9}, Reason.ABOVE_PHYSICAL_BOUND),
        (trace(), {"bound_tokens_per_joule": 0.033}, Reason.ABOVE_PHYSICAL_BOUND),
        (trace(), {"num_gpus": 2}, Reason.GPU_COUNT_MISMATCH),
        (trace(), {"num_constant_weights": 1}, Reason.WEIGHTS_CONSTANT),
        (trace(with_states(thermal_ns=(0, 1))), {}, Reason.THROTTLED_THERMAL),
        (trace(with_states(brake_ns=(0, 1))), {}, Reason.POWER_BRAKE),
        (trace(with_states(power_limit_w=(700.0, 650.0))), {}, Reason.LIMIT_CHANGED),
        (trace(concurrency=2), {}, Reason.OCCUPANCY_LOW),
        (trace(requests=[*REQUESTS, make_request(5, [], error="broken")]), {}, Reason.ERROR_RATE),
        (
            trace(
                {"GPU-0": dataclasses.replace(steady_device(300, -3, 23), samples=steady_device(310, -3, 23).samples)}
            ),
            {},
            Reason.READING_DISAGREEMENT,
        ),
    ],
)
def test_the_verdict_sees_what_happened(made: Trace, arguments: dict[str, Any], reason: Reason) -> None:
    assert columns(made, **arguments)["reasons"] == (reason,)
    demo = columns(made, DEMO, **arguments)
    fatal = {Reason.ABOVE_PHYSICAL_BOUND, Reason.GPU_COUNT_MISMATCH, Reason.WEIGHTS_CONSTANT}
    assert set(demo["reasons"]) == {reason} & fatal


@pytest.mark.parametrize(("per_second", "steady"), [(20, True), (26, False), (14, False)])
def test_a_rate_that_rises_or_falls_all_along_is_not_steady(per_second: int, steady: bool) -> None:
    """From 20 tokens in the first second to `per_second` in the last."""
    rates = [20 + (per_second - 20) * n / 19 for n in range(-1, 21)]
    times = [n - 1 + (m + 0.5) / round(rate) for n, rate in enumerate(rates) for m in range(round(rate))]
    stream = make_request(-2, [(t_s, n) for n, t_s in enumerate(times, start=1)], ended=False)
    assert (Reason.NOT_STEADY not in columns(trace(requests=[stream]))["reasons"]) is steady


def test_identity_says_which_case_a_row_is_of() -> None:
    study = make_study(*MODELLED)
    config = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": 4, "parallelism.pp": 2})
    point = OperatingPoint(concurrency=16)
    row = identity(study, config, point, "t1")
    assert set(row) < set(Row.schema().names)
    assert row["num_gpus"] == 8
    assert row["concurrency"] == 16
    assert row["config_hash"] == config.config_hash
    assert row["case_id"] == study.case_id(config, point)
    assert row["config_json"] == '{"parallelism.pp":2,"parallelism.tp":4,"precision.weights":"fp4"}'
    assert (row["weights"], row["study_id"], row["trial_id"]) == ("none", "test", "t1")


def test_a_cpu_reserves_no_gpus() -> None:
    config = EngineConfig.from_axes("openvino", {"precision.weights": "bf16"})
    assert identity(make_study(), config, OperatingPoint(concurrency=1), "t")["num_gpus"] == 0


def test_utc_goes_back_from_now_by_the_monotonic_distance() -> None:
    now = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    assert utc(40 * SECOND_NS, 100 * SECOND_NS, now) == "2026-05-04T03:01:01.000+00:00"


def test_rows_of_this_module_claim_no_evidence() -> None:
    assert "evidence" not in columns(trace())
    assert make_row().evidence is Evidence.MEASURED


def test_a_hole_in_the_second_reading_is_no_agreement() -> None:
    whole = steady_device(300, -3, 23)
    holed = dataclasses.replace(whole, samples=[s for s in whole.samples if not 8e9 < s.t_ns < 11e9])
    assert columns(trace({"GPU-0": whole}))["status"] is RowStatus.OK
    row = columns(trace({"GPU-0": whole, "GPU-1": holed}))
    assert row["reasons"] == (Reason.SAMPLE_GAP,)
    assert row["gpu_energy_integral_j"] is None


def test_the_longest_throttling_is_unknown_where_one_device_is() -> None:
    known, unknown = with_states(thermal_ns=0)["GPU-0"], with_states(thermal_ns=None)["GPU-0"]
    assert columns(trace({"GPU-0": known}))["throttle_s"] == 0
    assert columns(trace({"GPU-0": known, "GPU-1": unknown}))["throttle_s"] is None


def host(t_s: float, **values: Any) -> HostSample:
    return HostSample(t_ns=round(t_s * SECOND_NS), num_cores=16, busy_s=4 * t_s, steal_s=0.0, **values)


def test_the_host_and_the_client_are_seen_over_the_window() -> None:
    made = dataclasses.replace(
        trace(),
        host=[
            host(t, processes=(ProcessSample(pid=7, name="engine", cpu_s=100 + 1.5 * t),), num_cached_kernels=50,
                 num_compile_lines=3)
            for t in range(-2, 23)
        ],
        client=[
            ClientSample(t_ns=t * SECOND_NS // 10, worker=worker, cpu_s=0.01 * t * (1 + worker), lag_s=0.001)
            for t in range(-20, 230) for worker in (0, 1)
        ],
    )  # fmt: skip
    row = columns(made)
    assert row["status"] is RowStatus.OK
    assert row["engine_cpu_s"] == pytest.approx(1.5 * row["window_s"])
    assert row["host_busy_share"] == pytest.approx(0.25)
    assert (row["host_steal_share"], row["num_new_kernels"], row["num_compile_lines"]) == (0, 0, 0)
    assert row["client_core_share"] == pytest.approx(0.2)
    assert row["client_cpu_s"] == pytest.approx(0.3 * row["window_s"])
    assert row["client_lag_p99_s"] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_cached_kernels": (50, 51)}, Reason.KERNELS_COMPILING),
        ({"num_compile_lines": (0, 2)}, Reason.KERNELS_COMPILING),
    ],
)
def test_kernels_that_compile_under_load_are_a_reason(values: dict[str, tuple[int, int]], reason: Reason) -> None:
    ends = [host(t, **{name: value[n] for name, value in values.items()}) for n, t in enumerate((1.0, 19.0))]
    assert columns(dataclasses.replace(trace(), host=ends))["reasons"] == (reason,)


def test_a_busy_client_and_a_stolen_core_are_reasons() -> None:
    busy = [ClientSample(t_ns=t * SECOND_NS, worker=0, cpu_s=0.95 * t, lag_s=0.0) for t in range(21)]
    stolen = [dataclasses.replace(host(t), steal_s=float(t)) for t in range(21)]
    assert columns(dataclasses.replace(trace(), client=busy))["reasons"] == (Reason.CLIENT_BOUND,)
    assert columns(dataclasses.replace(trace(), host=stolen))["reasons"] == (Reason.HOST_BOUND,)


def counted(t_s: float, **values: Any) -> CounterSample:
    return CounterSample(t_ns=round(t_s * SECOND_NS), **values)


def test_the_engines_own_counters_are_compared_with_what_arrived() -> None:
    before, after = counted(0, output_tokens=1000, num_preemptions=4), counted(21, output_tokens=1210)
    row = columns(dataclasses.replace(trace(), counters=[before, after]))
    assert row["token_disagreement"] == pytest.approx(0)
    assert (row["num_preemptions"], row["num_running_mean"]) == (None, None)
    more = dataclasses.replace(after, output_tokens=1220)
    assert columns(dataclasses.replace(trace(), counters=[before, more]))["reasons"] == (Reason.TOKEN_MISMATCH,)
    restarted = dataclasses.replace(after, output_tokens=10)
    assert columns(dataclasses.replace(trace(), counters=[before, restarted]))["token_disagreement"] is None


def test_preemptions_are_those_of_the_window_and_queues_those_after_it() -> None:
    counters = [
        counted(0, num_preemptions=4, num_waiting=99.0),
        counted(20.5, num_preemptions=5, num_running=60.0, num_waiting=2.0, kv_cache_use=0.8),
        counted(21, num_preemptions=9, num_running=62.0, num_waiting=0.0, kv_cache_use=0.6),
    ]
    row = columns(dataclasses.replace(trace(), counters=counters))
    assert row["num_preemptions"] == 1
    assert (row["num_running_mean"], row["num_waiting_mean"]) == (61, 1)
    assert row["kv_cache_use_mean"] == pytest.approx(0.7)
    assert row["reasons"] == (Reason.KV_PREEMPTION,)


@pytest.mark.parametrize(
    ("said", "reasons", "warning"),
    [
        ("is_instrumented", (Reason.INSTRUMENTED,), None),
        ("is_dummy_weights", (Reason.DUMMY_WEIGHTS,), None),
        ("is_engine_untested", (), Reason.ENGINE_UNTESTED),
    ],
)
def test_what_is_known_of_the_start_is_judged(said: str, reasons: tuple[Reason, ...], warning: Reason | None) -> None:
    known: dict[str, Any] = {said: True}
    row = columns(trace(), **known)
    assert row["reasons"] == reasons
    assert {warning} <= {*row["warnings"], None}


@pytest.mark.parametrize(
    ("engine", "on_gpu", "is_foreign"),
    [
        ((7, 8), ((7,), (7,)), False),
        ((7, 8), ((7,), (7, 99)), True),
        ((7, 8), ((4007,), (4007,)), None),  # a container: the driver numbers processes as the host does
        ((7, 8), ((4007,), (4007, 4099)), True),
        ((7, 8), ((), ()), None),
        ((), ((7,), (7,)), None),
    ],
)
def test_a_process_that_is_not_the_engines_is_foreign(
    engine: tuple[int, ...], on_gpu: tuple[tuple[int, ...], tuple[int, ...]], is_foreign: bool | None
) -> None:
    processes = tuple(ProcessSample(pid=pid, name="engine", cpu_s=0.0) for pid in engine)
    states = [StateSample(t_ns=t * SECOND_NS, compute_pids=pids) for t, pids in zip((1, 19), on_gpu, strict=True)]
    made = dataclasses.replace(
        trace({"GPU-0": dataclasses.replace(steady_device(300, -3, 23), states=states)}),
        host=[host(5, processes=processes)],
    )
    assert has_foreign_process(made) is is_foreign
    assert (Reason.FOREIGN_PROCESS in columns(made)["reasons"]) is (is_foreign is True)


def test_an_open_loop_has_no_occupancy_and_its_latencies_count_from_when_a_request_was_due() -> None:
    late = [dataclasses.replace(request, due_ns=request.sent_ns - SECOND_NS) for request in REQUESTS]
    made = dataclasses.replace(trace(requests=late), point=OperatingPoint(request_rate_per_s=1.0))
    row = columns(made)
    assert row["occupancy"] is None
    assert row["ttft_p50_s"] == pytest.approx(1.1)


def test_tokens_counted_by_events_are_trusted_only_where_events_bring_one_each() -> None:
    stream = make_request(5, [(5 + 0.1 * n, n) for n in range(1, 50)], ended=False)
    running = dataclasses.replace(stream, num_uncounted=9)
    several = [make_request(n, [(n + 0.1 * m, 4 * m) for m in range(1, 9)]) for n in range(20)]
    assert not has_uncounted_tokens([*REQUESTS])
    assert not has_uncounted_tokens([*REQUESTS, running])
    assert has_uncounted_tokens([*several, running])
    assert has_uncounted_tokens([running]), "no request has ended, so nothing is known"


def test_one_late_worker_among_many_is_seen() -> None:
    samples = [
        ClientSample(t_ns=t * SECOND_NS // 10, worker=worker, cpu_s=0.0, lag_s=0.2 * (worker == 3 and t % 7 == 0))
        for t in range(200)
        for worker in range(16)
    ]
    assert columns(dataclasses.replace(trace(), client=samples))["reasons"] == (Reason.CLIENT_BOUND,)


def test_a_kernel_compiled_at_the_edge_of_a_window_counts() -> None:
    seen = [host(t + 0.5, num_cached_kernels=50 + 25 * (t >= 20)) for t in range(-2, 23)]
    row = columns(dataclasses.replace(trace(), host=seen))
    assert (row["num_new_kernels"], row["reasons"]) == (25, (Reason.KERNELS_COMPILING,))


def test_one_idle_board_among_busy_ones_is_no_deployment() -> None:
    busy, idle = (
        dataclasses.replace(
            steady_device(300, -3, 23), states=[StateSample(t_ns=t * SECOND_NS, gpu_busy=share) for t in range(20)]
        )
        for share in (1.0, 0.0)
    )
    row = columns(trace({"GPU-0": busy, "GPU-1": busy, "GPU-2": idle}))
    assert (row["reasons"], row["gpu_busy_mean"]) == ((Reason.GPU_UNUSED,), pytest.approx(2 / 3))
