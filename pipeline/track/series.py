"""Cases as series over releases: their steps, which releases each lies between, and what would show.

A value is a visit: all starts of a case with one release on one set of cards, in one boot of their machine. Where most
cards ran with several releases, values of one set of cards are compared with each other only. Else, as in clouds that
never lend one card twice, how far cards differ is part of the noise.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pipeline.grouping import grouped
from pipeline.score import MIN_NOISE
from pipeline.track.changepoint import Series, Step, detectable, p_value, sharpened, spread_of, steps
from pipeline.track.contrast import Spread, together
from pipeline.track.release import Release, in_order
from pipeline.track.starts import Start
from pipeline.track.visits import Visit, in_order_of, linked, taken_together, visits_of

ALPHA = 0.05
"""Probability of a false alarm in any of the series looked at, each time that one looks."""

MIN_PAIRS = 24
"""Neighbouring visits from which a series tells its own noise."""

EFFICIENCY = 0.25
"""Degrees of freedom for each pair: the median of absolute deviations is worth 0.37 of as many values (Rousseeuw and
Croux, JASA 88, 1993), and differences that share a value less; the tests count the false alarms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A step of one series.

    Attributes:
        last_good: The last release that is of the old level for sure (95 %).
        first_bad: The first that is of the new one for sure.
        likeliest: The first of the new one, most likely.
        log: Size.
        half_width: Of its 95 % interval.
        remaining_log: Of the level at the newest release to the level before the step.
    """

    last_good: Release
    first_bad: Release
    likeliest: Release
    log: float
    half_width: float
    remaining_log: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSeries:
    """One case, or all of a problem together.

    Attributes:
        starts: Of the case; of all cases where it is all of them together.
        releases: That it was measured with, oldest first.
        num_visits: Values of the series.
        is_overall: Whether it is all cases together.
        is_within_cards: Whether each set of cards is compared with itself only.
        noise_sd: Relative standard deviation of a value.
        noise_basis: Where that comes from.
        changes: Steps, in order.
        detectable: Smallest step at the newest release that shows, as a log; None where none could.
    """

    starts: tuple[Start, ...]
    releases: tuple[Release, ...]
    num_visits: int
    is_overall: bool
    is_within_cards: bool
    noise_sd: float
    noise_basis: str
    changes: tuple[Change, ...]
    detectable: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A series with what it came from; it is sharp where its own residuals tell its noise."""

    visits: Sequence[Visit]
    releases: Sequence[Release]
    is_overall: bool
    is_within_cards: bool
    series: Series
    noise_basis: str
    is_sharp: bool = False


def lines_of(starts: Sequence[Start], start: Spread, card: Spread) -> list[Line]:
    """Every case of one problem and engine that was measured with two releases or more, and all of them together.

    Their noise is first that which a few steps hardly move, then what is left beyond the steps that it shows.

    Args:
        starts: Of one problem and engine.
        start: How far starts differ, where the series do not tell.
        card: How far cards differ, where the series do not tell.
    """
    releases = in_order((each.release, each.rows[0].started_utc) for each in starts)
    cases = [in_order_of(visits_of(own), releases) for own in grouped(starts, lambda each: each.case).values()]
    cases = [visits for visits in cases if len({visit.release for visit in visits}) > 1]
    lines = [_line(visits, cases, start, card, is_overall=False) for visits in cases]
    if len(several := linked(cases)) > 1:
        overall = in_order_of(taken_together(several), releases)
        lines.append(_line(overall, [overall], start, card, is_overall=True))
    return [_sharpened(line) for line in lines]


def _sharpened(line: Line) -> Line:
    own = sharpened(line.series, steps(line.series, ALPHA / 5))  # the plain ones: what is no step must not be left out
    if own is None:
        return line
    series = replace(own, sd=max(own.sd, _floor(line.visits)))
    basis = f"{len(line.visits)} visits about their levels, {own.df:g} df"
    return replace(line, series=series, is_sharp=True, noise_basis=basis)


def start_spread_of(lines: Sequence[Line]) -> Spread | None:
    """How far single starts differ by what their visits are apart from their levels; None where no series tells."""
    told = [line for line in lines if line.is_sharp and line.is_within_cards and not line.is_overall]
    if not told:
        return None
    sd = median(line.series.sd * math.sqrt(min(len(visit.trials) for visit in line.visits)) for line in told)
    df = max(line.series.df for line in told)
    return Spread(sd=sd, df=df, basis=f"visits about the levels of their series, {df:g} df: SD {100 * sd:.2g} %")


def judged(lines: Sequence[Line]) -> list[CaseSeries]:
    """What each series shows, in the order given.

    The false alarm rate is kept over all of them by Holm's procedure (Scand. J. Statist. 6, 1979).
    """
    p_values = [p_value(line.series) for line in lines]
    found: dict[int, CaseSeries] = {}
    is_open = True
    for num_done, index in enumerate(sorted(range(len(lines)), key=lambda index: p_values[index])):
        alpha = ALPHA / (len(lines) - num_done)
        is_open = is_open and p_values[index] <= alpha
        found[index] = _judged(lines[index], alpha if is_open else ALPHA / len(lines), has_steps=is_open)
    return [found[index] for index in range(len(lines))]


def _line(
    visits: Sequence[Visit], cases: Sequence[Sequence[Visit]], start: Spread, card: Spread, *, is_overall: bool
) -> Line:
    """A series with its noise."""
    releases = list(dict.fromkeys(visit.release for visit in visits))
    place = {release: number for number, release in enumerate(releases)}
    is_within = _is_within(visits)
    noise = _noise(visits, cases, start, card, is_within=is_within)
    blocks: tuple[Hashable, ...] = tuple(visit.cards if is_within else None for visit in visits)
    series = Series(
        values=tuple(visit.value for visit in visits),
        positions=tuple(place[visit.release] for visit in visits),
        blocks=blocks,
        sd=noise.sd,
        df=noise.df,
    )
    return Line(
        visits=visits,
        releases=releases,
        is_overall=is_overall,
        is_within_cards=is_within,
        series=series,
        noise_basis=noise.basis,
    )


def _is_within(visits: Sequence[Visit]) -> bool:
    """Whether most visits were to cards that ran with several releases."""
    by_cards = grouped(visits, lambda visit: visit.cards).values()
    return sum(len(own) for own in by_cards if len({visit.release for visit in own}) > 1) * 2 >= len(visits)


def _noise(
    visits: Sequence[Visit], cases: Sequence[Sequence[Visit]], start: Spread, card: Spread, *, is_within: bool
) -> Spread:
    """How far visits to one level differ: by the series itself, else by the other cases, else by their starts."""

    def told(own: Sequence[Visit]) -> tuple[float, int]:
        return spread_of([visit.value for visit in own], [visit.cards if is_within else None for visit in own])

    sd, num = told(visits)
    if num < MIN_PAIRS:
        others = [told(own) for own in cases]
        num = max(num for _, num in others)
        sd = median(sd for sd, own in others if own == num)
    if num >= MIN_PAIRS:
        return Spread(sd=max(sd, _floor(visits)), df=EFFICIENCY * num, basis=f"{num} pairs of neighbouring visits")
    of_start = start.sd**2 / min(len(visit.trials) for visit in visits)
    variance, df = together((of_start, start.df), (0.0 if is_within else card.sd**2, card.df))
    basis = start.basis if is_within else f"{start.basis}; cards {card.basis}"
    return Spread(sd=max(_floor(visits), math.sqrt(variance)), df=df, basis=basis)


def _floor(visits: Sequence[Visit]) -> float:
    """What windows alone would make a value differ by."""
    return MIN_NOISE / math.sqrt(max(sum(len(each.rows) for each in visit.starts) for visit in visits))


def _judged(line: Line, alpha: float, *, has_steps: bool) -> CaseSeries:
    found = steps(line.series, alpha) if has_steps else []
    return CaseSeries(
        starts=tuple(start for visit in line.visits for start in visit.starts),
        releases=tuple(line.releases),
        num_visits=len(line.visits),
        is_overall=line.is_overall,
        is_within_cards=line.is_within_cards,
        noise_sd=line.series.sd,
        noise_basis=line.noise_basis,
        changes=tuple(_change(line.releases, found, number) for number in range(len(found))),
        detectable=detectable(line.series, alpha),
    )


def _change(releases: Sequence[Release], found: Sequence[Step], number: int) -> Change:
    step = found[number]
    return Change(
        last_good=releases[step.earliest - 1],
        first_bad=releases[step.latest],
        likeliest=releases[step.position],
        log=step.log,
        half_width=step.half_width,
        remaining_log=math.fsum(each.log for each in found[number:]),
    )
