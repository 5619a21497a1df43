import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.errors import MeterError
from pipeline.meter.rapl import POWERCAP_ROOT, RaplMeter, _PackageReader, package_zones
from pipeline.record import Boundary, Evidence, Reason
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


def test_it_counts_on_across_wrap_arounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_uj = [RANGE_UJ - 2_000_000, 1_000_000, RANGE_UJ - 1_000_000, 500_000]
    energies_j = _read(tmp_path, monkeypatch, show_uj, times_ms=[0, 50, 3_600_000, 3_600_050])
    origin_j = energies_j[0]
    assert [energy - origin_j for energy in energies_j] == pytest.approx(
        [0.0, 3.0, 1.0 + RANGE_UJ / 1e6, 2.5 + RANGE_UJ / 1e6], abs=1e-3
    )


def test_a_counter_set_back_is_no_wrap_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_j, after_j = _read(tmp_path, monkeypatch, [RANGE_UJ // 2, 1000], times_ms=[0, 50])
    assert after_j < before_j


def test_a_counter_set_back_is_a_fault(tmp_path: Path) -> None:
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=RANGE_UJ // 2)
    with RaplMeter(tmp_path) as meter:
        show(counter, 1000)
        wait_until(meter.faults, "the fault")
        assert meter.faults() == (Reason.COUNTER_RESET,)
        assert meter.reading()["package-0"].ticks == []


def test_a_counter_for_root_only_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_zone(tmp_path, "intel-rapl:0", "package-0")
    meter = RaplMeter(tmp_path)
    monkeypatch.setattr(Path, "read_text", _deny)
    with pytest.raises(MeterError, match=r"readable by root only; sudo chmod a\+r .*energy_uj.*meter=declared"), meter:
        pass


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


def test_a_zone_without_description_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    with pytest.raises(MeterError, match="intel-rapl:0 cannot be read"):
        RaplMeter(tmp_path)


def _read(root: Path, monkeypatch: pytest.MonkeyPatch, show_uj: list[int], times_ms: list[int]) -> list[float]:
    """What one package's reader returns when its counter shows these values at these times."""
    counter = add_zone(root, "intel-rapl:0", "package-0")
    (zone,) = package_zones(root)
    read_once = _PackageReader(zone)
    energies_j = []
    for energy_uj, time_ms in zip(show_uj, times_ms, strict=True):
        show(counter, energy_uj)
        monkeypatch.setattr(time, "monotonic_ns", Mock(return_value=time_ms * 1_000_000))
        energies_j.append(read_once().energy_j)
    return energies_j


def _deny(path: Path) -> str:
    raise PermissionError(13, "Permission denied", str(path))
