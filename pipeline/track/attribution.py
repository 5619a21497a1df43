"""Where the gain from the best of before to the best of after comes from, factor by factor.

The factors are changed in one fixed order, so that their ratios multiply up to the total: hardware, power state,
driver, engine, and last config and load. A corner is the value with some of them as they are after and the others as
they were before; what rests on a corner that was not measured is None. The order matters where factors interact: the
interaction of two is their ratio together / the product of each alone, all others as before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from operator import attrgetter

from pipeline.track.contrast import Difference, Spread, Value, difference
from pipeline.track.gain import Best
from pipeline.track.starts import Start

CONFIG = "config and load"

FACTORS: Mapping[str, Callable[[Start], object]] = {
    "hardware": lambda start: (start.facts["hardware"], start.facts["gpu_name"]),
    "power state": lambda start: start.facts["power_limit_w_per_gpu"],
    "driver": attrgetter("release.driver_version"),
    "engine": attrgetter("release.engine", "release.engine_version", "release.image"),
    CONFIG: attrgetter("case"),
}
"""What tells the two levels of each apart, in the order in which they are changed."""

Corner = frozenset[str]
"""The factors that are as after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The total and its parts, as differences of logs.

    Attributes:
        factors: Those that differ between the sides, in order; None where a corner was not measured.
        total: Of all of them.
        interactions: By pair of factors.
        corners: Starts at each combination of the factors, () where it was not measured.
    """

    factors: Mapping[str, Difference | None]
    total: Difference
    interactions: Mapping[tuple[str, str], Difference | None]
    corners: Mapping[Corner, tuple[Start, ...]]


def attribute(before: Best, after: Best, starts: Sequence[Start], start: Spread, card: Spread) -> Attribution | None:
    """Attribute a gain; None where the sides differ in no factor (but, say, in their cards).

    Args:
        before: Its last start says what each factor was.
        after: Likewise what it is.
        starts: Everything that may be compared with them: any of it may be at a corner.
        start: How far starts differ.
        card: How far cards differ.
    """
    old, new = before.starts[-1], after.starts[-1]
    changed = [name for name, level in FACTORS.items() if level(old) != level(new)]
    if not changed:
        return None
    corners = {
        frozenset(those): _at(frozenset(those), old, new, starts)
        for num in range(len(changed) + 1)
        for those in combinations(changed, num)
    } | {frozenset(): before.starts, frozenset(changed): after.starts}

    def ratio(terms: Mapping[Corner, float]) -> Difference | None:
        if not all(corners[corner] for corner in terms):
            return None
        values = [value for corner, sign in terms.items() for value in _shared(corners[corner], sign)]
        return difference(values, start, card)

    steps = [frozenset(changed[:num]) for num in range(len(changed) + 1)]
    total = ratio({steps[-1]: 1.0, steps[0]: -1.0})
    assert total is not None  # noqa: S101  # both ends were measured
    return Attribution(
        factors={name: ratio({steps[n + 1]: 1.0, steps[n]: -1.0}) for n, name in enumerate(changed)},
        total=total,
        interactions={
            (one, two): ratio(
                {frozenset({one, two}): 1.0, frozenset[str](): 1.0, frozenset({one}): -1.0, frozenset({two}): -1.0}
            )
            for one, two in combinations(changed, 2)
        },
        corners=corners,
    )


def _at(corner: Corner, old: Start, new: Start, starts: Sequence[Start]) -> tuple[Start, ...]:
    """The starts of which every factor is as the corner says."""
    wanted = {name: level(new if name in corner else old) for name, level in FACTORS.items()}
    return tuple(each for each in starts if all(level(each) == wanted[name] for name, level in FACTORS.items()))


def _shared(starts: Sequence[Start], sign: float) -> list[Value]:
    """The mean of starts: plain, so that corners cancel where ratios are multiplied."""
    return [replace(start.value, weight=sign / len(starts)) for start in starts]
