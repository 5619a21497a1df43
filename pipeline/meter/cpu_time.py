"""Joules of a declared watts model of the CPU, from CPU time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from pipeline.cpu import busy_s
from pipeline.meter.source import Observation, ReadOnce, timed

DEVICE = "cpu"


@dataclass(frozen=True, slots=True)
class CpuTimeSource:
    """Joules since the start = idle_w x elapsed time + busy_w_per_core x busy CPU time of the whole machine."""

    idle_w: float
    busy_w_per_core: float

    @contextmanager
    def open(self) -> Iterator[Mapping[str, ReadOnce]]:
        """Start counting."""
        start_ns, start_busy_s = timed(busy_cpu_s)

        def read_once() -> Observation:
            t_ns, now_busy_s = timed(busy_cpu_s)
            elapsed_s = (t_ns - start_ns) / 1e9
            return Observation(
                t_ns=t_ns, energy_j=self.idle_w * elapsed_s + self.busy_w_per_core * (now_busy_s - start_busy_s)
            )

        yield {DEVICE: read_once}


def busy_cpu_s() -> float:
    """Busy time summed over all cores since boot, seconds."""
    return busy_s(psutil.cpu_times())
