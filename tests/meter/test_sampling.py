import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from pipeline.errors import MeterError
from pipeline.meter import recorder
from pipeline.meter.protocol import DeviceReading, MeterInfo
from pipeline.meter.sampling import SampledMeter
from pipeline.meter.source import Observation, ReadOnce
from pipeline.meter.threads import sampled_in_threads
from pipeline.vocabulary import Boundary, Evidence, Reason
from tests.meter.waiting import wait_until

INFO = MeterInfo(
    name="scripted", description="a test", boundary=Boundary.CPU, evidence=Evidence.SIMULATED, devices=("d",)
)


class ScriptedSource:
    """One device that shows these energies one after the other, then stays at the last."""

    def __init__(self, *energies_j: float) -> None:
        self.energies_j = [*energies_j]
        self.last_j = 0.0
        self.error: MeterError | None = None
        self.gate = threading.Event()
        self.gate.set()

    @contextmanager
    def open(self) -> Iterator[Mapping[str, ReadOnce]]:
        yield {"d": self._read_once}

    def _read_once(self) -> Observation:
        self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.energies_j:
            self.last_j = self.energies_j.pop(0)
        return Observation(t_ns=time.monotonic_ns(), energy_j=self.last_j)


def make_meter(source: ScriptedSource) -> SampledMeter:
    return SampledMeter(INFO, source, 0.005, sampled_in_threads)


def ticks_j(meter: SampledMeter) -> list[float]:
    return [tick.energy_j for tick in meter.reading()["d"].ticks]


def test_before_the_start_there_is_an_empty_reading() -> None:
    meter = make_meter(ScriptedSource())
    assert meter.reading() == {"d": DeviceReading()}
    assert meter.faults() == ()


def test_a_second_start_begins_anew() -> None:
    source = ScriptedSource(1.0, 2.0, 1.0)
    meter = make_meter(source)
    with meter:
        wait_until(meter.faults, "the fault")
    assert ticks_j(meter) == [2.0]
    assert meter.faults() == (Reason.COUNTER_RESET,)
    source.energies_j = [10.0, 11.0]
    with meter:
        wait_until(lambda: ticks_j(meter), "a tick")
    assert ticks_j(meter) == [11.0]
    assert meter.faults() == ()


def test_a_failed_first_reading_is_an_error() -> None:
    source = ScriptedSource()
    source.error = MeterError("no sensor")
    with pytest.raises(MeterError, match="no sensor"), make_meter(source):
        pass


def test_a_failed_read_ends_the_reading_and_says_why() -> None:
    source = ScriptedSource(1.0, 2.0)
    with make_meter(source) as meter:
        wait_until(lambda: ticks_j(meter), "a tick")
        source.error = MeterError("the sensor is gone")
        wait_until(meter.faults, "the fault")
    assert meter.faults() == (Reason.NO_ENERGY,)
    assert ticks_j(meter) == [2.0]


def test_a_read_that_does_not_return_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "STALLED_S", 0.2)
    source = ScriptedSource(1.0)
    with make_meter(source) as meter:
        source.gate.clear()
        wait_until(meter.faults, "the fault")
        source.gate.set()
    assert meter.faults() == (Reason.NO_ENERGY,)


def test_silence_after_the_end_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with make_meter(ScriptedSource(1.0)) as meter:
        pass
    monkeypatch.setattr(recorder, "STALLED_S", 0.0)
    assert meter.faults() == ()
