"""Which load next on a running engine? Decided from the rows so far alone, so that a resumed trial goes on as it was.

A fixed ladder climbs every load of the workload. An adaptive one starts where it is told to, doubles or halves the load
until the best has a worse one on both sides, then measures the loads of the grid beside the best. Neither asks for a
load twice: one whose row is invalid is passed over.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from pipeline.grouping import grouped
from pipeline.record import Row
from pipeline.score import meets, misses, usable
from pipeline.study import Study
from pipeline.vocabulary import Reason
from pipeline.workload import CONCURRENCY_GRID, OperatingPoint, Slo, Workload

NUM_WORSE = 2
"""Heavier loads that must have been worse than the best before the climb ends: one may have been unlucky."""

MAX_UNUSABLE = 3
"""Loads without a usable row after which, where there is none with one, the config is given up, not the load."""

TYPICAL_LOADS = 6
"""What an adaptive ladder takes that starts at the best load of a curve with a peak; 3 at the end of the range."""

_OVERLOADED = {Reason.KV_PREEMPTION, Reason.QUEUE_LIMITED}
"""Reasons for which a heavier load would be invalid too."""


class Ladder(Protocol):
    """The loads of one trial."""

    def next_load(self, rows: Sequence[Row]) -> OperatingPoint | None:
        """The load to measure next, none of those that the config has rows at; None where it is done."""
        ...

    def left(self, rows: Sequence[Row]) -> list[OperatingPoint]:
        """All loads that may still be measured; empty where it is done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedLadder:
    """Every load in turn, until one breaks the SLO: a heavier one only makes users wait longer."""

    points: Sequence[OperatingPoint]
    slo: Slo

    def next_load(self, rows: Sequence[Row]) -> OperatingPoint | None:
        """The lightest without rows."""
        return next(iter(self.left(rows)), None)

    def left(self, rows: Sequence[Row]) -> list[OperatingPoint]:
        """Those without rows below the lightest that breaks the SLO."""
        by_load = grouped(rows, attrgetter("load"))
        ceiling = min((load for load, here in by_load.items() if _misses(here, self.slo)), default=math.inf)
        return [point for point in self.points if point.load not in by_load and point.load < ceiling]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Loads that an adaptive ladder may use, lightest first; `coarse` are the positions of the first steps."""

    points: tuple[OperatingPoint, ...]
    coarse: frozenset[int]

    @classmethod
    def of(cls, workload: Workload) -> "Grid":
        """The loads between the ends of the workload's own list; those of an open loop in the same ratios."""
        low, *_, high = [workload.ladder[0], *workload.ladder]
        if low == high:
            return cls(points=(low,), coarse=frozenset({0}))
        if low.concurrency is not None:
            loads = [load for load in CONCURRENCY_GRID if low.load <= load <= high.load]
            points = [OperatingPoint(concurrency=load) for load in loads]
            doubled = [load.bit_count() == 1 for load in loads]
        else:
            ratios = [each / 2 for each in CONCURRENCY_GRID[1:] if low.load * each / 2 < high.load * 0.999]
            rates = [float(f"{low.load * ratio:.6g}") for ratio in ratios]
            points = [low, *(OperatingPoint(request_rate_per_s=rate) for rate in rates[1:]), high]
            doubled = [*(math.log2(ratio).is_integer() for ratio in ratios), True]
        ends = {0, len(points) - 1}
        return cls(
            points=tuple(points), coarse=frozenset(ends | {n for n, is_double in enumerate(doubled) if is_double})
        )


def loads_of(study: Study) -> tuple[OperatingPoint, ...]:
    """Every load that a start may be measured at, lightest first."""
    return Grid.of(study.workload).points if study.search.ladder == "adaptive" else study.workload.ladder


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveLadder:
    """Loads around the best one that meets the SLO; `first` is where it is looked for, a coarse load of the grid."""

    grid: Grid
    slo: Slo
    first: OperatingPoint

    def next_load(self, rows: Sequence[Row]) -> OperatingPoint | None:
        """Climb, or descend until a load meets the SLO, then close in on the best."""
        seen = _Seen.of(rows, self.grid, self.slo)
        if not seen.tried:
            return self.first
        found = self._look(seen) if not seen.values else self._close_in(seen)
        return None if found is None else self.grid.points[found]

    def left(self, rows: Sequence[Row]) -> list[OperatingPoint]:
        """Those below the lightest that breaks the SLO which have no rows."""
        if self.next_load(rows) is None:
            return []
        seen = _Seen.of(rows, self.grid, self.slo)
        return [self.grid.points[n] for n in range(seen.ceiling) if n not in seen.tried]

    def _look(self, seen: "_Seen") -> int | None:
        """A load where none has met the SLO yet: the nearest to the first one, coarse ones first."""
        if seen.num_unusable >= MAX_UNUSABLE:
            return None
        untried = [n for n in range(seen.ceiling) if n not in seen.tried]
        first = self.grid.points.index(self.first)
        return min(untried, key=lambda n: (n not in self.grid.coarse, abs(n - first), -n), default=None)

    def _close_in(self, seen: "_Seen") -> int | None:
        """A load that may be better than the best so far, or show that it is the best."""
        best = max(seen.values, key=lambda n: (seen.values[n], -n))
        within = [n for n in range(seen.ceiling) if n not in seen.tried or n in seen.values]
        coarse = [n for n in within if n in self.grid.coarse]
        heaviest = max(seen.values)
        is_turned = sum(n > best for n in seen.values) >= NUM_WORSE
        climb = [] if is_turned else [n for n in coarse if n > heaviest][:1]
        beside = [*_neighbours(best, coarse), *_neighbours(best, within)]
        return next((n for n in [*climb, *beside] if n not in seen.tried), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the rows say, by position in the grid.

    Attributes:
        tried: Has rows.
        values: Mean log of tokens per joule where the SLO is met, below the ceiling.
        ceiling: The lightest that breaks the SLO or overloads the engine; the number of loads if none does.
        num_unusable: How many have no usable row, where that is all that there is.
    """

    tried: frozenset[int]
    values: Mapping[int, float]
    ceiling: int
    num_unusable: int

    @classmethod
    def of(cls, rows: Sequence[Row], grid: Grid, slo: Slo) -> "_Seen":
        by_load = grouped(rows, attrgetter("load"))
        here = {n: by_load[point.load] for n, point in enumerate(grid.points) if point.load in by_load}
        good = {n: usable(each) for n, each in here.items()}
        broken = [n for n in here if _misses(here[n], slo) or any(_OVERLOADED & {*row.reasons} for row in here[n])]
        ceiling = min(broken, default=len(grid.points))
        values = {
            n: math.fsum(math.log(row.output_tokens_per_joule) for row in each if row.output_tokens_per_joule)
            / len(each)
            for n, each in good.items()
            if n < ceiling and any(meets(row, slo) for row in each)
        }
        return cls(
            tried=frozenset(here),
            values=values,
            ceiling=ceiling,
            num_unusable=0 if any(good.values()) else len(here),
        )


def _misses(rows: Sequence[Row], slo: Slo) -> bool:
    """Whether a load is known to break the SLO: all of its usable rows do."""
    good = usable(rows)
    return bool(good) and all(misses(row, slo) for row in good)


def _neighbours(best: int, among: Sequence[int]) -> list[int]:
    """The next heavier and the next lighter one."""
    above, below = [n for n in among if n > best], [n for n in among if n < best]
    return above[:1] + below[-1:]
