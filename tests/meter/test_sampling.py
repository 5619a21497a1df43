import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from pipeline.errors import MeterError
from pipeline.meter import sampling
from pipeline.meter.protocol import DeviceReading, MeterInfo
from pipeline.meter.sampling import DeviceSampler, Observation, ReadOnce, SampledMeter, timed
from pipeline.record import Boundary, Evidence, Reason
from tests.meter.waiting import wait_until


class ScriptedMeter(SampledMeter):
    """One device that calls `read_j` for its energy."""

    def __init__(self, period_s: float = 0.005) -> None:
        info = MeterInfo(
            name="scripted",
            description="a test",
            boundary=Boundary.CPU,
            evidence=Evidence.SIMULATED,
            devices=("d",),
        )
        super().__init__(info, period_s)
        self.energies_j: list[float] = []
        self.last_j = 0.0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.num_reads = 0
        self.is_open = False

    @contextmanager
    def _open(self) -> Iterator[Mapping[str, ReadOnce]]:
        self.is_open = True
        try:
            yield {"d": self._read_once}
        finally:
            self.is_open = False

    def _read_once(self) -> Observation:
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait()
        self.num_reads += 1
        if self.error is not None:
            raise self.error
        if self.energies_j:
            self.last_j = self.energies_j.pop(0)
        return Observation(t_ns=time.monotonic_ns(), energy_j=self.last_j)

    def ticks_j(self) -> list[float]:
        return [tick.energy_j for tick in self.reading()["d"].ticks]


def run(energies_j: list[float]) -> ScriptedMeter:
    meter = ScriptedMeter()
    meter.energies_j = [*energies_j]
    with meter:
        wait_until(lambda: not meter.energies_j and meter.num_reads > len(energies_j), "all reads")
    return meter


def test_a_tick_is_a_change_and_the_first_reading_is_none() -> None:
    meter = run([5.0, 5.0, 6.0, 6.0, 6.0, 8.5])
    assert meter.ticks_j() == [6.0, 8.5]
    assert meter.faults() == ()


def test_ticks_end_where_the_counter_goes_backwards() -> None:
    meter = run([5.0, 6.0, 7.0, 1.0, 2.0, 9.0])
    assert meter.ticks_j() == [6.0, 7.0]
    assert meter.faults() == (Reason.COUNTER_RESET,)


def test_a_failed_read_ends_the_reading_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedMeter() as meter:
        meter.error = MeterError("the sensor is gone")
        wait_until(meter.faults, "the fault")
    assert meter.faults() == (Reason.NO_ENERGY,)
    assert "the sensor is gone; its readings end here" in caplog.text


def test_a_bug_in_a_read_is_a_fault_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with ScriptedMeter() as meter:
        meter.error = ZeroDivisionError()
        wait_until(meter.faults, "the fault")
    assert meter.faults() == (Reason.NO_ENERGY,)
    assert seen[0].exc_type is ZeroDivisionError


def test_a_read_that_does_not_return_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "STALLED_S", 0.2)
    with ScriptedMeter() as meter:
        meter.gate.clear()
        wait_until(meter.faults, "the fault")
        meter.gate.set()
    assert meter.faults() == (Reason.NO_ENERGY,)


def test_leaving_does_not_wait_forever_for_a_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampling, "STALLED_S", 0.05)
    threads = threading.active_count()
    with ScriptedMeter() as meter:
        meter.gate.clear()
        wait_until(meter.waiting.is_set, "a hanging read")
    assert "does not return" in caplog.text
    meter.gate.set()
    wait_until(lambda: threading.active_count() == threads, "the end of the thread")


def test_if_the_first_reading_fails_nothing_is_left() -> None:
    meter = ScriptedMeter()
    meter.error = MeterError("no sensor")
    threads = threading.active_count()
    with pytest.raises(MeterError, match="no sensor"):
        meter.__enter__()
    assert threading.active_count() == threads
    assert not meter.is_open


def test_missed_reads_are_not_made_up_for_in_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    waits_s: list[float] = []
    num_reads = 0

    class Stop:
        """Lets time pass instead of waiting, and ends the sampling after six waits."""

        def wait(self, timeout_s: float) -> bool:
            nonlocal now_ns
            now_ns += round(timeout_s * 1e9)
            waits_s.append(timeout_s)
            return len(waits_s) == 6

    def read_once() -> Observation:
        nonlocal now_ns, num_reads
        num_reads += 1
        now_ns += 600_000_000 if num_reads == 3 else 4_000_000
        return Observation(t_ns=now_ns, energy_j=0.0)

    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    sampler = DeviceSampler("d", read_once, period_s=0.05)
    monkeypatch.setattr(sampler, "_stop", Stop())
    sampler._read_until_stopped()
    assert waits_s == pytest.approx([0.05, 0.046, 0.046, 0.0, 0.046, 0.046])


def test_before_the_start_there_is_an_empty_reading() -> None:
    meter = ScriptedMeter()
    assert meter.reading() == {"d": DeviceReading()}
    assert meter.faults() == ()


def test_a_second_start_begins_anew() -> None:
    meter = run([1.0, 2.0, 1.0])
    assert meter.faults() == (Reason.COUNTER_RESET,)
    meter.energies_j = [10.0, 11.0]
    with meter:
        wait_until(meter.ticks_j, "a tick")
    assert meter.ticks_j() == [11.0]
    assert meter.faults() == ()


def test_the_time_of_a_read_is_its_midpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ns = iter([1000, 1400])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(clock_ns))
    assert timed(lambda: "value") == (1200, "value")
