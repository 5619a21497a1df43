"""The stand-in must not drift from the real module."""

import inspect

import pynvml
import pytest

from tests.meter.fake_nvml import FakeGpu, FakeNvml

FUNCTIONS = sorted(name for name in vars(FakeNvml) if name.startswith("nvml"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_the_real_ones_parameters(name: str) -> None:
    fake = inspect.signature(getattr(FakeNvml(), name)).parameters
    assert list(fake) == list(inspect.signature(getattr(pynvml, name)).parameters)


def test_the_counter_moves_in_ticks_by_the_energy_of_the_power_curve() -> None:
    gpu = FakeGpu(power_w=lambda t_s: 100 * t_s, tick_s=0.1, energy_at_start_mj=1000)
    assert gpu.counter_mj(0.99) == gpu.counter_mj(0.91)
    assert gpu.counter_mj(2.05) - 1000 == pytest.approx(1e3 * 100 * 2.0**2 / 2)


def test_calls_need_an_open_library() -> None:
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        FakeNvml(FakeGpu()).nvmlDeviceGetCount()
