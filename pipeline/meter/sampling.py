"""A meter is what it says of itself, plus a source that is sampled in the background."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Self

from pipeline.meter.process import sampled_in_process
from pipeline.meter.protocol import DeviceReading, MeterInfo
from pipeline.meter.recorder import DeviceRecorder
from pipeline.meter.source import Sink, Source
from pipeline.vocabulary import Reason

Sampling = Callable[[Source, float, Sink], AbstractContextManager[None]]
"""Samples a source every so many seconds into a sink: `sampled_in_process` or `sampled_in_threads`."""


class SampledMeter:
    """Samples a source from `__enter__` to `__exit__` and keeps what changed; satisfies the Meter protocol."""

    def __init__(
        self, info: MeterInfo, source: Source, period_s: float, sampling: Sampling = sampled_in_process
    ) -> None:
        """Describe the meter.

        Args:
            info: What it is; its devices are the source's.
            source: What to read.
            period_s: From one read to the next, seconds.
            sampling: Where the reads run. A source that holds something of this process needs its threads.
        """
        self.info = info
        self._source = source
        self._period_s = period_s
        self._sampling = sampling
        self._recorders: dict[str, DeviceRecorder] = {}
        self._running = ExitStack()

    def __enter__(self) -> Self:
        """Start sampling; what an earlier run read is dropped.

        Raises:
            MeterError: If the first reading fails.
        """
        self._running.close()
        self._recorders = recorders = {uuid: DeviceRecorder(uuid) for uuid in self.info.devices}
        with ExitStack() as starting:
            starting.enter_context(
                self._sampling(self._source, self._period_s, lambda uuid, seen: recorders[uuid].record(seen))
            )
            for recorder in recorders.values():
                starting.callback(recorder.close)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop sampling; what was read stays readable."""
        self._running.close()

    def reading(self) -> dict[str, DeviceReading]:
        """A copy of everything read so far, by device; empty readings before the start."""
        recorders = self._recorders
        return {uuid: recorders[uuid].reading() if uuid in recorders else DeviceReading() for uuid in self.info.devices}

    def faults(self) -> tuple[Reason, ...]:
        """What went wrong on any device since the start."""
        return tuple(sorted(set().union(*(recorder.faults() for recorder in self._recorders.values()))))
