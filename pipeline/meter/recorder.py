"""Keeps of one device's observations what changed."""

import logging
import threading
import time

from pipeline.errors import MeterError
from pipeline.meter.protocol import DeviceReading, EnergyTick, PowerSample
from pipeline.meter.source import Observation
from pipeline.meter.threads import STALLED_S
from pipeline.vocabulary import Reason

_LOG = logging.getLogger(__name__)


class DeviceRecorder:
    """The reading of one device, and what went wrong with it. Any thread may call it.

    The first observation only sets the origin: it is no tick, because it does not say when the counter changed.
    When the counter goes backwards, ticks end and the rest goes on; an error ends all of it. A power sample with the
    value and field timestamp of the one before is the same sample, seen again.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._reading = DeviceReading()
        self._counter_j: float | None = None
        self._last_read_ns = 0
        self._ended = False
        self._closed = False
        self._faults: set[Reason] = set()

    def record(self, seen: Observation | MeterError) -> None:
        """Keep what an observation adds, or end with an error."""
        with self._lock:
            if self._ended:
                return
            if isinstance(seen, MeterError):
                _LOG.warning("%s; its readings end here", seen)
                self._faults.add(Reason.NO_ENERGY)
                self._ended = True
                return
            self._last_read_ns = seen.t_ns
            self._record_energy(seen)
            if seen.sample is not None and not self._is_repeated(seen.sample):
                self._reading.samples.append(seen.sample)
            if seen.state is not None:
                self._reading.states.append(seen.state)

    def close(self) -> None:
        """Sampling is about to stop: from here on silence is no fault."""
        self.faults()
        with self._lock:
            self._closed = True

    def reading(self) -> DeviceReading:
        """A copy of everything kept so far."""
        with self._lock:
            return copied(self._reading)

    def faults(self) -> set[Reason]:
        """What went wrong so far; a device that has not answered for STALLED_S has no energy to give."""
        with self._lock:
            silent_ns = time.monotonic_ns() - self._last_read_ns
            if not (self._ended or self._closed) and silent_ns > STALLED_S * 1e9:
                self._faults.add(Reason.NO_ENERGY)
            return set(self._faults)

    def _record_energy(self, seen: Observation) -> None:
        before_j, self._counter_j = self._counter_j, seen.energy_j
        if Reason.COUNTER_RESET in self._faults or before_j is None or seen.energy_j == before_j:
            return
        if seen.energy_j < before_j:
            self._faults.add(Reason.COUNTER_RESET)
            _LOG.warning(
                "%s: energy counter went back from %.3f J to %.3f J; its ticks end here",
                self._device,
                before_j,
                seen.energy_j,
            )
            return
        self._reading.ticks.append(EnergyTick(seen.t_ns, seen.energy_j))

    def _is_repeated(self, sample: PowerSample) -> bool:
        if not self._reading.samples or sample.field_t_us is None:
            return False
        last = self._reading.samples[-1]
        return (sample.field_t_us, sample.power_w) == (last.field_t_us, last.power_w)


def copied(reading: DeviceReading) -> DeviceReading:
    """A copy with lists of its own."""
    return DeviceReading(ticks=list(reading.ticks), samples=list(reading.samples), states=list(reading.states))
