import time
from types import SimpleNamespace

import psutil
import pytest

from pipeline.cpu import BUSY_STATES
from pipeline.meter.cpu_time import CpuTimeSource, busy_cpu_s


def at(monkeypatch: pytest.MonkeyPatch, second: float, **cpu_s: float) -> None:
    """Stop the clock and the CPU time counters at these values."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: round(second * 1e9))
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**cpu_s))


def test_joules_are_idle_times_elapsed_plus_busy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 1000.0, user=50.0, system=7.0, idle=1.0)
    with CpuTimeSource(idle_w=10.0, busy_w_per_core=5.0).open() as read_once:
        assert read_once["cpu"]().energy_j == 0.0
        at(monkeypatch, 1004.0, user=53.0, system=7.5, idle=9.0)
        assert read_once["cpu"]().energy_j == pytest.approx(10.0 * 4.0 + 5.0 * 3.5)
        assert read_once["cpu"]().t_ns == 1004 * 10**9


def test_only_time_in_which_a_core_works_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {"user": 1.0, "nice": 2.0, "system": 4.0, "irq": 8.0, "softirq": 16.0}
    at(monkeypatch, 0.0, **busy, idle=32.0, iowait=64.0, steal=128.0, guest=256.0, guest_nice=512.0)
    assert busy_cpu_s() == sum(busy.values())
    assert set(busy) == set(BUSY_STATES)


def test_a_platform_that_counts_fewer_states_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 0.0, user=1.0, nice=0.5, system=2.0, idle=9.0)
    assert busy_cpu_s() == 3.5
