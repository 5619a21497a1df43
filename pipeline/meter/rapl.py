"""CPU package energy from RAPL counters (Intel, and AMD since Zen)."""

from pathlib import Path

from pipeline.meter.powercap import POWERCAP_ROOT, PackageSource, package_zones
from pipeline.meter.protocol import MeterInfo
from pipeline.meter.sampling import SampledMeter
from pipeline.vocabulary import Boundary, Evidence

SAMPLE_PERIOD_S = 0.05


class RaplMeter(SampledMeter):
    """Energy of all CPU packages of the machine, one device per package. There is no second reading."""

    def __init__(self, root: Path = POWERCAP_ROOT) -> None:
        """Find the packages.

        Args:
            root: The powercap folder. Any other than the kernel's own is a stand-in: its evidence is `simulated`.

        Raises:
            MeterError: If there is no package zone or its description cannot be read.
        """
        zones = package_zones(root)
        info = MeterInfo(
            name="rapl",
            description=f"RAPL energy counters of {len(zones)} CPU package(s), memory and the rest not included",
            boundary=Boundary.CPU,
            evidence=Evidence.MEASURED if root == POWERCAP_ROOT else Evidence.SIMULATED,
            devices=tuple(zone.name for zone in zones),
        )
        super().__init__(info, PackageSource(zones), SAMPLE_PERIOD_S)
