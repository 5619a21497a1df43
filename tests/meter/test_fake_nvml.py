"""The stand-in must not drift from the real module."""

import inspect

import pynvml
import pytest

from tests.meter.fake_nvml import INSTANT, FakeGpu, FakeNvml

FUNCTIONS = sorted(name for name in vars(FakeNvml) if name.startswith("nvml"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_the_real_ones_parameters(name: str) -> None:
    fake = inspect.signature(getattr(FakeNvml(), name)).parameters
    assert list(fake) == list(inspect.signature(getattr(pynvml, name)).parameters)


def test_the_counter_moves_in_ticks_by_the_energy_of_the_power_curve() -> None:
    gpu = FakeGpu(power_w=lambda t_s: 100 * t_s, tick_s=0.1, energy_at_start_mj=1000)
    assert gpu.counter_mj(0.99) == gpu.counter_mj(0.91)
    assert gpu.counter_mj(2.05) - 1000 == pytest.approx(1e3 * 100 * 2.0**2 / 2)


def test_a_gain_is_in_the_counter_and_not_in_the_power() -> None:
    gpu = FakeGpu(counter_gain=1.1, energy_at_start_mj=0)
    assert gpu.counter_mj(10.01) == pytest.approx(1e3 * 300.0 * 1.1 * 10.0)
    assert gpu.fields(10.01)[INSTANT][1] == 300_000


def test_power_is_renewed_and_stamped_every_refresh() -> None:
    gpu = FakeGpu(refresh_s=0.1, power_w=lambda t_s: 100 * t_s)
    assert gpu.fields(1.19)[INSTANT] == gpu.fields(1.11)[INSTANT] != gpu.fields(1.21)[INSTANT]
    nvml = FakeNvml(gpu)
    nvml.nvmlInit()
    before = nvml.nvmlDeviceGetFieldValues(gpu, [INSTANT])[0].timestamp
    nvml.wall_step_s = -3600.0
    assert nvml.nvmlDeviceGetFieldValues(gpu, [INSTANT])[0].timestamp < before - 3_000_000_000


def test_calls_need_an_open_library() -> None:
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        FakeNvml(FakeGpu()).nvmlDeviceGetCount()
