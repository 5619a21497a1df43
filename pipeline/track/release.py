"""A release: everything beneath a config that can change without the config."""

from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Versions of the software that a start ran on.

    Attributes:
        engine: Serving engine.
        engine_version: As its own runtime reports it; None where it did not.
        driver_version: Of the devices.
        image: Container image by digest; None outside a container.
    """

    engine: str
    engine_version: str | None
    driver_version: str | None
    image: str | None

    def __str__(self) -> str:
        """In words."""
        parts = [f"{self.engine} {self.engine_version or '(version unknown)'}"]
        parts += [f"driver {self.driver_version}"] if self.driver_version else []
        parts += [short(self.image)] if self.image else []
        return ", ".join(parts)

    def changes(self, later: "Release") -> tuple[str, ...]:
        """Names of what differs in a later one."""
        names = ("engine_version", "driver_version", "image")
        return tuple(name for name in names if getattr(self, name) != getattr(later, name))


def short(image: str) -> str:
    """An image with as much of its digest as tells it from others, for people."""
    name, at, digest = image.partition("@sha256:")
    return f"{name}{at}{digest[:12]}"


def in_order(seen: Iterable[tuple[Release, str]]) -> list[Release]:
    """Releases of one engine, oldest first.

    By version, so that an old release that is measured again stays where it belongs; releases of one version, and all
    where a version cannot be read as one (PEP 440), by the time they were first measured.

    Args:
        seen: Each release with a time (ISO 8601, UTC) that it was measured at, as often as it was.
    """
    first: dict[Release, str] = {}
    for release, started_utc in seen:
        first[release] = min(first.get(release, started_utc), started_utc)
    try:
        versions = {release: Version(release.engine_version or "") for release in first}
    except InvalidVersion:
        return sorted(first, key=lambda release: first[release])
    return sorted(first, key=lambda release: (versions[release], first[release]))
