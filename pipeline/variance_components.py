"""Variance components of a nested design: windows within starts, starts within visits, balanced or not.

The model is y = mean + visit + start + window, each effect normal with a variance of its own. There is a mean square
per level: of windows about their start's mean, of start means about their visit's, of visit means (each the plain mean
of its starts) about theirs. A component is its level's mean square less what the levels below add to it (unweighted
means: Thomas and Hultquist, Ann. Statist. 6, 1978). Its interval is the modified large-sample one of Ting, Burdick,
Graybill, Jeyaratnam and Lu (J. Stat. Comput. Simul. 35, 1990), exact for windows; the tests simulate its coverage.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy import stats

TAIL = 0.025
"""On either side of a 95 % interval."""

Design = Sequence[Sequence[Sequence[float]]]
"""Responses by visit, start and window; none empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What one level adds to the spread, as standard deviations in the units of the response.

    Attributes:
        sd: Estimate; 0 where the levels below explain it all; None where df is 0.
        low: Lower end of the 95 % interval.
        high: Its upper end.
        upper: One-sided 95 % upper bound.
        num_units: Windows, starts or visits.
        df: Degrees of freedom of the level's mean square; 0 where no two units lie side by side, which shows no spread.
        includes: Levels below that are part of it, because their df is 0.
    """

    sd: float | None
    low: float | None
    high: float | None
    upper: float | None
    num_units: int
    df: int
    includes: tuple[str, ...] = ()


class Components(NamedTuple):
    """The three levels, and what a single start's mean is worth.

    `start_mean_sd` is that of the mean of a start's windows within one visit; None where no visit has two starts.
    """

    window: Component
    start: Component
    visit: Component
    start_mean_sd: float | None


def components(design: Design) -> Components:
    """Estimate what windows, starts and visits each add to the spread."""
    window, start, visit = _mean_squares(design)
    # Starts and their windows explain so much of a visit's mean square; the last term is what imbalance leaves over.
    left_over = visit.window_share - visit.start_share * start.window_share
    below_visit = _combined((visit.start_share, start), (left_over, window))
    lumped = () if window.df else ("window",)
    return Components(
        window=_component(window, _combined()),
        start=_component(start, _combined((start.window_share, window)), lumped),
        visit=_component(visit, below_visit, () if start.df else (*lumped, "start")),
        start_mean_sd=math.sqrt(start.value) if start.df else None,
    )


class _MeanSquare(NamedTuple):
    """Spread of one level's means; it expects the level's variance plus these shares of the variances below."""

    value: float
    df: float
    num_units: int = 0
    start_share: float = 0.0
    window_share: float = 0.0


def _mean_squares(visits: Design) -> tuple[_MeanSquare, _MeanSquare, _MeanSquare]:
    """Of windows, starts and visits."""
    starts = [start for visit in visits for start in visit]
    start_means = [[statistics.fmean(start) for start in visit] for visit in visits]
    df_window = sum(len(start) for start in starts) - len(starts)
    df_start = len(starts) - len(visits)
    df_visit = len(visits) - 1
    # Window variance that the start means of each visit carry, summed.
    carried = [(len(visit), sum(1 / len(start) for start in visit)) for visit in visits]
    return (
        _MeanSquare(sum(map(_squares, starts)) / max(df_window, 1), df_window, df_window + len(starts)),
        _MeanSquare(
            sum(map(_squares, start_means)) / max(df_start, 1),
            df_start,
            len(starts),
            window_share=sum((1 - 1 / count) * share for count, share in carried) / max(df_start, 1),
        ),
        _MeanSquare(
            _squares([statistics.fmean(means) for means in start_means]) / max(df_visit, 1),
            df_visit,
            len(visits),
            start_share=statistics.fmean(1 / count for count, _ in carried),
            window_share=statistics.fmean(share / count**2 for count, share in carried),
        ),
    )


def _squares(values: Sequence[float]) -> float:
    """Sum of squares about the mean."""
    mean = statistics.fmean(values)
    return math.fsum((value - mean) ** 2 for value in values)


def _combined(*terms: tuple[float, _MeanSquare]) -> _MeanSquare:
    """A weighted sum of mean squares, with the degrees of freedom of Satterthwaite (Biometrics Bull. 2, 1946)."""
    parts = [(share * square.value, square.df) for share, square in terms if square.df]
    value = max(0.0, sum(part for part, _ in parts))
    spread = sum(part**2 / df for part, df in parts)
    # Terms that nearly cancel would leave less than one degree of freedom, which has no interval.
    return _MeanSquare(value, max(1.0, value**2 / spread) if value else math.inf)


def _component(level: _MeanSquare, below: _MeanSquare, includes: tuple[str, ...] = ()) -> Component:
    """The level's own part of its mean square, with its intervals."""
    units, df = level.num_units, int(level.df)
    if not df:
        return Component(sd=None, low=None, high=None, upper=None, num_units=units, df=0, includes=includes)
    low, high = _interval(level, below, TAIL)
    _, upper = _interval(level, below, 2 * TAIL)
    sd = math.sqrt(max(0.0, level.value - below.value))
    return Component(
        sd=sd, low=math.sqrt(low), high=math.sqrt(high), upper=math.sqrt(upper),
        num_units=units, df=df, includes=includes,
    )  # fmt: skip


def _interval(level: _MeanSquare, below: _MeanSquare, tail: float) -> tuple[float, float]:
    """Bounds on what one mean square expects beyond another, each missed with probability `tail`; none below 0.

    g, h, g12 and h12 are those of Ting et al. Where `below` exceeds the level, the upper bound is that of two equal
    mean squares, which errs on the safe side: a bound of 0 would claim what no data can show.
    """
    n1, n2, s1, s2 = level.df, below.df, level.value, below.value
    g1, h1 = 1 - n1 / float(stats.chi2.isf(tail, n1)), n1 / float(stats.chi2.ppf(tail, n1)) - 1
    if s2 == 0:
        return s1 * (1 - g1), s1 * (1 + h1)
    g2, h2 = 1 - n2 / float(stats.chi2.isf(tail, n2)), n2 / float(stats.chi2.ppf(tail, n2)) - 1
    f_high, f_low = float(stats.f.isf(tail, n1, n2)), float(stats.f.ppf(tail, n1, n2))
    g12 = ((f_high - 1) ** 2 - (g1 * f_high) ** 2 - h2**2) / f_high
    h12 = ((1 - f_low) ** 2 - (h1 * f_low) ** 2 - g2**2) / f_low
    low = s1 - s2 - math.sqrt(max(0.0, (g1 * s1) ** 2 + (h2 * s2) ** 2 + g12 * s1 * s2))
    s1 = max(s1, s2)
    high = s1 - s2 + math.sqrt(max(0.0, (h1 * s1) ** 2 + (g2 * s2) ** 2 + h12 * s1 * s2))
    return max(0.0, low), high
