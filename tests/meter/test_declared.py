import pytest

from pipeline.errors import ConfigError
from pipeline.meter.cpu_time import busy_cpu_s
from pipeline.meter.declared import DeclaredMeter
from pipeline.vocabulary import Boundary, Evidence
from tests.meter.waiting import wait_until


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
