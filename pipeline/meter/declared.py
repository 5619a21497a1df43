"""A declared watts model of the CPU, for machines without an energy sensor. Nothing is measured but CPU time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from pipeline.errors import ConfigError
from pipeline.meter.protocol import MeterInfo
from pipeline.meter.sampling import Observation, ReadOnce, SampledMeter, timed
from pipeline.record import Boundary, Evidence

DEVICE = "cpu"
SAMPLE_PERIOD_S = 0.1
"""As often as a GPU's counter ticks; the kernel counts CPU time in steps of about 10 ms per core."""

BUSY_STATES = ("user", "nice", "system", "irq", "softirq")
"""States of `psutil.cpu_times` in which a core of this machine works. Left out: idle and iowait (it does not), steal
(another virtual machine had the core), guest and guest_nice (Linux counts them in user and nice already, proc(5))."""


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
        self._idle_w = idle_w
        self._busy_w_per_core = busy_w_per_core
        info = MeterInfo(
            name="declared",
            description=f"declared, not measured: {idle_w:g} W + {busy_w_per_core:g} W per busy core of this machine",
            boundary=Boundary.CPU,
            evidence=Evidence.ESTIMATED,
            devices=(DEVICE,),
        )
        super().__init__(info, SAMPLE_PERIOD_S)

    @contextmanager
    def _open(self) -> Iterator[Mapping[str, ReadOnce]]:
        start_ns, start_busy_s = timed(busy_cpu_s)

        def read_once() -> Observation:
            t_ns, busy_s = timed(busy_cpu_s)
            elapsed_s = (t_ns - start_ns) / 1e9
            return Observation(
                t_ns=t_ns,
                energy_j=self._idle_w * elapsed_s + self._busy_w_per_core * (busy_s - start_busy_s),
            )

        yield {DEVICE: read_once}


def busy_cpu_s() -> float:
    """Busy time summed over all cores since boot, seconds; a state that the platform does not count adds nothing."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, state, 0.0) for state in BUSY_STATES))
