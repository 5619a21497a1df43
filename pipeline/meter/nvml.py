"""GPU board energy from NVIDIA's management library (NVML)."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from pipeline.errors import MeterError
from pipeline.meter.nvml_library import import_nvml, initialized
from pipeline.meter.nvml_source import NvmlSource, device_handle
from pipeline.meter.process import sampled_in_process
from pipeline.meter.protocol import MeterInfo
from pipeline.meter.sampling import SampledMeter
from pipeline.meter.threads import sampled_in_threads
from pipeline.vocabulary import Boundary, Evidence

SAMPLE_PERIOD_S = 0.02
"""A tick is seen 20 ms late at most. Measured on an H100 80GB HBM3: the counter moves every 100 ms, five times as long,
so 85 % of ticks are seen 99-101 ms apart (at 40 ms they would be seen 80 and 120 ms apart). A read keeps a core busy
for 4.1 ms, so the meter takes 0.23 cores per GPU. The idle GPU draws 72.1 W whether it is read every 10 ms or every
900."""


class NvmlMeter(SampledMeter):
    """Board energy of the given GPUs: the driver's energy counter, and instantaneous power as a second reading."""

    def __init__(self, uuids: Sequence[str], nvml: Any = None) -> None:
        """Identify the GPUs.

        Args:
            uuids: GPUs in the order of the deployment's devices.
            nvml: Module with the interface of pynvml; None imports it. One that is handed in is read by threads of
                this process, for another process would have its own. Anything but the real module is taken for a
                stand-in, and its evidence is `simulated`.

        Raises:
            MeterError: If NVML is not there, a UUID is unknown, MIG is on, or no GPU is given.
        """
        if not uuids:
            raise MeterError("meter=nvml: no GPU to meter; make one visible (CUDA_VISIBLE_DEVICES)")
        library = import_nvml() if nvml is None else nvml
        with initialized(library):
            names = {str(library.nvmlDeviceGetName(device_handle(library, uuid))) for uuid in uuids}
            driver_version = str(library.nvmlSystemGetDriverVersion())
        info = MeterInfo(
            name="nvml",
            description=f"NVML board energy counters of {len(uuids)} x {', '.join(sorted(names))}",
            boundary=Boundary.GPU,
            evidence=_evidence(library),
            devices=tuple(uuids),
            device_name=names.pop() if len(names) == 1 else None,
            driver_version=driver_version,
        )
        source = NvmlSource(info.devices, import_nvml if nvml is None else lambda: library)
        super().__init__(info, source, SAMPLE_PERIOD_S, sampled_in_process if nvml is None else sampled_in_threads)


def _evidence(nvml: Any) -> Evidence:
    """Only the real module measures; it is a module, and a stand-in cannot be taken for it by leaving a mark out."""
    real = isinstance(nvml, ModuleType) and nvml.__name__ == "pynvml"
    return Evidence.MEASURED if real else Evidence.SIMULATED
