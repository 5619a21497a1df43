"""Background sampling: a meter is a function that reads one device once, plus this.

Each device has its own thread, so several GPUs are read in parallel: a read waits in the driver, where
ctypes has released the interpreter lock.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Self, TypeVar

from pipeline.errors import MeterError
from pipeline.meter.protocol import DeviceReading, EnergyTick, MeterInfo, PowerSample
from pipeline.record import Reason

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

STALLED_S = 5.0
"""A device whose read has not come back for this long has stopped answering: fifty refreshes of a 100 ms sensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one read of one device returned; None where this read did not ask or the device did not answer.

    Attributes:
        t_ns: Midpoint of the read of the energy counter on the monotonic clock.
        energy_j: Cumulative joules as the counter stands.
        sample: Power and state of the device.
        throttle_ns: Cumulative ns held back for heat or power brake.
        power_cap_ns: Cumulative ns held back by the power limit.
        power_limit_w: Enforced power limit.
    """

    t_ns: int
    energy_j: float
    sample: PowerSample | None = None
    throttle_ns: int | None = None
    power_cap_ns: int | None = None
    power_limit_w: float | None = None


ReadOnce = Callable[[], Observation]
"""Reads one device once. Raises MeterError if the device does not give its energy."""


def timed(read: Callable[[], _T]) -> tuple[int, _T]:
    """Call `read`; return the midpoint of the call on the monotonic clock, ns, and what it returned."""
    before_ns = time.monotonic_ns()
    value = read()
    return (before_ns + time.monotonic_ns()) // 2, value


class DeviceSampler:
    """Reads one device at a fixed period in its own thread and keeps what changed.

    The first reading only sets the origin: it is no tick, because it does not say when the counter changed.
    When the counter goes backwards, ticks end and the rest goes on; when a read fails, all of it ends.
    """

    def __init__(self, device: str, read_once: ReadOnce, period_s: float) -> None:
        self._device = device
        self._read_once = read_once
        self._period_ns = round(period_s * 1e9)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"meter-{device}", daemon=True)
        self._reading = DeviceReading()
        self._power_limit_w: float | None = None
        self._counter_j = 0.0
        self._last_read_ns = 0
        self._faults: set[Reason] = set()

    def __enter__(self) -> Self:
        """Read once in the caller's thread, then start the sampler's.

        Raises:
            MeterError: If the first reading fails.
        """
        first = self._read_once()
        self._counter_j = first.energy_j
        self._record(first)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the thread and wait for it; a read that hangs in the driver is logged and left behind."""
        self._stop.set()
        self._thread.join(STALLED_S)
        if self._thread.is_alive():
            _LOG.warning("%s: a read of the energy counter does not return; its thread is left behind", self._device)

    def reading(self) -> DeviceReading:
        """A copy of everything read so far."""
        with self._lock:
            return DeviceReading(
                ticks=list(self._reading.ticks),
                samples=list(self._reading.samples),
                throttle_ns=list(self._reading.throttle_ns),
                power_cap_ns=list(self._reading.power_cap_ns),
                power_limit_w=self._power_limit_w,
            )

    def faults(self) -> set[Reason]:
        """What went wrong since the start."""
        with self._lock:
            stalled = time.monotonic_ns() - self._last_read_ns > STALLED_S * 1e9
            if stalled and self._thread.is_alive():
                self._faults.add(Reason.NO_ENERGY)
            return set(self._faults)

    def _run(self) -> None:
        try:
            self._read_until_stopped()
        except MeterError as error:
            _LOG.warning("%s; its readings end here", error)
        finally:
            if not self._stop.is_set():
                with self._lock:
                    self._faults.add(Reason.NO_ENERGY)

    def _read_until_stopped(self) -> None:
        due_ns = time.monotonic_ns()
        while True:
            now_ns = time.monotonic_ns()
            due_ns = max(due_ns + self._period_ns, now_ns)  # a missed read is skipped, not made up for in a burst
            if self._stop.wait((due_ns - now_ns) / 1e9):
                return
            self._record(self._read_once())

    def _record(self, seen: Observation) -> None:
        with self._lock:
            self._last_read_ns = seen.t_ns
            self._record_energy(seen)
            if seen.sample is not None:
                self._reading.samples.append(seen.sample)
            if seen.throttle_ns is not None:
                self._reading.throttle_ns.append((seen.t_ns, seen.throttle_ns))
            if seen.power_cap_ns is not None:
                self._reading.power_cap_ns.append((seen.t_ns, seen.power_cap_ns))
            if seen.power_limit_w is not None:
                self._power_limit_w = seen.power_limit_w

    def _record_energy(self, seen: Observation) -> None:
        if Reason.COUNTER_RESET in self._faults or seen.energy_j == self._counter_j:
            return
        if seen.energy_j < self._counter_j:
            self._faults.add(Reason.COUNTER_RESET)
            _LOG.warning(
                "%s: energy counter went back from %.3f J to %.3f J; its ticks end here",
                self._device,
                self._counter_j,
                seen.energy_j,
            )
            return
        self._counter_j = seen.energy_j
        self._reading.ticks.append(EnergyTick(seen.t_ns, seen.energy_j))


class SampledMeter(ABC):
    """A meter whose devices are sampled in the background. A subclass says how to read each of them once."""

    def __init__(self, info: MeterInfo, period_s: float) -> None:
        self.info = info
        self._period_s = period_s
        self._samplers: dict[str, DeviceSampler] = {}
        self._running = ExitStack()

    @abstractmethod
    def _open(self) -> AbstractContextManager[Mapping[str, ReadOnce]]:
        """Hold the devices open and give the read function of each one in `info.devices`.

        Raises:
            MeterError: If a device cannot be opened.
        """

    def __enter__(self) -> Self:
        """Start sampling; what an earlier run read is dropped.

        Raises:
            MeterError: If the first reading fails.
        """
        self._running.close()
        with ExitStack() as starting:
            read_once = starting.enter_context(self._open())
            self._samplers = {uuid: DeviceSampler(uuid, read_once[uuid], self._period_s) for uuid in self.info.devices}
            for sampler in self._samplers.values():
                starting.enter_context(sampler)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop sampling; what was read stays readable."""
        self._running.close()

    def reading(self) -> dict[str, DeviceReading]:
        """A copy of everything read so far, by device; empty readings before the start."""
        samplers = self._samplers
        return {uuid: samplers[uuid].reading() if uuid in samplers else DeviceReading() for uuid in self.info.devices}

    def faults(self) -> tuple[Reason, ...]:
        """What went wrong on any device since the start."""
        return tuple(sorted(set().union(*(sampler.faults() for sampler in self._samplers.values()))))
