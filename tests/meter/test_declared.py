import time
from types import SimpleNamespace

import psutil
import pytest

from pipeline.errors import ConfigError
from pipeline.meter.declared import BUSY_STATES, DeclaredMeter, busy_cpu_s
from pipeline.record import Boundary, Evidence
from tests.meter.waiting import wait_until


def at(monkeypatch: pytest.MonkeyPatch, second: float, **cpu_s: float) -> None:
    """Stop the clock and the CPU time counters at these values."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: round(second * 1e9))
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**cpu_s))


def test_joules_are_idle_times_elapsed_plus_busy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 1000.0, user=50.0, system=7.0, idle=1.0)
    with DeclaredMeter(idle_w=10.0, busy_w_per_core=5.0)._open() as read_once:
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


def test_work_raises_the_energy() -> None:
    with DeclaredMeter(idle_w=0.0, busy_w_per_core=100.0) as meter:
        busy_before_s = busy_cpu_s()
        while busy_cpu_s() < busy_before_s + 0.05:
            sum(range(10_000))
        wait_until(lambda: meter.reading()["cpu"].ticks, "a tick")


def test_it_says_that_nothing_was_measured() -> None:
    info = DeclaredMeter(idle_w=12.5, busy_w_per_core=4.0).info
    assert (info.evidence, info.boundary) == (Evidence.ESTIMATED, Boundary.CPU)
    assert info.description == "declared, not measured: 12.5 W + 4 W per busy core of this machine"


@pytest.mark.parametrize(("idle_w", "busy_w_per_core"), [(-1.0, 5.0), (5.0, -1.0), (0.0, 0.0)])
def test_impossible_watts_are_refused(idle_w: float, busy_w_per_core: float) -> None:
    with pytest.raises(ConfigError, match="declared_idle_w"):
        DeclaredMeter(idle_w, busy_w_per_core)
