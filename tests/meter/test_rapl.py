from pathlib import Path

import pytest

from pipeline.errors import MeterError
from pipeline.meter.powercap import POWERCAP_ROOT, package_zones
from pipeline.meter.rapl import RaplMeter
from pipeline.vocabulary import Boundary, Evidence, Reason
from tests.meter.fake_powercap import RANGE_UJ, add_zone, show
from tests.meter.waiting import wait_until


def test_only_packages_are_metered(tmp_path: Path) -> None:
    add_zone(tmp_path, "intel-rapl:1", "package-1")
    add_zone(tmp_path, "intel-rapl:0", "package-0")
    add_zone(tmp_path, "intel-rapl:0:0", "core")
    add_zone(tmp_path, "intel-rapl:0:1", "dram")
    add_zone(tmp_path, "intel-rapl:2", "psys")
    add_zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    info = RaplMeter(tmp_path).info
    assert info.devices == ("package-0", "package-1")
    assert (info.boundary, info.name) == (Boundary.CPU, "rapl")


def test_only_the_kernels_own_folder_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_zone(tmp_path, "intel-rapl:0", "package-0")
    assert RaplMeter(tmp_path).info.evidence is Evidence.SIMULATED
    monkeypatch.setattr("pipeline.meter.rapl.package_zones", lambda root: package_zones(tmp_path))
    assert RaplMeter(POWERCAP_ROOT).info.evidence is Evidence.MEASURED


def test_ticks_are_the_counter_in_joules(tmp_path: Path) -> None:
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=1_000_000)
    with RaplMeter(tmp_path) as meter:
        show(counter, 3_500_000)
        wait_until(lambda: len(meter.reading()["package-0"].ticks) == 1, "a tick")
        show(counter, 4_000_000)
        wait_until(lambda: len(meter.reading()["package-0"].ticks) == 2, "another tick")
        reading = meter.reading()["package-0"]
    assert [tick.energy_j for tick in reading.ticks] == [3.5, 4.0]
    assert reading.samples == []


def test_a_counter_set_back_is_a_fault(tmp_path: Path) -> None:
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=RANGE_UJ // 2)
    with RaplMeter(tmp_path) as meter:
        show(counter, 1000)
        wait_until(meter.faults, "the fault")
        assert meter.faults() == (Reason.COUNTER_RESET,)
        assert meter.reading()["package-0"].ticks == []


@pytest.mark.parametrize("spoil", ["gone", "garbage"])
def test_a_counter_that_cannot_be_read_is_an_error(tmp_path: Path, spoil: str) -> None:
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0")
    meter = RaplMeter(tmp_path)
    if spoil == "gone":
        counter.unlink()
    else:
        counter.write_text("\n")
    with pytest.raises(MeterError, match="energy_uj cannot be read"), meter:
        pass


def test_a_machine_without_rapl_says_what_to_do(tmp_path: Path) -> None:
    add_zone(tmp_path, "intel-rapl:0", "psys")
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(MeterError, match=r"no CPU package.*meter=declared"):
            RaplMeter(root)
