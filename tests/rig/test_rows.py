import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.load.protocol import RequestRecord
from pipeline.meter.protocol import DeviceReading
from pipeline.record import Boundary, Evidence, Reason, Row, RowStatus
from pipeline.rig.rows import identity, measured, utc
from pipeline.study import EngineConfig, OperatingPoint
from pipeline.trace import Trace
from tests.builders import MODELLED, SECOND_NS, make_request, make_row, make_study, steady_device

PLAN = make_study(*MODELLED, "plan=quick").plan
DEMO = make_study().plan

REQUESTS = [make_request(n - 10, [(n - 10 + 0.1 * m, m) for m in range(1, 11)]) for n in range(40)]
"""One request a second, ten tokens each, one in flight."""


def trace(
    devices: dict[str, DeviceReading] | None = None, requests: list[RequestRecord] | None = None, concurrency: int = 1
) -> Trace:
    return Trace(
        open_ns=round(0.05 * SECOND_NS),
        close_ns=round(20.05 * SECOND_NS),
        concurrency=concurrency,
        requests=REQUESTS if requests is None else requests,
        devices={"GPU-0": steady_device(300, -3, 23)} if devices is None else devices,
    )


def test_the_window_is_the_meters_and_both_sides_share_it() -> None:
    row = measured(trace(), PLAN, Boundary.GPU, client_cpu_s=10.0, bound_tokens_per_s=11.0)
    assert row["window_s"] == pytest.approx(19.9)
    assert row["client_cpu_s"] == 10.0
    assert row["gpu_energy_j"] == pytest.approx(300 * 19.9)
    assert row["output_tokens"] == 199
    assert row["output_tokens_per_s"] == pytest.approx(10)
    assert row["power_w"] == pytest.approx(300)
    assert row["output_tokens_per_joule"] == pytest.approx(199 / (300 * 19.9))
    assert row["output_tokens_per_joule"] * row["gpu_energy_j"] == pytest.approx(row["output_tokens"])
    assert (row["status"], row["reasons"], row["warnings"]) == (RowStatus.OK, (), ())


def test_every_column_is_one_of_the_row_and_holds_a_number_or_null() -> None:
    for made in (trace(), trace(devices={}), trace(requests=[])):
        columns = measured(made, PLAN, Boundary.GPU)
        assert set(columns) < set(Row.schema().names)
        row = make_row(**columns)
        assert Row.from_dict(row.to_dict()) == row


def test_the_second_reading_and_the_state_of_the_device_are_kept() -> None:
    row = measured(trace(), PLAN, Boundary.GPU)
    assert row["gpu_energy_integral_j"] == pytest.approx(row["gpu_energy_j"])
    assert row["gpu_temperature_mean_c"] == pytest.approx(50)
    assert row["sm_clock_mean_mhz"] == pytest.approx(1500)
    assert row["power_limit_w"] == 700
    assert row["throttle_s"] == 0
    assert row["power_cap_s"] == pytest.approx(1.99)
    assert row["output_tokens_per_joule_rel_ci95"] == pytest.approx(0, abs=0.05)
    assert row["num_blocks"] == round(19.9 / PLAN.block_s)


def test_devices_are_added_up_over_the_time_they_share() -> None:
    both = {"GPU-0": steady_device(300, -3, 23), "GPU-1": steady_device(100, -2.97, 23.03)}
    row = measured(trace(both), PLAN, Boundary.GPU)
    assert row["power_w"] == pytest.approx(400)
    assert row["gpu_energy_j"] == pytest.approx(400 * row["window_s"])
    assert row["window_s"] < 20
    assert row["gpu_energy_integral_j"] == pytest.approx(row["gpu_energy_j"], rel=1e-6)
    assert row["power_limit_w"] == 1400


def test_a_second_reading_that_one_device_lacks_is_unknown_and_not_a_part_of_it() -> None:
    silent = dataclasses.replace(steady_device(100, -3, 23), samples=[], power_limit_w=None)
    row = measured(trace({"GPU-0": steady_device(300, -3, 23), "GPU-1": silent}), PLAN, Boundary.GPU)
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
    row = measured(trace(devices), PLAN, Boundary.GPU)
    assert row["reasons"] == (Reason.NO_ENERGY,)
    assert row["status"] is RowStatus.INVALID
    assert row["window_s"] == pytest.approx(20)
    assert row["output_tokens"] == 200
    for name in ("gpu_energy_j", "cpu_energy_j", "power_w", "output_tokens_per_joule", "total_tokens_per_joule",
                 "output_tokens_per_joule_rel_ci95"):  # fmt: skip
        assert row[name] is None, name


def test_the_sum_over_no_devices_is_unknown() -> None:
    row = measured(trace({}), PLAN, Boundary.GPU)
    for name in ("gpu_energy_integral_j", "power_limit_w", "throttle_s", "power_cap_s", "gpu_temperature_mean_c"):
        assert row[name] is None, name


def test_a_counter_that_stands_still_gives_no_infinite_efficiency() -> None:
    row = measured(trace({"GPU-0": steady_device(0, -3, 23)}), PLAN, Boundary.GPU)
    assert Reason.NO_ENERGY in row["reasons"]
    assert row["output_tokens_per_joule"] is None
    assert row["total_tokens_per_joule"] is None
    assert row["output_tokens_per_joule_rel_ci95"] is None


def test_a_counter_that_runs_backwards_gives_no_negative_efficiency() -> None:
    row = measured(trace({"GPU-0": steady_device(-300, -3, 23)}), PLAN, Boundary.GPU)
    assert Reason.NO_ENERGY in row["reasons"]
    assert row["output_tokens_per_joule"] is None
    assert row["total_tokens_per_joule"] is None


def test_energy_without_tokens_is_kept_and_not_scored() -> None:
    row = measured(trace(requests=[]), PLAN, Boundary.GPU)
    assert Reason.NO_TOKENS in row["reasons"]
    assert row["gpu_energy_j"] is not None
    assert row["output_tokens_per_joule"] is None
    assert row["ttft_p50_s"] is None
    assert row["output_tokens_per_s_per_user"] is None


def test_energy_lands_on_the_side_of_its_boundary() -> None:
    gpu, cpu = (measured(trace(), PLAN, boundary) for boundary in (Boundary.GPU, Boundary.CPU))
    assert cpu["cpu_energy_j"] == gpu["gpu_energy_j"]
    assert (cpu["gpu_energy_j"], cpu["gpu_energy_integral_j"], gpu["cpu_energy_j"]) == (None, None, None)
    assert cpu["output_tokens_per_joule"] == gpu["output_tokens_per_joule"]


@pytest.mark.parametrize(
    ("made", "arguments", "reason"),
    [
        (trace(), {"bound_tokens_per_s": 9.9}, Reason.ABOVE_PHYSICAL_BOUND),
        (trace(), {"faults": (Reason.COUNTER_RESET,)}, Reason.COUNTER_RESET),
        (trace(), {"warmup_was_steady": False}, Reason.NOT_STEADY),
        (trace(), {"client_cpu_s": 19.0}, Reason.CLIENT_BOUND),
        (trace(concurrency=2), {}, Reason.OCCUPANCY_LOW),
        (trace(requests=[*REQUESTS, make_request(5, [], error="broken")]), {}, Reason.ERROR_RATE),
        (
            trace({"GPU-0": dataclasses.replace(steady_device(300, -3, 23), throttle_ns=[(0, 0), (23 * 10**9, 1)])}),
            {},
            Reason.THERMAL_OR_BRAKE,
        ),
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
    assert measured(made, PLAN, Boundary.GPU, **arguments)["reasons"] == (reason,)
    demo = measured(made, DEMO, Boundary.GPU, **arguments)
    fatal = {Reason.ABOVE_PHYSICAL_BOUND, Reason.COUNTER_RESET}
    assert set(demo["reasons"]) == {reason} & fatal


@pytest.mark.parametrize(("per_second", "steady"), [(20, True), (26, False), (14, False)])
def test_a_rate_that_rises_or_falls_all_along_is_not_steady(per_second: int, steady: bool) -> None:
    """From 20 tokens in the first second to `per_second` in the last."""
    rates = [20 + (per_second - 20) * n / 19 for n in range(-1, 21)]
    times = [n - 1 + (m + 0.5) / round(rate) for n, rate in enumerate(rates) for m in range(round(rate))]
    stream = make_request(-2, [(t_s, n) for n, t_s in enumerate(times, start=1)], ended=False)
    assert (Reason.NOT_STEADY not in measured(trace(requests=[stream]), PLAN, Boundary.GPU)["reasons"]) is steady


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
    assert "evidence" not in measured(trace(), PLAN, Boundary.GPU)
    assert make_row().evidence is Evidence.MEASURED


def test_a_hole_in_the_second_reading_is_no_agreement() -> None:
    whole = steady_device(300, -3, 23)
    holed = dataclasses.replace(whole, samples=[s for s in whole.samples if not 8e9 < s.t_ns < 11e9])
    assert measured(trace({"GPU-0": whole}), PLAN, Boundary.GPU)["status"] is RowStatus.OK
    row = measured(trace({"GPU-0": whole, "GPU-1": holed}), PLAN, Boundary.GPU)
    assert row["reasons"] == (Reason.SECOND_READING_LOST,)
    assert row["gpu_energy_integral_j"] is None


def test_the_longest_throttling_is_unknown_where_one_device_is() -> None:
    known = dataclasses.replace(steady_device(300, -3, 23), throttle_ns=[(-(10**9), 0), (40 * 10**9, 0)])
    unknown = dataclasses.replace(known, throttle_ns=[])
    assert measured(trace({"GPU-0": known}), PLAN, Boundary.GPU)["throttle_s"] == 0
    assert measured(trace({"GPU-0": known, "GPU-1": unknown}), PLAN, Boundary.GPU)["throttle_s"] is None
