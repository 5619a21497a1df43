"""Gains between two sides: of every case that both have, of all of them together, and best against best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import fmean

from pipeline.grouping import grouped
from pipeline.score import curve
from pipeline.track.contrast import Difference, Spread, Value, after_less_before, difference
from pipeline.track.starts import Start
from pipeline.workload import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseGain:
    """One case on both sides."""

    before: tuple[Start, ...]
    after: tuple[Start, ...]
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The case with the most tokens per joule under the SLO on one side."""

    starts: tuple[Start, ...]

    @property
    def log(self) -> float:
        """Mean log of tokens per joule over its starts."""
        return fmean(start.log for start in self.starts)


def case_gains(before: Sequence[Start], after: Sequence[Start], start: Spread, card: Spread) -> list[CaseGain]:
    """The gain of every case that both sides have; both of one problem."""
    own = grouped(after, attrgetter("case"))
    return [
        CaseGain(
            before=tuple(starts),
            after=tuple(own[case]),
            difference=difference(_weighed(starts, own[case]), start, card),
        )
        for case, starts in grouped(before, attrgetter("case")).items()
        if case in own
    ]


def mean_gain(gains: Sequence[CaseGain], start: Spread, card: Spread) -> Difference:
    """The mean over cases, each as much as another; what one start or one card adds to several of them is added up."""
    values = [
        replace(value, weight=value.weight / len(gains))
        for gain in gains
        for value in _weighed(gain.before, gain.after)
    ]
    return difference(values, start, card)


def best(starts: Sequence[Start], slo: Slo) -> Best | None:
    """The best case under an SLO, picked off the smooth curve of every engine start; None where none meets it."""
    smooth: dict[tuple[str, str], float] = {}
    for trial_id, own in grouped(starts, lambda start: start.row.trial_id).items():
        values = curve([row for start in own for row in start.rows])
        smooth |= {(trial_id, start.case): math.log(values[start.row.load]) for start in own}
    fit = [own for own in grouped(starts, attrgetter("case")).values() if all(start.meets(slo) for start in own)]
    if not fit:
        return None
    found = max(fit, key=lambda own: fmean(smooth[start.row.trial_id, start.case] for start in own))
    return Best(starts=tuple(found))


def retuned_gain(before: Best, after: Best, start: Spread, card: Spread) -> Difference:
    """Best against best."""
    return difference(_weighed(before.starts, after.starts), start, card)


def _weighed(before: Sequence[Start], after: Sequence[Start]) -> list[Value]:
    return after_less_before([each.value for each in before], [each.value for each in after])
