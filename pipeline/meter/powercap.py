"""RAPL counters of CPU packages, as the Linux powercap interface gives them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MeterError
from pipeline.meter.source import Observation, ReadOnce, timed

POWERCAP_ROOT = Path("/sys/class/powercap")
"""Source: Linux, Documentation/power/powercap/powercap.rst."""

MAX_PACKAGE_POWER_W = 10_000.0
"""Far above any CPU package, far below what a counter set back to 0 looks like: tells a wrap-around from a reset."""

_TOP_LEVEL_ZONE = re.compile(r"intel-rapl:\d+")
"""Sub-zones (core, dram) are intel-rapl:N:M. The intel-rapl-mmio zones repeat the packages."""


@dataclass(frozen=True, slots=True)
class PackageZone:
    """One CPU package: its name, its counter file (microjoules) and the value at which that wraps around."""

    name: str
    energy_file: Path
    max_energy_range_uj: int


@dataclass(frozen=True, slots=True)
class PackageSource:
    """CPU packages, one device each."""

    zones: tuple[PackageZone, ...]

    @contextmanager
    def open(self) -> Iterator[Mapping[str, ReadOnce]]:
        """Nothing to hold open."""
        yield {zone.name: _PackageReader(zone) for zone in self.zones}


def package_zones(root: Path) -> tuple[PackageZone, ...]:
    """The package zones under `root`, by name; the platform zone (psys) contains them and is left out.

    Raises:
        MeterError: If there is none, or one cannot be read.
    """
    zones = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if not _TOP_LEVEL_ZONE.fullmatch(folder.name):
            continue
        try:
            name = (folder / "name").read_text().strip()
            range_uj = int((folder / "max_energy_range_uj").read_text())
        except (OSError, ValueError) as error:
            raise MeterError(f"meter=rapl: {folder} cannot be read ({error}); use meter=declared") from error
        if name.startswith("package"):
            zones.append(PackageZone(name, folder / "energy_uj", range_uj))
    if not zones:
        raise MeterError(
            f"meter=rapl: no CPU package under {root}; load the kernel module intel_rapl_msr, "
            "or use meter=declared (virtual machines mostly have no RAPL)"
        )
    return tuple(sorted(zones, key=lambda zone: zone.name))


class _PackageReader:
    """Reads one package, counting on across wrap-arounds; a reset comes through as a step back."""

    def __init__(self, zone: PackageZone) -> None:
        self._zone = zone
        self._wrapped_uj = 0
        self._last: tuple[int, int] | None = None

    def __call__(self) -> Observation:
        t_ns, counter_uj = timed(self._counter_uj)
        if self._last is not None and counter_uj < self._last[1]:
            last_ns, last_uj = self._last
            since_uj = counter_uj + self._zone.max_energy_range_uj - last_uj
            if since_uj / 1e6 <= MAX_PACKAGE_POWER_W * (t_ns - last_ns) / 1e9:
                self._wrapped_uj += self._zone.max_energy_range_uj
        self._last = t_ns, counter_uj
        return Observation(t_ns=t_ns, energy_j=(self._wrapped_uj + counter_uj) / 1e6)

    def _counter_uj(self) -> int:
        path = self._zone.energy_file
        try:
            return int(path.read_text())
        except PermissionError as error:
            raise MeterError(
                f"meter=rapl: {path} is readable by root only; "
                f"sudo chmod a+r {path} (until the next boot), or use meter=declared"
            ) from error
        except (OSError, ValueError) as error:
            raise MeterError(f"meter=rapl: {path} cannot be read ({error}); use meter=declared") from error
