"""GPU board energy from NVIDIA's management library (NVML).

Facts about NVML come from nvml.h as shipped in PyPI nvidia-nvml-dev 13.5.37. NVML is thread-safe.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from pipeline.errors import MeterError
from pipeline.meter.nvml_library import MIG_FIX, import_nvml, initialized
from pipeline.meter.protocol import MeterInfo, PowerSample
from pipeline.meter.sampling import Observation, ReadOnce, SampledMeter, timed
from pipeline.record import Boundary, Evidence

SAMPLE_PERIOD_S = 0.02
"""A tick is seen 20 ms late at most. Measured on an H100 80GB HBM3: the counter moves every 100 ms, five times as long,
so ticks are seen 99-101 ms apart (at 40 ms they would be seen 80 and 120 ms apart). A read keeps a core busy for
4.1 ms, so the meter takes 0.23 cores per GPU. The idle GPU draws 72.1 W whether it is read every 10 ms or every 900."""

SAMPLES_PER_STATE = 10
"""Temperature, clock, limits and event counters are read with every tenth sample."""

# Field ids of nvmlDeviceGetFieldValues. Power in mW, at the default scope (0, the GPU board); reasons in ns.
POWER_AVERAGE_FIELD = 185
POWER_INSTANT_FIELD = 186
POWER_CAP_FIELD = 74
THROTTLE_FIELDS = (269, 270, 271)
"""Software thermal, hardware thermal, power brake."""

_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Member of nvmlValue_t by nvmlValueType_t."""


class NvmlMeter(SampledMeter):
    """Board energy of the given GPUs: the driver's energy counter, and instantaneous power as a second reading."""

    def __init__(self, uuids: Sequence[str], nvml: Any = None) -> None:
        """Identify the GPUs.

        Args:
            uuids: GPUs in the order of the deployment's devices.
            nvml: Module with the interface of pynvml; None imports it. Anything but the real module is
                taken for a stand-in, and its evidence is `simulated`.

        Raises:
            MeterError: If NVML is not there, a UUID is unknown, MIG is on, or no GPU is given.
        """
        self._nvml = import_nvml() if nvml is None else nvml
        if not uuids:
            raise MeterError("meter=nvml: no GPU to meter; make one visible (CUDA_VISIBLE_DEVICES) or use hardware=cpu")
        with initialized(self._nvml):
            names = {str(self._nvml.nvmlDeviceGetName(_handle(self._nvml, uuid))) for uuid in uuids}
            driver_version = str(self._nvml.nvmlSystemGetDriverVersion())
        info = MeterInfo(
            name="nvml",
            description=f"NVML board energy counters of {len(uuids)} x {', '.join(sorted(names))}",
            boundary=Boundary.GPU,
            evidence=_evidence(self._nvml),
            devices=tuple(uuids),
            device_name=names.pop() if len(names) == 1 else None,
            driver_version=driver_version,
        )
        super().__init__(info, SAMPLE_PERIOD_S)

    @contextmanager
    def _open(self) -> Iterator[Mapping[str, ReadOnce]]:
        with initialized(self._nvml):
            yield {uuid: _GpuReader(self._nvml, uuid) for uuid in self.info.devices}


class _GpuReader:
    """Reads one GPU. Without its energy the read fails; whatever else it does not answer is None."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml = nvml
        self._uuid = uuid
        self._handle = _handle(nvml, uuid)
        self._num_reads = 0

    def __call__(self) -> Observation:
        try:
            t_ns, counter_mj = timed(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError_NotSupported as error:
            raise MeterError(
                f"{self._uuid} has no energy counter (older than Volta, or virtualised without it); use another GPU"
            ) from error
        except self._nvml.NVMLError as error:
            raise MeterError(f"{self._uuid} does not give its energy, NVML says: {error}") from error
        power_ns, power_mw = timed(lambda: self._fields(POWER_INSTANT_FIELD, POWER_AVERAGE_FIELD))
        sample = PowerSample(
            t_ns=power_ns,
            power_w=_from_milli(power_mw.get(POWER_INSTANT_FIELD)),
            power_average_w=_from_milli(power_mw.get(POWER_AVERAGE_FIELD)),
        )
        with_state = self._num_reads % SAMPLES_PER_STATE == 0
        self._num_reads += 1
        if not with_state:
            return Observation(t_ns=t_ns, energy_j=counter_mj / 1e3, sample=sample)
        held_ns = self._fields(POWER_CAP_FIELD, *THROTTLE_FIELDS)
        throttles_ns = [held_ns[field] for field in THROTTLE_FIELDS if field in held_ns]
        return Observation(
            t_ns=t_ns,
            energy_j=counter_mj / 1e3,
            sample=replace(sample, temperature_c=self._temperature_c(), sm_clock_mhz=self._sm_clock_mhz()),
            throttle_ns=sum(throttles_ns) if throttles_ns else None,
            power_cap_ns=held_ns.get(POWER_CAP_FIELD),
            power_limit_w=_from_milli(self._ask(self._nvml.nvmlDeviceGetEnforcedPowerLimit)),
        )

    def _temperature_c(self) -> float | None:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        celsius = self._ask(self._nvml.nvmlDeviceGetTemperatureV, sensor)
        if celsius is None:  # drivers older than that call have only its predecessor
            celsius = self._ask(self._nvml.nvmlDeviceGetTemperature, sensor)
        return None if celsius is None else float(celsius)

    def _sm_clock_mhz(self) -> float | None:
        mhz = self._ask(self._nvml.nvmlDeviceGetClockInfo, self._nvml.NVML_CLOCK_SM)
        return None if mhz is None else float(mhz)

    def _fields(self, *fields: int) -> dict[int, int]:
        """Values of the fields that this board answers."""
        values = self._ask(self._nvml.nvmlDeviceGetFieldValues, fields) or ()
        return {
            value.fieldId: int(getattr(value.value, _VALUE_MEMBERS[value.valueType]))
            for value in values
            if value.nvmlReturn == self._nvml.NVML_SUCCESS
        }

    def _ask(self, call: Callable[..., Any], *args: object) -> Any:
        """The answer of a call besides the energy counter, None if there is none; a lost GPU shows in the counter."""
        try:
            return call(self._handle, *args)
        except self._nvml.NVMLError:
            return None


def _handle(nvml: Any, uuid: str) -> Any:
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


def _evidence(nvml: Any) -> Evidence:
    """Only the real module measures; it is a module, and a stand-in cannot be taken for it by leaving a mark out."""
    real = isinstance(nvml, ModuleType) and nvml.__name__ == "pynvml"
    return Evidence.MEASURED if real else Evidence.SIMULATED


def _from_milli(value: int | None) -> float | None:
    return None if value is None else value / 1e3
