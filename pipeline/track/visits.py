"""Visits: what a machine was asked once about a case, and about all cases together."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from pipeline.grouping import grouped
from pipeline.track.release import Release
from pipeline.track.starts import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """All starts of a case, or of several, with one release on one set of cards in one boot; `value` is their log."""

    release: Release
    cards: tuple[str, ...]
    starts: tuple[Start, ...]
    value: float

    @property
    def trials(self) -> frozenset[str]:
        """The engine starts it is of."""
        return frozenset(start.row.trial_id for start in self.starts)


def visits_of(starts: Sequence[Start]) -> list[Visit]:
    """Of one case."""
    by_visit = grouped(starts, lambda each: (each.release, each.cards, each.row.host_id))
    return [
        Visit(release=release, cards=cards, starts=tuple(own), value=fmean(each.log for each in own))
        for (release, cards, _), own in by_visit.items()
    ]


def in_order_of(visits: Sequence[Visit], releases: Sequence[Release]) -> list[Visit]:
    """Visits by release, those with one release by time."""
    place = {release: number for number, release in enumerate(releases)}
    return sorted(visits, key=lambda visit: (place[visit.release], visit.starts[0].row.started_utc))


def taken_together(cases: Sequence[Sequence[Visit]]) -> list[Visit]:
    """One value for each visit: least squares with a level for each case, so that what a visit lacks shifts nothing."""
    keys = [_key(visit) for visits in cases for visit in visits]
    places = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    of_case = [number for number, visits in enumerate(cases) for _ in visits]
    design = np.zeros((len(keys), len(places) + len(cases) - 1))
    for line, (key, case) in enumerate(zip(keys, of_case, strict=True)):
        design[line, places[key]] = 1
        if case:
            design[line, len(places) + case - 1] = 1
    values = np.array([visit.value for visits in cases for visit in visits])
    solved = np.linalg.lstsq(design, values, rcond=None)[0]
    members = grouped((visit for visits in cases for visit in visits), _key)
    return [
        Visit(
            release=members[key][0].release,
            cards=members[key][0].cards,
            starts=tuple(start for visit in members[key] for start in visit.starts),
            value=float(solved[place]),
        )
        for key, place in places.items()
    ]


def linked(cases: Sequence[Sequence[Visit]]) -> list[Sequence[Visit]]:
    """The most cases that visits in common link: between others no row tells the difference."""
    groups: list[tuple[set[tuple[object, ...]], list[Sequence[Visit]]]] = []
    for visits in cases:
        keys, own = {_key(visit) for visit in visits}, [visits]
        for group in [group for group in groups if group[0] & keys]:
            groups.remove(group)
            keys, own = keys | group[0], group[1] + own
        groups.append((keys, own))
    return max((own for _, own in groups), key=len, default=[])


def _key(visit: Visit) -> tuple[object, ...]:
    return visit.release, visit.cards, visit.starts[0].row.host_id
