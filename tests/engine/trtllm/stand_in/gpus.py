"""H100s that draw what the stand-in servers on them publish, as tests/meter/fake_nvml.py shows GPUs to the meter."""

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path

from tests.engine.trtllm.stand_in.power import IDLE_W, PowerFile, gpu_uuid
from tests.meter.fake_nvml import FakeGpu, FakeNvml

POWER_DIR = "STAND_IN_POWER_DIR"
NUM_GPUS = "STAND_IN_NUM_GPUS"
"""Environment variables that say which GPUs there are, for the meter's own process as well."""


@dataclass(eq=False, kw_only=True)
class ServedGpu(FakeGpu):
    """One GPU; its counter moves in ticks as any FakeGpu's, by what has been published up to then."""

    power_file: PowerFile
    _tick: int = -1
    _shown_mj: int = 0

    def __post_init__(self) -> None:
        self.power_w = lambda _: IDLE_W + self.power_file.read()[1]

    def counter_mj(self, now_s: float) -> int:
        """Idle energy since the fake was made, and the active energy that was published."""
        tick = math.floor(now_s / self.tick_s)
        if tick != self._tick:
            self._tick = tick
            self._shown_mj = round(1e3 * (IDLE_W * tick * self.tick_s + self.power_file.read()[0]))
        return self.energy_at_start_mj + self._shown_mj


@functools.cache
def served_gpus() -> FakeNvml:
    """The fake driver of this process, as the environment says; stands in for `import_nvml`."""
    folder = Path(os.environ[POWER_DIR])
    numbers = range(int(os.environ[NUM_GPUS]))
    return FakeNvml(*(ServedGpu(uuid=gpu_uuid(n), tick_s=0.03, power_file=PowerFile(folder, n)) for n in numbers))
