"""From a trial's rows to one number: output tokens per joule at the best load that meets the SLO.

The number is read off a smooth curve of log tokens/J over log load, not off the luckiest window: a ladder of more loads
has more windows to be lucky with, and must not win by that.
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.record import Row
from pipeline.vocabulary import Evidence, RowStatus
from pipeline.workload import Slo

CURVATURE_PER_OCTAVE = 0.014
"""Variance by which the slope d log(tokens/J) / d log2(load) changes over an octave of load: the mean over the 13 pairs
of neighbouring slopes in the sweeps recorded on H100s and H200s."""

MIN_NOISE = 0.01
"""Relative SD of a window at least: what windows of one start were measured to differ by (docs/measurement.md, 0.6 to
1.1 %); how far starts differ moves a whole ladder and bends nothing."""

UNKNOWN_NOISE = 0.025
"""Of a measured row without an interval: noise that lasts, whose intervals come out at 5 % where they are known."""

MAX_NOISE = 0.1
"""Relative SD of a window at most, about the widest recorded on a GPU. A window that hardly counts lets the line
through the others run past all that was seen: on a busy CPU windows of 2 s gave 15 tok/J at a load, the curve 305."""


def within(ttft_s: float | None, tpot_s: float | None, slo: Slo) -> bool:
    """Whether latencies by a model keep an SLO's bounds on them; an unknown latency keeps none."""
    return all(value is not None and value <= bound for value, bound in _modelled(ttft_s, tpot_s, slo))


def latency_slack(ttft_s: float | None, tpot_s: float | None, slo: Slo) -> float:
    """The same as a number, see `slack`; -inf where nothing is owed."""
    return _worst(_modelled(ttft_s, tpot_s, slo))


def meets(row: Row, slo: Slo) -> bool:
    """Whether a row meets every bound of an SLO; an unknown latency meets none."""
    return all(value is not None and value <= bound for value, bound in _owed(row, slo))


def misses(row: Row, slo: Slo) -> bool:
    """Whether a row is known to break a bound of an SLO; an unknown latency is not known to."""
    return any(value is not None and value > bound for value, bound in _owed(row, slo))


def slack(row: Row, slo: Slo) -> float:
    """By how much an SLO is broken: log of the worst ratio value / bound, at most 0 when it is met.

    An unknown latency counts as broken by a factor of e.
    """
    return _worst(_owed(row, slo)) if slo.bounds else -1.0


def _worst(owed: Sequence[tuple[float | None, float]]) -> float:
    """Log of the worst ratio of a latency to its bound; 1 where one is unknown, -inf where nothing is owed."""
    return max((1.0 if value is None else math.log(value / bound) for value, bound in owed), default=-math.inf)


def _owed(row: Row, slo: Slo) -> list[tuple[float | None, float]]:
    """Each latency that an SLO bounds, with its bound, seconds."""
    return [(getattr(row, column), bound) for column, bound in slo.bounds.items()]


def _modelled(ttft_s: float | None, tpot_s: float | None, slo: Slo) -> list[tuple[float | None, float]]:
    """The same of what a model predicts, which knows no percentiles and no end-to-end latency."""
    return [(value, bound) for value, bound in ((ttft_s, slo.ttft_s), (tpot_s, slo.tpot_s)) if bound is not None]


def usable(rows: Sequence[Row]) -> list[Row]:
    """Rows that may be scored: valid, with a value."""
    return [row for row in rows if row.status is RowStatus.OK and row.output_tokens_per_joule is not None]


def score(rows: Sequence[Row], slo: Slo) -> float | None:
    """Output tokens per joule of one config, from rows at different loads; None if no usable row meets the SLO."""
    good = usable(rows)
    feasible = {row.load for row in good if meets(row, slo)}
    if not feasible:
        return None
    return max(value for load, value in curve(good).items() if load in feasible)


def curve(rows: Sequence[Row]) -> dict[float, float]:
    """Smoothed tokens per joule of usable rows by load, lightest first.

    A cubic smoothing spline through log tokens/J over log2 load, each row weighted by its noise, its stiffness fixed
    beforehand: a straight line is kept as it is, and what lies three octaves away has hardly a say. As the best
    prediction where slopes change as a random walk does: Wahba, *Spline Models for Observational Data* (1990), ch. 1.
    """
    points = sorted(
        (row.load, row.output_tokens_per_joule, _noise(row)) for row in rows if row.output_tokens_per_joule is not None
    )
    loads = sorted({load for load, *_ in points})
    if not loads:
        return {}
    x = np.log2([load for load, *_ in points])
    y = np.log([value for _, value, _ in points])
    straight = np.vander(x - x.mean(), min(2, len(loads)))
    bending = CURVATURE_PER_OCTAVE / 12 * np.abs(x[:, None] - x) ** 3
    noise = np.diag([sd**2 for *_, sd in points])
    num_straight = straight.shape[1]
    system = np.block([[bending + noise, straight], [straight.T, np.zeros((num_straight, num_straight))]])
    smoothed = np.hstack([bending, straight]) @ np.linalg.solve(system, np.append(y, np.zeros(num_straight)))
    return {load: math.exp(value) for (load, *_), value in zip(points, smoothed, strict=True)}


def _noise(row: Row) -> float:
    """Relative SD of a row's tokens per joule: by its own interval, within bounds; the model has no noise."""
    interval = row.output_tokens_per_joule_rel_ci95
    if interval is None:
        return MIN_NOISE if row.evidence is Evidence.MODELLED else UNKNOWN_NOISE
    return min(max(MIN_NOISE, interval / 1.96), MAX_NOISE)


def best_row(rows: Sequence[Row], slo: Slo) -> Row | None:
    """The row to show for a config: the most tokens per joule among usable rows that meet the SLO."""
    good = [row for row in usable(rows) if meets(row, slo)]
    return max(good, key=lambda row: row.output_tokens_per_joule or 0.0, default=None)
