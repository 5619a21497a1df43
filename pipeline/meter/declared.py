"""A declared watts model of the CPU, for machines without an energy sensor. Nothing is measured but CPU time."""

from pipeline.errors import ConfigError
from pipeline.meter.cpu_time import DEVICE, CpuTimeSource
from pipeline.meter.protocol import MeterInfo
from pipeline.meter.sampling import SampledMeter
from pipeline.vocabulary import Boundary, Evidence

SAMPLE_PERIOD_S = 0.1
"""As often as a GPU's counter ticks; the kernel counts CPU time in steps of about 10 ms per core."""


class DeclaredMeter(SampledMeter):
    """Joules = idle_w x elapsed time + busy_w_per_core x busy CPU time of the whole machine, other processes included.

    Evidence is `estimated`. There is no second reading: a power derived from the same model would be none.
    """

    def __init__(self, idle_w: float, busy_w_per_core: float) -> None:
        """Declare the model.

        Args:
            idle_w: Watts of the idle CPU.
            busy_w_per_core: Watts that one busy logical core adds.

        Raises:
            ConfigError: If a parameter is negative or both are 0.
        """
        if idle_w < 0 or busy_w_per_core < 0 or idle_w + busy_w_per_core <= 0:
            raise ConfigError(
                f"declared_idle_w={idle_w:g} and declared_busy_w_per_core={busy_w_per_core:g}: "
                "neither may be negative and one must be above 0; set them under hardware"
            )
        info = MeterInfo(
            name="declared",
            description=f"declared, not measured: {idle_w:g} W + {busy_w_per_core:g} W per busy core of this machine",
            boundary=Boundary.CPU,
            evidence=Evidence.ESTIMATED,
            devices=(DEVICE,),
        )
        super().__init__(info, CpuTimeSource(idle_w, busy_w_per_core), SAMPLE_PERIOD_S)
