# ruff: noqa: N802  # the names are NVML's
"""The one stand-in for the module `pynvml`: its names, error classes and structs, counters driven by a power curve.

`nvmlDeviceGetTotalEnergyConsumption` moves in ticks of `tick_s`, as a data-centre GPU's counter does. Faults are
attributes of a FakeGpu; they may be set while a meter runs. Times are seconds since the FakeNvml was made.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

UINT = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
ULONGLONG = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG


Field = tuple[int, int]
"""Id and scope."""

INSTANT = (pynvml.NVML_FI_DEV_POWER_INSTANT, 0)
AVERAGE = (pynvml.NVML_FI_DEV_POWER_AVERAGE, 0)
MEMORY_POWER = (pynvml.NVML_FI_DEV_POWER_AVERAGE, pynvml.NVML_POWER_SCOPE_MEMORY)
MEMORY_TEMPERATURE = (pynvml.NVML_FI_DEV_MEMORY_TEMP, 0)
POWER_CAP = (pynvml.NVML_FI_DEV_PERF_POLICY_POWER, 0)
SOFTWARE_THERMAL = (pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, 0)
HARDWARE_THERMAL = (pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, 0)
POWER_BRAKE = (pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, 0)

HELD_SINCE_BOOT_NS = {POWER_CAP: 7, SOFTWARE_THERMAL: 0, HARDWARE_THERMAL: 2**40, POWER_BRAKE: 11}
"""Where the counters of held-back time stand when the fake is made."""


@dataclass(eq=False, kw_only=True)
class FakeGpu:
    """One GPU: its power curve, and what is wrong with it. None stands for a call that it does not support.

    `before_read` runs in the caller's thread before the energy counter answers: sleep or wait in it for latency.
    `counter_gain` is what the energy counter shows for one joule. Power is renewed every `refresh_s` and stamped with
    that moment (0: at every query), as `stamp` shows it; `field_status` is the nvmlReturn of a field. `held_share` is
    the share of all time in which a reason held the clocks back. A memory power of 0 is answered, None is not.
    """

    uuid: str = "GPU-00000000-aaaa-bbbb-cccc-000000000000"
    name: str = "NVIDIA H100 80GB HBM3"
    memory_bytes: int | None = 80 * 2**30
    used_bytes: int = 300 * 2**20
    power_w: Callable[[float], float] = lambda t_s: 300.0
    memory_power_w: float | None = None
    tick_s: float = 0.1
    counter_gain: float = 1.0
    energy_at_start_mj: int = 5_000_000
    refresh_s: float = 0.0
    stamp: Callable[[int], int] = lambda t_us: t_us
    power_limit_w: float | None = 700.0
    temperature_c: int | None = 45
    memory_temperature_c: int | None = 52
    sm_clock_mhz: int | None = 1980
    memory_clock_mhz: int | None = 2619
    busy_percent: int | None = 97
    compute_pids: tuple[int, ...] | None = ()
    held_share: dict[Field, float] = field(default_factory=dict)
    default_power_limit_w: float | None = 700.0
    application_clock_mhz: int | None = 1980
    default_application_clock_mhz: int | None = 1980
    persistence: bool | None = True
    compute_mode: int | None = pynvml.NVML_COMPUTEMODE_DEFAULT
    uncorrected_errors: int | None = 0
    event_reasons: int | None = pynvml.nvmlClocksEventReasonGpuIdle
    mig: bool | None = False
    has_energy: bool = True
    has_temperature_v: bool = True
    field_status: dict[Field, int] = field(default_factory=dict)
    lost_at_s: float = math.inf
    reset_at_s: float = math.inf
    before_read: Callable[[], None] = lambda: None
    _ticks_mj: list[float] = field(default_factory=lambda: [0.0])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def counter_mj(self, now_s: float) -> int:
        """What the energy counter shows: energy up to the last tick, from 0 again after a reset."""
        used = self._used_mj(math.floor(now_s / self.tick_s))
        if now_s < self.reset_at_s:
            return self.energy_at_start_mj + round(used)
        return round(used - self._used_mj(math.floor(self.reset_at_s / self.tick_s)))

    def _used_mj(self, num_ticks: int) -> float:
        with self._lock:
            while len(self._ticks_mj) <= num_ticks:
                middle_s = (len(self._ticks_mj) - 0.5) * self.tick_s
                used_mj = 1e3 * self.counter_gain * self.power_w(middle_s) * self.tick_s
                self._ticks_mj.append(self._ticks_mj[-1] + used_mj)
            return self._ticks_mj[num_ticks]

    def renewed_s(self, now_s: float) -> float:
        """When power was last renewed."""
        return math.floor(now_s / self.refresh_s) * self.refresh_s if self.refresh_s else now_s

    def fields(self, now_s: float) -> dict[Field, tuple[int, int]]:
        """Value type and value of every field that this GPU has."""
        at_s = self.renewed_s(now_s)
        last_second = [self.power_w(max(0.0, at_s - ago / 10)) for ago in range(10)]
        fields = {
            INSTANT: (UINT, round(1e3 * self.power_w(at_s))),
            AVERAGE: (UINT, round(1e3 * sum(last_second) / len(last_second))),
        }
        if self.memory_power_w is not None:
            fields[MEMORY_POWER] = (UINT, round(1e3 * self.memory_power_w))
        if self.memory_temperature_c is not None:
            fields[MEMORY_TEMPERATURE] = (UINT, self.memory_temperature_c)
        for reason, before_ns in HELD_SINCE_BOOT_NS.items():
            fields[reason] = (ULONGLONG, before_ns + round(1e9 * self.held_share.get(reason, 0.0) * now_s))
        return fields


class FakeNvml:
    """Stands in for the module. `init_error` is the code with which nvmlInit fails; `wall_step_s` moves its clock.

    `cuda_version` is what nvmlSystemGetCudaDriverVersion_v2 answers.
    """

    def __init__(self, *gpus: FakeGpu, init_error: int | None = None, cuda_version: int = 13000) -> None:
        self.gpus = gpus
        self.init_error = init_error
        self.cuda_version = cuda_version
        self.init_count = 0
        self.wall_step_s = 0.0
        self._start_ns = time.monotonic_ns()
        self._start_us = time.time_ns() // 1000

    def now_s(self) -> float:
        """Seconds since this fake was made."""
        return (time.monotonic_ns() - self._start_ns) / 1e9

    def __getattr__(self, name: str) -> Any:
        """Constants and error classes are the real ones."""
        if name.startswith(("NVML", "nvmlClocksEventReason")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.init_count += 1

    def nvmlShutdown(self) -> None:
        self._check_initialized()
        self.init_count -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._check_initialized()
        return "580.00.fake"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        self._check_initialized()
        return self.cuda_version

    def nvmlDeviceGetCount(self) -> int:
        self._check_initialized()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        self._check_initialized()
        if not 0 <= index < len(self.gpus):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        self._check_initialized()
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:
        return self._alive(handle).uuid

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        return self._alive(handle).name

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu, version: int | None = None) -> SimpleNamespace:
        total = _supported(self._alive(handle).memory_bytes)
        return SimpleNamespace(total=total, free=total - handle.used_bytes, used=handle.used_bytes)

    def nvmlDeviceGetMigMode(self, device: FakeGpu) -> list[int]:
        mode = int(_supported(self._alive(device).mig))
        return [mode, mode]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:
        handle.before_read()
        self._alive(handle)
        if not handle.has_energy:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return handle.counter_mj(self.now_s())

    def nvmlDeviceGetFieldValues(self, handle: FakeGpu, fieldIds: Sequence[int | tuple[int, int]]) -> Any:  # noqa: N803  # NVML's
        known = self._alive(handle).fields(now_s := self.now_s())
        stamp_us = handle.stamp(self._start_us + round(1e6 * (handle.renewed_s(now_s) + self.wall_step_s)))
        values = (pynvml.c_nvmlFieldValue_t * len(fieldIds))()
        for value, asked in zip(values, fieldIds, strict=True):
            key = asked if isinstance(asked, tuple) else (asked, 0)
            value.fieldId, value.scopeId = key
            value.timestamp = stamp_us
            value.nvmlReturn = handle.field_status.get(key, pynvml.NVML_SUCCESS)
            if key not in known:
                value.nvmlReturn = pynvml.NVML_ERROR_INVALID_ARGUMENT
            elif value.nvmlReturn == pynvml.NVML_SUCCESS:
                value.valueType, number = known[key]
                setattr(value.value, "uiVal" if value.valueType == UINT else "ullVal", number)
        if all(value.nvmlReturn != pynvml.NVML_SUCCESS for value in values):
            raise pynvml.NVMLError(values[0].nvmlReturn)
        return values

    def nvmlDeviceGetTemperatureV(self, handle: FakeGpu, sensor: int, version: int = pynvml.nvmlTemperature_v1) -> int:
        if not self._alive(handle).has_temperature_v:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return int(_supported(handle.temperature_c))

    def nvmlDeviceGetTemperature(self, handle: FakeGpu, sensor: int) -> int:
        return int(_supported(self._alive(handle).temperature_c))

    def nvmlDeviceGetClockInfo(self, handle: FakeGpu, type: int) -> int:  # noqa: A002  # NVML's
        self._alive(handle)
        clocks = {pynvml.NVML_CLOCK_SM: handle.sm_clock_mhz, pynvml.NVML_CLOCK_MEM: handle.memory_clock_mhz}
        return int(_supported(clocks[type]))

    def nvmlDeviceGetUtilizationRates(self, handle: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(gpu=_supported(self._alive(handle).busy_percent), memory=50)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[SimpleNamespace]:
        pids = _supported(self._alive(handle).compute_pids)
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in pids]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:
        return round(1e3 * float(_supported(self._alive(handle).power_limit_w)))

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: FakeGpu) -> int:
        return round(1e3 * float(_supported(self._alive(handle).default_power_limit_w)))

    def nvmlDeviceGetApplicationsClock(self, handle: FakeGpu, type: int) -> int:  # noqa: A002  # NVML's
        return int(_supported(self._alive(handle).application_clock_mhz))

    def nvmlDeviceGetDefaultApplicationsClock(self, handle: FakeGpu, type: int) -> int:  # noqa: A002  # NVML's
        return int(_supported(self._alive(handle).default_application_clock_mhz))

    def nvmlDeviceGetPersistenceMode(self, handle: FakeGpu) -> int:
        return int(_supported(self._alive(handle).persistence))

    def nvmlDeviceGetComputeMode(self, handle: FakeGpu) -> int:
        return int(_supported(self._alive(handle).compute_mode))

    def nvmlDeviceGetTotalEccErrors(self, handle: FakeGpu, errorType: int, counterType: int) -> int:  # noqa: N803  # NVML's
        return int(_supported(self._alive(handle).uncorrected_errors))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: FakeGpu) -> int:
        return int(_supported(self._alive(handle).event_reasons))

    def _check_initialized(self) -> None:
        if self.init_count < 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def _alive(self, gpu: FakeGpu) -> FakeGpu:
        self._check_initialized()
        if self.now_s() >= gpu.lost_at_s:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpu


def _supported(value: Any) -> Any:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value


def make_fake_nvml() -> FakeNvml:
    """One GPU with everything at its default, made in whatever process calls this."""
    return FakeNvml(FakeGpu(tick_s=0.03))
