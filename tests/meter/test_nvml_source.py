import pynvml
import pytest

from pipeline.meter.nvml_source import SAMPLES_PER_STATE, NvmlSource
from pipeline.meter.protocol import StateSample
from pipeline.meter.source import Observation
from tests.meter.fake_nvml import (
    HARDWARE_THERMAL,
    HELD_SINCE_BOOT_NS,
    INSTANT,
    POWER_BRAKE,
    POWER_CAP,
    SOFTWARE_THERMAL,
    FakeGpu,
    FakeNvml,
)


def read(gpu: FakeGpu, num_reads: int = 1) -> list[Observation]:
    """What one GPU's reader returns, without a meter around it."""
    nvml = FakeNvml(gpu)
    with NvmlSource((gpu.uuid,), lambda: nvml).open() as devices:
        return [devices[gpu.uuid]() for _ in range(num_reads)]


def state_of(gpu: FakeGpu) -> StateSample:
    """Its first state."""
    (seen,) = read(gpu)
    assert seen.state is not None
    return seen.state


def test_state_is_read_with_every_tenth_sample() -> None:
    seen = read(FakeGpu(), 3 * SAMPLES_PER_STATE)
    assert [i for i, one in enumerate(seen) if one.state is not None] == [0, 10, 20]


def test_a_state_holds_what_the_device_answers() -> None:
    gpu = FakeGpu(compute_pids=(77, 4))
    state = state_of(gpu)
    assert (state.temperature_c, state.memory_temperature_c) == (45.0, 52.0)
    assert (state.sm_clock_mhz, state.memory_clock_mhz) == (1980.0, 2619.0)
    assert (state.gpu_busy, state.power_limit_w, state.compute_pids) == (0.97, 700.0, (4, 77))


def test_a_state_of_a_device_that_answers_nothing_is_all_none() -> None:
    gpu = FakeGpu(
        power_limit_w=None,
        temperature_c=None,
        memory_temperature_c=None,
        sm_clock_mhz=None,
        memory_clock_mhz=None,
        busy_percent=None,
        compute_pids=None,
        field_status=dict.fromkeys(HELD_SINCE_BOOT_NS, pynvml.NVML_ERROR_NOT_SUPPORTED),
    )
    state = state_of(gpu)
    assert state == StateSample(t_ns=state.t_ns)


def test_an_idle_device_has_no_process_and_is_0_busy() -> None:
    state = state_of(FakeGpu(busy_percent=0))
    assert (state.gpu_busy, state.compute_pids) == (0.0, ())


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (POWER_CAP, "power_cap_ns"),
        (SOFTWARE_THERMAL, "thermal_ns"),
        (HARDWARE_THERMAL, "thermal_ns"),
        (POWER_BRAKE, "brake_ns"),
    ],
)
def test_each_reason_is_counted_on_its_own(reason: tuple[int, int], name: str) -> None:
    names = ("power_cap_ns", "thermal_ns", "brake_ns")
    idle = state_of(FakeGpu())
    held = state_of(FakeGpu(held_share={reason: 0.5}))
    assert {other for other in names if getattr(held, other) > getattr(idle, other)} == {name}


@pytest.mark.parametrize("missing", [SOFTWARE_THERMAL, HARDWARE_THERMAL])
def test_one_thermal_counter_is_enough(missing: tuple[int, int]) -> None:
    state = state_of(FakeGpu(field_status={missing: pynvml.NVML_ERROR_NOT_SUPPORTED}))
    (other,) = {SOFTWARE_THERMAL, HARDWARE_THERMAL} - {missing}
    assert state.thermal_ns == HELD_SINCE_BOOT_NS[other]


def test_the_older_temperature_call_is_used_where_the_newer_is_missing() -> None:
    assert state_of(FakeGpu(has_temperature_v=False)).temperature_c == 45.0


@pytest.mark.parametrize(("answer_w", "expected_w"), [(30.0, 30.0), (0.0, None), (None, None)])
def test_memory_power_is_read_where_it_answers(answer_w: float | None, expected_w: float | None) -> None:
    (seen,) = read(FakeGpu(memory_power_w=answer_w))
    assert seen.sample is not None
    assert seen.sample.memory_power_w == expected_w
    assert (seen.sample.power_w, seen.sample.power_average_w) == (300.0, 300.0)


def test_memory_power_that_falls_silent_is_none_and_never_0() -> None:
    gpu = FakeGpu(memory_power_w=30.0)
    nvml = FakeNvml(gpu)
    with NvmlSource((gpu.uuid,), lambda: nvml).open() as devices:
        gpu.memory_power_w = 0.0
        sample = devices[gpu.uuid]().sample
    assert sample is not None
    assert sample.memory_power_w is None


@pytest.mark.parametrize("status", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_UNKNOWN])
def test_a_power_field_with_an_error_status_is_none_and_never_0(status: int) -> None:
    (seen,) = read(FakeGpu(field_status={INSTANT: status}))
    assert seen.sample is not None
    assert (seen.sample.power_w, seen.sample.power_average_w, seen.sample.field_t_us) == (None, 300.0, None)
