"""One look at GPUs before anything is measured: what a meter would read of them, and how they are set."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import MeterError
from pipeline.meter.nvml_library import import_nvml, initialized
from pipeline.meter.nvml_source import NvmlSource, device_handle
from pipeline.meter.protocol import StateSample
from pipeline.meter.visible_gpus import Gpu

LOOK_S = 0.4
"""Between two readings: four ticks of an H100's energy counter, which moves every 100 ms."""

HELD_BACK = {
    "nvmlClocksEventReasonSwPowerCap": "power limit",
    "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksEventReasonSwThermalSlowdown": "heat (software)",
    "nvmlClocksEventReasonHwThermalSlowdown": "heat (hardware)",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake",
}
"""Reasons for lower clocks, by their names in nvml.h; idleness and the user's own settings are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The NVIDIA driver: its version, and the newest CUDA (major, minor) that it runs."""

    version: str
    cuda: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """What one GPU says; None where it does not answer.

    Attributes:
        gpu: Which one.
        refusal: Why its energy cannot be metered (MIG, no counter), or None.
        energy_j: What its energy counter grew by over `LOOK_S`.
        power_w: Instantaneous board power.
        state: Temperature, clocks, enforced power limit and processes, as a meter samples them.
        default_power_limit_w: The limit it has if nobody sets one.
        application_clock_mhz: SM clock that is set for applications.
        default_application_clock_mhz: The one that it has if nobody sets one.
        is_persistent: Whether the driver stays loaded without a client.
        is_exclusive: Whether only one process may use it.
        uncorrected_errors: Uncorrected memory errors since the driver was loaded.
        held_back: What lowers its clocks at this moment.
    """

    gpu: Gpu
    refusal: str | None = None
    energy_j: float | None = None
    power_w: float | None = None
    state: StateSample | None = None
    default_power_limit_w: float | None = None
    application_clock_mhz: int | None = None
    default_application_clock_mhz: int | None = None
    is_persistent: bool | None = None
    is_exclusive: bool | None = None
    uncorrected_errors: int | None = None
    held_back: tuple[str, ...] | None = None


def read_driver(nvml: Any = None) -> Driver:
    """Ask NVML for the driver.

    Raises:
        NvmlMissingError: If there is no NVML or no driver.
        MeterError: If it fails otherwise.
    """
    nvml = import_nvml() if nvml is None else nvml
    with initialized(nvml):
        number = int(nvml.nvmlSystemGetCudaDriverVersion_v2())  # nvml.h: 1000 x major + 10 x minor
        return Driver(version=nvml.nvmlSystemGetDriverVersion(), cuda=(number // 1000, number % 1000 // 10))


def look_at(gpus: Sequence[Gpu], nvml: Any = None) -> tuple[GpuState, ...]:
    """Look at GPUs, each for `LOOK_S`.

    Raises:
        NvmlMissingError: If there is no NVML or no driver.
        MeterError: If NVML does not start.
    """
    nvml = import_nvml() if nvml is None else nvml
    with initialized(nvml):
        return tuple(_look(gpu, nvml) for gpu in gpus)


def _look(gpu: Gpu, nvml: Any) -> GpuState:
    try:
        with NvmlSource((gpu.uuid,), lambda: nvml).open() as readers:
            read = readers[gpu.uuid]
            first = read()
            time.sleep(LOOK_S)
            last = read()
        handle = device_handle(nvml, gpu.uuid)
    except MeterError as error:
        return GpuState(gpu=gpu, refusal=str(error))

    def ask(call: Callable[..., Any], *args: object) -> Any:
        with suppress(nvml.NVMLError):
            return call(handle, *args)
        return None

    reasons = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
    persistence, compute_mode = ask(nvml.nvmlDeviceGetPersistenceMode), ask(nvml.nvmlDeviceGetComputeMode)
    default_limit_mw = ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit)
    return GpuState(
        gpu=gpu,
        energy_j=last.energy_j - first.energy_j,
        power_w=last.sample.power_w if last.sample else None,
        state=first.state,
        default_power_limit_w=None if default_limit_mw is None else default_limit_mw / 1e3,
        application_clock_mhz=ask(nvml.nvmlDeviceGetApplicationsClock, nvml.NVML_CLOCK_SM),
        default_application_clock_mhz=ask(nvml.nvmlDeviceGetDefaultApplicationsClock, nvml.NVML_CLOCK_SM),
        is_persistent=None if persistence is None else persistence == nvml.NVML_FEATURE_ENABLED,
        is_exclusive=None if compute_mode is None else compute_mode != nvml.NVML_COMPUTEMODE_DEFAULT,
        uncorrected_errors=ask(
            nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        held_back=None
        if reasons is None
        else tuple(text for name, text in HELD_BACK.items() if reasons & getattr(nvml, name)),
    )
