import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from pipeline.errors import MeterError
from pipeline.meter import threads
from pipeline.meter.source import Observation, ReadOnce
from pipeline.meter.threads import _read_until, sampled_in_threads
from tests.meter.waiting import wait_until


class GatedSource:
    """One device; a read waits for `gate` and raises `error`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.error: Exception | None = None
        self.is_open = False

    @contextmanager
    def open(self) -> Iterator[Mapping[str, ReadOnce]]:
        self.is_open = True
        try:
            yield {"d": self._read_once}
        finally:
            self.is_open = False

    def _read_once(self) -> Observation:
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait()
        if self.error is not None:
            raise self.error
        return Observation(t_ns=time.monotonic_ns(), energy_j=1.0)


def collect() -> tuple[list[Observation | MeterError], Callable[[str, Observation | MeterError], None]]:
    seen: list[Observation | MeterError] = []
    return seen, lambda device, one: seen.append(one)


def test_it_has_read_once_before_it_lets_go() -> None:
    seen, sink = collect()
    with sampled_in_threads(GatedSource(), 1e6, sink):
        assert len(seen) == 1


def test_a_failed_read_is_the_last_word() -> None:
    source = GatedSource()
    seen, sink = collect()
    with sampled_in_threads(source, 0.005, sink):
        source.error = MeterError("the sensor is gone")
        wait_until(lambda: isinstance(seen[-1], MeterError), "the error")
        source.error = None
    assert str(seen[-1]) == "the sensor is gone"
    assert not source.is_open


def test_a_bug_in_a_read_is_the_last_word_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    source = GatedSource()
    seen, sink = collect()
    with sampled_in_threads(source, 0.005, sink):
        source.error = ZeroDivisionError("a bug")
        wait_until(lambda: raised, "the traceback")
    assert str(seen[-1]) == "d: ZeroDivisionError('a bug')"
    assert raised[0].exc_type is ZeroDivisionError


def test_leaving_does_not_wait_forever_for_a_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "STALLED_S", 0.05)
    source = GatedSource()
    num_threads = threading.active_count()
    with sampled_in_threads(source, 0.005, collect()[1]):
        source.gate.clear()
        wait_until(source.waiting.is_set, "a hanging read")
    assert "does not return" in caplog.text
    source.gate.set()
    wait_until(lambda: threading.active_count() == num_threads, "the end of the thread")


def test_if_the_first_reading_fails_nothing_is_left() -> None:
    source = GatedSource()
    source.error = MeterError("no sensor")
    num_threads = threading.active_count()
    with pytest.raises(MeterError, match="no sensor"), sampled_in_threads(source, 0.005, collect()[1]):
        pass
    assert threading.active_count() == num_threads
    assert not source.is_open


def test_missed_reads_are_not_made_up_for_in_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    waits_s: list[float] = []
    num_reads = 0

    class Stop(threading.Event):
        """Lets time pass instead of waiting, and ends the sampling after six waits."""

        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now_ns
            assert timeout is not None
            now_ns += round(timeout * 1e9)
            waits_s.append(timeout)
            return len(waits_s) == 6

    def read_once() -> Observation:
        nonlocal now_ns, num_reads
        num_reads += 1
        now_ns += 600_000_000 if num_reads == 3 else 4_000_000
        return Observation(t_ns=now_ns, energy_j=0.0)

    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    _read_until(Stop(), "d", read_once, 50_000_000, lambda device, one: None)
    assert waits_s == pytest.approx([0.05, 0.046, 0.046, 0.0, 0.046, 0.046])
