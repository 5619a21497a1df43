"""Reads GPUs through NVIDIA's management library (NVML).

Facts about NVML come from nvml.h as shipped in PyPI nvidia-nvml-dev 13.5.37. NVML is thread-safe.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.errors import MeterError
from pipeline.meter.nvml_library import MIG_FIX, initialized
from pipeline.meter.protocol import PowerSample, StateSample
from pipeline.meter.source import Observation, ReadOnce, timed

SAMPLES_PER_STATE = 10
"""Temperatures, clocks, limits, event counters and processes are read with every tenth sample."""

_Field = tuple[int, int]
"""Id and scope of a value of nvmlDeviceGetFieldValues. Power is in mW, held-back time in ns since the driver's load."""

POWER_INSTANT: _Field = (186, 0)
POWER_AVERAGE: _Field = (185, 0)
MEMORY_POWER: _Field = (185, 2)
"""nvml.h contradicts itself about scope 2: NVML_POWER_SCOPE_MEMORY by its name, "GPU base (limits only)" in a comment.
On an H100 80GB HBM3 (driver 580.159.04) it answered 30 W, plausible for the memory. Where it answers nothing or 0 at
the start it is not asked again."""
MEMORY_TEMPERATURE: _Field = (82, 0)
POWER_CAP: _Field = (74, 0)
SOFTWARE_THERMAL: _Field = (269, 0)
HARDWARE_THERMAL: _Field = (270, 0)
POWER_BRAKE: _Field = (271, 0)

_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Member of nvmlValue_t by nvmlValueType_t."""


@dataclass(frozen=True, slots=True)
class NvmlSource:
    """Whole GPUs, by UUID; `load` gives the module with the interface of pynvml."""

    uuids: tuple[str, ...]
    load: Callable[[], Any]

    @contextmanager
    def open(self) -> Iterator[Mapping[str, ReadOnce]]:
        """Hold NVML open.

        Raises:
            MeterError: If a GPU is unknown or cut into MIG slices, or NVML fails.
        """
        nvml = self.load()
        with initialized(nvml):
            yield {uuid: _GpuReader(nvml, uuid) for uuid in self.uuids}


class _GpuReader:
    """Reads one GPU. Without its energy the read fails; whatever else it does not answer is None."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml = nvml
        self._uuid = uuid
        self._handle = device_handle(nvml, uuid)
        self._num_reads = 0
        has_memory_power = bool(self._values(MEMORY_POWER).get(MEMORY_POWER))
        self._power_fields = (POWER_INSTANT, POWER_AVERAGE, *([MEMORY_POWER] if has_memory_power else []))

    def __call__(self) -> Observation:
        try:
            t_ns, counter_mj = timed(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError_NotSupported as error:
            raise MeterError(
                f"{self._uuid} has no energy counter (older than Volta, or virtualised without it); use another GPU"
            ) from error
        except self._nvml.NVMLError as error:
            raise MeterError(f"{self._uuid} does not give its energy, NVML says: {error}") from error
        with_state = self._num_reads % SAMPLES_PER_STATE == 0
        self._num_reads += 1
        return Observation(
            t_ns=t_ns,
            energy_j=counter_mj / 1e3,
            sample=self._sample(),
            state=self._state() if with_state else None,
        )

    def _sample(self) -> PowerSample:
        t_ns, fields = timed(lambda: self._fields(*self._power_fields))
        mw = {field: value for field, (value, _) in fields.items()}
        _, field_t_us = fields.get(POWER_INSTANT, (0, 0))
        return PowerSample(
            t_ns=t_ns,
            power_w=_from_milli(mw.get(POWER_INSTANT)),
            power_average_w=_from_milli(mw.get(POWER_AVERAGE)),
            memory_power_w=_from_milli(mw.get(MEMORY_POWER) or None),
            field_t_us=field_t_us or None,
        )

    def _state(self) -> StateSample:
        nvml = self._nvml
        t_ns, held_ns = timed(lambda: self._values(POWER_CAP, SOFTWARE_THERMAL, HARDWARE_THERMAL, POWER_BRAKE))
        thermals_ns = [held_ns[field] for field in (SOFTWARE_THERMAL, HARDWARE_THERMAL) if field in held_ns]
        return StateSample(
            t_ns=t_ns,
            temperature_c=_number(self._temperature_c()),
            memory_temperature_c=_number(self._values(MEMORY_TEMPERATURE).get(MEMORY_TEMPERATURE)),
            sm_clock_mhz=_number(self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=_number(self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM)),
            gpu_busy=_number(self._ask(lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)),
            power_limit_w=_from_milli(self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit)),
            thermal_ns=sum(thermals_ns) if thermals_ns else None,
            brake_ns=held_ns.get(POWER_BRAKE),
            power_cap_ns=held_ns.get(POWER_CAP),
            compute_pids=self._ask(
                lambda gpu: tuple(sorted(process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)))
            ),
        )

    def _temperature_c(self) -> int | None:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        celsius: int | None = self._ask(self._nvml.nvmlDeviceGetTemperatureV, sensor)
        if celsius is None:  # drivers older than that call have only its predecessor
            celsius = self._ask(self._nvml.nvmlDeviceGetTemperature, sensor)
        return celsius

    def _values(self, *fields: _Field) -> dict[_Field, int]:
        return {field: value for field, (value, _) in self._fields(*fields).items()}

    def _fields(self, *fields: _Field) -> dict[_Field, tuple[int, int]]:
        """Value and timestamp (wall clock, us) of the fields that this board answers, each by its own status."""
        values = self._ask(self._nvml.nvmlDeviceGetFieldValues, fields) or ()
        return {
            (value.fieldId, value.scopeId): (
                int(getattr(value.value, _VALUE_MEMBERS[value.valueType])),
                int(value.timestamp),
            )
            for value in values
            if value.nvmlReturn == self._nvml.NVML_SUCCESS
        }

    def _ask(self, call: Callable[..., Any], *args: object) -> Any:
        """The answer of a call besides the energy counter, None if there is none; a lost GPU shows in the counter."""
        try:
            return call(self._handle, *args)
        except self._nvml.NVMLError:
            return None


def device_handle(nvml: Any, uuid: str) -> Any:
    """The handle of a whole GPU.

    Raises:
        MeterError: If the GPU is unknown or cut into MIG slices.
    """
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument) as error:
        raise MeterError(f"meter=nvml: no GPU {uuid} on this machine; nvidia-smi -L lists them") from error
    try:
        mig_mode, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_NotSupported:
        return handle
    if mig_mode == nvml.NVML_DEVICE_MIG_ENABLE:
        raise MeterError(f"meter=nvml: MIG is on for {uuid}; {MIG_FIX}")
    return handle


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _from_milli(value: int | None) -> float | None:
    return None if value is None else value / 1e3
