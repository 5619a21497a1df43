"""A meter over recorded readings: everything is there at once, to recompute stored rows."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Self

from pipeline.errors import MeterError
from pipeline.meter.protocol import DeviceReading, MeterInfo
from pipeline.meter.recorder import copied
from pipeline.vocabulary import Reason


class ReplayMeter:
    """Yields what another meter recorded, under that meter's own info: same evidence, same boundary."""

    def __init__(self, readings: Mapping[str, DeviceReading], info: MeterInfo, faults: tuple[Reason, ...] = ()) -> None:
        """Keep a copy of the recording.

        Args:
            readings: What was read, by device.
            info: The recording meter's.
            faults: The recording meter's.

        Raises:
            MeterError: If a device of `info` was not recorded, or one was that is not in it, or its ticks are
                not in order of time and energy.
        """
        if set(readings) != set(info.devices):
            raise MeterError(
                f"recording holds devices {sorted(readings)}, its meter had {sorted(info.devices)}; "
                "replay the whole recording of one meter"
            )
        for uuid, reading in readings.items():
            if any(b.t_ns <= a.t_ns or b.energy_j < a.energy_j for a, b in pairwise(reading.ticks)):
                raise MeterError(f"recording of {uuid}: ticks go back in time or energy; it is no meter's recording")
        self.info = info
        self._readings = {uuid: copied(readings[uuid]) for uuid in info.devices}
        self._faults = faults

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to stop."""

    def reading(self) -> dict[str, DeviceReading]:
        """A copy of the whole recording, by device."""
        return {uuid: copied(reading) for uuid, reading in self._readings.items()}

    def faults(self) -> tuple[Reason, ...]:
        """The recording meter's faults."""
        return self._faults
