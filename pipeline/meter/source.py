"""What can be sampled: a source opens its devices and gives a function that reads each of them once.

A source travels to the sampling process, so it pickles, and its module imports nothing heavy.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipeline.errors import MeterError
from pipeline.meter.protocol import PowerSample, StateSample

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one read of one device returned; None where this read did not ask.

    Attributes:
        t_ns: Midpoint of the read of the energy counter on the monotonic clock.
        energy_j: Cumulative joules as the counter stands.
        sample: Power of the device.
        state: State of the device.
    """

    t_ns: int
    energy_j: float
    sample: PowerSample | None = None
    state: StateSample | None = None


ReadOnce = Callable[[], Observation]
"""Reads one device once. Raises MeterError if the device does not give its energy."""

Sink = Callable[[str, Observation | MeterError], None]
"""Takes what was read of a device, or why its readings end. Called from any thread."""


class Source(Protocol):
    """A fixed set of devices."""

    def open(self) -> AbstractContextManager[Mapping[str, ReadOnce]]:
        """Hold the devices open and give the read function of each.

        Raises:
            MeterError: If a device cannot be opened.
        """
        ...


def timed(read: Callable[[], _T]) -> tuple[int, _T]:
    """Call `read`; return the midpoint of the call on the monotonic clock, ns, and what it returned."""
    before_ns = time.monotonic_ns()
    value = read()
    return (before_ns + time.monotonic_ns()) // 2, value
