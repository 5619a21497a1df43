import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.errors import MeterError
from pipeline.meter.powercap import PackageSource, _PackageReader, package_zones
from tests.meter.fake_powercap import RANGE_UJ, add_zone, show


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


def test_a_counter_for_root_only_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_zone(tmp_path, "intel-rapl:0", "package-0")
    with PackageSource(package_zones(tmp_path)).open() as devices:
        monkeypatch.setattr(Path, "read_text", _deny)
        with pytest.raises(MeterError, match=r"readable by root only; sudo chmod a\+r .*energy_uj.*meter=declared"):
            devices["package-0"]()


def test_a_zone_without_description_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    with pytest.raises(MeterError, match="intel-rapl:0 cannot be read"):
        package_zones(tmp_path)


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
