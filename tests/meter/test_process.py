"""Sampling in a child process, with sources that this module makes there."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psutil
import pytest

from pipeline.errors import MeterError
from pipeline.meter import process
from pipeline.meter.nvml_library import NvmlMissingError
from pipeline.meter.process import sampled_in_process
from pipeline.meter.source import Observation, ReadOnce
from tests.meter.waiting import wait_until

Fault = Literal["none", "missing", "bug at the start", "hang at the start", "error", "bug", "hang"]


@dataclass(frozen=True)
class CountingSource:
    """Two devices that count their reads, in whatever process reads them; `b` has a fault after its third read."""

    fault: Fault = "none"

    @contextmanager
    def open(self) -> Iterator[Mapping[str, ReadOnce]]:
        if self.fault == "missing":
            raise NvmlMissingError("no driver; install it")
        if self.fault == "bug at the start":
            raise ZeroDivisionError
        if self.fault == "hang at the start":
            time.sleep(1e6)
        yield {"a": _reader("none"), "b": _reader(self.fault)}


def _reader(fault: Fault) -> ReadOnce:
    num_reads = 0

    def read_once() -> Observation:
        nonlocal num_reads
        num_reads += 1
        if num_reads > 3:
            match fault:
                case "error":
                    raise MeterError("b is lost")
                case "bug":
                    raise ZeroDivisionError
                case "hang":
                    time.sleep(1e6)
                case _:
                    pass
        return Observation(t_ns=time.monotonic_ns(), energy_j=float(num_reads))

    return read_once


class Seen:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.by_device: dict[str, list[Observation | MeterError]] = {"a": [], "b": []}

    def __call__(self, device: str, one: Observation | MeterError) -> None:
        self.by_device[device].append(one)

    def energies_j(self, device: str) -> list[float]:
        return [one.energy_j for one in self.by_device[device] if isinstance(one, Observation)]

    def errors(self, device: str) -> list[str]:
        return [str(one) for one in self.by_device[device] if isinstance(one, MeterError)]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = set(threading.enumerate()), psutil.Process().children()
    yield
    assert (set(threading.enumerate()), psutil.Process().children()) == before


def the_child() -> psutil.Process:
    (child,) = psutil.Process().children()
    return child


def test_every_read_of_every_device_arrives_in_order() -> None:
    seen = Seen()
    with sampled_in_process(CountingSource(), 0.005, seen):
        assert all(seen.energies_j(device)[:1] == [1.0] for device in "ab")
        wait_until(lambda: all(len(seen.energies_j(device)) > 20 for device in "ab"), "readings")
        assert the_child().pid != os.getpid()
    for device in "ab":
        energies_j = seen.energies_j(device)
        assert energies_j == [float(n) for n in range(1, len(energies_j) + 1)]
        assert seen.errors(device) == []


def test_times_are_of_the_clock_of_this_process() -> None:
    seen = Seen()
    before_ns = time.monotonic_ns()
    with sampled_in_process(CountingSource(), 0.005, seen):
        pass
    first = seen.by_device["a"][0]
    assert isinstance(first, Observation)
    assert before_ns < first.t_ns < time.monotonic_ns()


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("missing", NvmlMissingError, "^no driver; install it$"),
        ("bug at the start", MeterError, r"ended before its first reading \(exit status 1\)"),
    ],
)
def test_a_failed_start_is_an_error_here(fault: Fault, kind: type[MeterError], message: str) -> None:
    with pytest.raises(kind, match=message), sampled_in_process(CountingSource(fault), 0.005, Seen()):
        pass


def test_a_start_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_S", 0.5)
    source = CountingSource("hang at the start")
    with pytest.raises(MeterError, match="did not come within"), sampled_in_process(source, 0.005, Seen()):
        pass


@pytest.mark.parametrize(("fault", "message"), [("error", "b is lost"), ("bug", "b: ZeroDivisionError()")])
def test_one_device_ends_and_the_other_goes_on(fault: Fault, message: str) -> None:
    seen = Seen()
    with sampled_in_process(CountingSource(fault), 0.005, seen):
        wait_until(lambda: seen.errors("b"), "the error")
        num_seen = len(seen.energies_j("a"))
        wait_until(lambda: len(seen.energies_j("a")) > num_seen + 3, "the other's readings")
    assert seen.errors("b") == [message]
    assert seen.energies_j("b") == [1.0, 2.0, 3.0]
    assert seen.errors("a") == []


def test_a_child_that_dies_ends_all_devices() -> None:
    seen = Seen()
    with sampled_in_process(CountingSource(), 0.005, seen):
        the_child().kill()
        wait_until(lambda: seen.errors("a") and seen.errors("b"), "the errors")
        assert seen.errors("a") == ["a: the sampling process ended (exit status -9)"]


def test_a_child_whose_read_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(process, "STALLED_S", 0.2)
    seen = Seen()
    with sampled_in_process(CountingSource("hang"), 0.005, seen):
        wait_until(lambda: len(seen.energies_j("b")) == 3, "the hanging read")
        wait_until(lambda: len(seen.energies_j("a")) > 6, "the other's readings")
    assert "it is killed" in caplog.text
    assert seen.errors("a") == []


def test_ctrl_c_does_not_reach_the_child() -> None:
    seen = Seen()
    with sampled_in_process(CountingSource(), 0.005, seen):
        assert os.getpgid(the_child().pid) != os.getpgid(0)
        the_child().send_signal(signal.SIGINT)
        num_seen = len(seen.energies_j("a"))
        wait_until(lambda: len(seen.energies_j("a")) > num_seen + 20, "more readings")
    assert seen.errors("a") == []


def test_an_error_inside_passes_through() -> None:
    with pytest.raises(KeyError), sampled_in_process(CountingSource(), 0.005, Seen()):
        raise KeyError


PARENT = """
import os, time, psutil
from pipeline.meter.declared import DeclaredMeter

with DeclaredMeter(10.0, 5.0):
    child = psutil.Process().children()[0].pid
    heir = {fork}
    if heir != 0:
        print(child, heir or "", flush=True)
    time.sleep(1e6)
"""


@pytest.mark.parametrize("fork", ["None", "os.fork()"], ids=["alone", "with an heir of its pipe"])
def test_a_child_does_not_outlive_a_parent_that_is_killed(fork: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PARENT.format(fork=fork)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        child, *heirs = [psutil.Process(pid) for pid in pids]
        parent.kill()
        try:
            wait_until(lambda: not _runs(child), "the end of the child")
        finally:
            for heir in heirs:
                heir.kill()


def _runs(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
