"""A powercap folder as Linux shows it, with counters that a thread moves."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RANGE_UJ = 262_143_328_850
"""max_energy_range_uj of many Intel packages."""


def add_zone(root: Path, folder: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    """Make one zone; returns its counter file."""
    zone = root / folder
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
    show(zone / "energy_uj", energy_uj)
    return zone / "energy_uj"


def show(counter: Path, energy_uj: int) -> None:
    """Set a counter in one step, as the kernel does."""
    new = counter.with_suffix(".new")
    new.write_text(f"{energy_uj}\n")
    new.replace(counter)


@contextmanager
def moving(counters: list[Path], step_uj: int = 100_000) -> Iterator[None]:
    """Move every counter on by `step_uj` every few milliseconds."""
    stop = threading.Event()

    def move() -> None:
        energy_uj = 0
        while not stop.wait(0.005):
            energy_uj += step_uj
            for counter in counters:
                show(counter, energy_uj)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
