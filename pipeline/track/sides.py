"""The two sides of a comparison: before and after, by release or by any condition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.track.release import Release, in_order
from pipeline.track.starts import ALWAYS_LIKE, Start

VERSION = "engine_version"
RELEASE = (VERSION, "driver_version", "image")
TOLD = ("boundary", "gpu_name", "hardware", "plan", "power_limit_w_per_gpu", "weights", "weights_init")
"""Conditions that compared starts share, unless both sides name theirs."""

FREE = ("engine", "gpu_uuids", "study_id")
"""What they may differ in."""

KEYS = (*RELEASE, *TOLD, *FREE)

Wanted = Mapping[str, str]
"""Value by key that a start must have; of gpu_uuids its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Starts to compare, and how the sides were named."""

    before: tuple[Start, ...]
    after: tuple[Start, ...]
    before_text: str
    after_text: str


def wanted(option: str, given: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE texts as a mapping; a text alone is a version of the engine.

    Raises:
        ConfigError: If a key is unknown or given twice, or may never differ.
    """
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        key, value = (key, value) if equals else (VERSION, text)
        if key in ALWAYS_LIKE:
            raise ConfigError(f"{option} {text}: rows that differ in {key} are never compared; use --where {text}")
        if key not in KEYS:
            raise ConfigError(f"{option} {text}: unknown key{nearest(key, KEYS)}; allowed: {', '.join(KEYS)}")
        if key in found:
            raise ConfigError(f"{option} {text}: {key}={found[key]} is given too; give one")
        found[key] = value
    return found


def told(before: Wanted, after: Wanted) -> frozenset[str]:
    """Conditions that the sides are said to differ in: both name them.

    Raises:
        ConfigError: If one side alone names one: the other would hold all of its values.
    """
    for key in sorted((before.keys() ^ after.keys()) & set(TOLD)):
        raise ConfigError(
            f"{key}: named for one side only; name it for both (--before {key}=... --after {key}=...), or keep one "
            f"with --where {key}=..."
        )
    return frozenset(before.keys() & after.keys() & set(TOLD))


def sides(starts: Sequence[Start], before: Wanted, after: Wanted) -> Sides | None:
    """The starts of each side; by default those of each engine's first and last release. None with one release only.

    A side that is not named while the other is holds what is left at the other end of the releases.

    Raises:
        ConfigError: If no start is of a side, or one is of both.
    """
    if not before and not after:
        ends = {engine: (releases[0], releases[-1]) for engine, releases in engine_releases(starts).items()}
        own = {engine: pair for engine, pair in ends.items() if pair[0] != pair[1]}
        if not own:
            return None
        first = [start for start in starts if own.get(start.release.engine, (None,))[0] == start.release]
        last = [start for start in starts if own.get(start.release.engine, (None,))[-1] == start.release]
        return Sides(
            before=tuple(first),
            after=tuple(last),
            before_text="; ".join(str(pair[0]) for pair in own.values()),
            after_text="; ".join(str(pair[1]) for pair in own.values()),
        )
    ones, others = _chosen("--before", starts, before), _chosen("--after", starts, after)
    if not before:
        ones = _ends(starts, others, 0)
    if not after:
        others = _ends(starts, ones, -1)
    both = {id(start) for start in ones} & {id(start) for start in others}
    if both:
        raise ConfigError(
            f"--before {_text(before)} --after {_text(after)}: {len(both)} starts are of both sides; name two that "
            f"differ; there are: {_known(starts, next(iter([*before, *after])))}"
        )
    return Sides(
        before=tuple(ones),
        after=tuple(others),
        before_text=_text(before) or _said(ones),
        after_text=_text(after) or _said(others),
    )


def engine_releases(starts: Sequence[Start]) -> dict[str, list[Release]]:
    """Releases by engine, oldest first."""
    return {
        engine: in_order((start.release, start.rows[0].started_utc) for start in own)
        for engine, own in grouped(starts, lambda start: start.release.engine).items()
    }


def _chosen(option: str, starts: Sequence[Start], asked: Wanted) -> list[Start]:
    found = list(starts)
    for key, value in asked.items():
        kept = [start for start in found if has(start, key, value)]
        if not kept:
            what = "version" if key in RELEASE else "value"
            raise ConfigError(f"{option} {key}={value}: unknown {what}; there are: {_known(found, key)}")
        found = kept
    return found


def _ends(starts: Sequence[Start], named: Sequence[Start], end: int) -> list[Start]:
    """The first (0) or last (-1) release of each engine that the named side has."""
    engines = {start.release.engine for start in named}
    ends = {engine: releases[end] for engine, releases in engine_releases(starts).items() if engine in engines}
    return [start for start in starts if ends.get(start.release.engine) == start.release]


def texts(start: Start, key: str) -> str:
    """A condition of a start as it is written on the command line."""
    if key in RELEASE or key == "engine":
        return str(getattr(start.release, key))
    if key == "gpu_uuids":
        return ",".join(start.row.gpu_uuids)
    if key == "study_id":
        return start.row.study_id
    value = start.facts[key]
    return f"{value:g}" if isinstance(value, float) else str(value)


def has(start: Start, key: str, value: str) -> bool:
    """Whether a start has a condition; of a GPU the beginning of its UUID is enough."""
    own = texts(start, key)
    return own.startswith(value) if key == "gpu_uuids" else own == value


def _known(starts: Sequence[Start], key: str) -> str:
    return ", ".join(dict.fromkeys(texts(start, key) for start in starts)) or "none"


def _text(asked: Wanted) -> str:
    return " ".join(f"{key}={value}" for key, value in asked.items())


def _said(starts: Sequence[Start]) -> str:
    return "; ".join(dict.fromkeys(str(start.release) for start in starts))
