"""One look at GPUs: the driver, and what each says."""

import dataclasses

import pynvml
import pytest

from pipeline.errors import MeterError
from pipeline.meter import gpu_state
from pipeline.meter.gpu_state import Driver, GpuState, look_at, read_driver
from pipeline.meter.nvml_library import NvmlMissingError
from pipeline.meter.visible_gpus import visible_gpus
from tests.meter.fake_nvml import INSTANT, FakeGpu, FakeNvml


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_state, "LOOK_S", 0.03)


def seen(gpu: FakeGpu) -> GpuState:
    nvml = FakeNvml(dataclasses.replace(gpu, tick_s=0.01))
    (state,) = look_at(visible_gpus(nvml, {}), nvml)
    assert nvml.init_count == 0
    return state


@pytest.mark.parametrize(("number", "cuda"), [(13000, (13, 0)), (12080, (12, 8)), (11040, (11, 4))])
def test_the_driver_says_which_cuda_it_runs(number: int, cuda: tuple[int, int]) -> None:
    assert read_driver(FakeNvml(cuda_version=number)) == Driver(version="580.00.fake", cuda=cuda)


def test_without_a_driver_there_is_none() -> None:
    with pytest.raises(NvmlMissingError):
        read_driver(FakeNvml(init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(MeterError, match="does not start"):
        read_driver(FakeNvml(init_error=pynvml.NVML_ERROR_UNKNOWN))


def test_a_plain_gpu_says_everything() -> None:
    state = seen(FakeGpu(uncorrected_errors=3, compute_pids=(12,)))
    assert state.refusal is None
    assert state.energy_j is not None
    assert state.energy_j > 0
    assert state.power_w == pytest.approx(300.0)
    assert state.state is not None
    assert state.state.compute_pids == (12,)
    assert (state.default_power_limit_w, state.state.power_limit_w) == (700.0, 700.0)
    assert (state.application_clock_mhz, state.default_application_clock_mhz) == (1980, 1980)
    assert (state.is_persistent, state.is_exclusive, state.uncorrected_errors) == (True, False, 3)
    assert state.held_back == ()


def test_what_a_gpu_does_not_answer_is_none() -> None:
    silent = FakeGpu(
        default_power_limit_w=None, application_clock_mhz=None, default_application_clock_mhz=None, persistence=None,
        compute_mode=None, uncorrected_errors=None, event_reasons=None,
        field_status={INSTANT: pynvml.NVML_ERROR_NOT_SUPPORTED},
    )  # fmt: skip
    state = seen(silent)
    assert state.energy_j is not None
    given = dataclasses.asdict(state)
    answered = {"gpu", "energy_j", "state"}
    assert {name for name, value in given.items() if value is not None} == answered


def test_reasons_for_low_clocks_are_named_and_idleness_is_none_of_them() -> None:
    reasons = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    assert seen(FakeGpu(event_reasons=reasons)).held_back == ("heat (hardware)",)


@pytest.mark.parametrize(
    ("gpu", "refusal"),
    [(FakeGpu(has_energy=False), "no energy counter"), (FakeGpu(mig=True), "MIG is on")],
)
def test_a_gpu_that_cannot_be_metered_says_why(gpu: FakeGpu, refusal: str) -> None:
    state = seen(gpu)
    assert state.refusal is not None
    assert refusal in state.refusal
    assert state.state is None
