"""From a trial's rows to one number: output tokens per joule at the best load that meets the SLO.

The number is read off a smooth curve of log tokens/J over log load, not off the luckiest window.
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.record import Row
from pipeline.vocabulary import RowStatus
from pipeline.workload import Slo

MIN_CURVE_POINTS = 5
"""A quadratic through fewer points follows them; below this the measured value stands."""


def within(ttft_s: float | None, tpot_s: float | None, slo: Slo) -> bool:
    """Whether latencies keep every bound of an SLO; an unknown latency keeps none."""
    return all(value is not None and value <= bound for value, bound in _owed(ttft_s, tpot_s, slo))


def meets(row: Row, slo: Slo) -> bool:
    """Whether a row meets every bound of an SLO; an unknown latency meets none."""
    return within(row.ttft_p99_s, row.tpot_p99_s, slo)


def misses(row: Row, slo: Slo) -> bool:
    """Whether a row is known to break a bound of an SLO; an unknown latency is not known to."""
    owed = _owed(row.ttft_p99_s, row.tpot_p99_s, slo)
    return any(value is not None and value > bound for value, bound in owed)


def slack(row: Row, slo: Slo) -> float:
    """By how much an SLO is broken: log of the worst ratio value / bound, at most 0 when it is met.

    An unknown latency counts as broken by a factor of e.
    """
    return latency_slack(row.ttft_p99_s, row.tpot_p99_s, slo) if _owed(None, None, slo) else -1.0


def latency_slack(ttft_s: float | None, tpot_s: float | None, slo: Slo) -> float:
    """Log of the worst ratio of a latency to its bound; 1 where one is unknown, -inf where nothing is owed."""
    owed = _owed(ttft_s, tpot_s, slo)
    return max((1.0 if value is None else math.log(value / bound) for value, bound in owed), default=-math.inf)


def _owed(ttft_s: float | None, tpot_s: float | None, slo: Slo) -> list[tuple[float | None, float]]:
    """Each latency that an SLO bounds, with its bound, seconds."""
    pairs = ((ttft_s, slo.ttft_p99_s), (tpot_s, slo.tpot_p99_s))
    return [(value, bound) for value, bound in pairs if bound is not None]


def usable(rows: Sequence[Row]) -> list[Row]:
    """Rows that may be scored: valid, with a value."""
    return [row for row in rows if row.status is RowStatus.OK and row.output_tokens_per_joule is not None]


def score(rows: Sequence[Row], slo: Slo) -> float | None:
    """Output tokens per joule of one config, from rows at different loads; None if no usable row meets the SLO.

    Several rows at one load count by their geometric mean.
    """
    good = usable(rows)
    feasible = {row.load for row in good if meets(row, slo)}
    if not feasible:
        return None
    return max(value for load, value in curve(good).items() if load in feasible)


def curve(rows: Sequence[Row]) -> dict[float, float]:
    """Smoothed tokens per joule of usable rows by load.

    A least-squares quadratic in log-log, or the values as they are below MIN_CURVE_POINTS loads.
    """
    logs: dict[float, list[float]] = {}
    for row in rows:
        if row.output_tokens_per_joule is not None:
            logs.setdefault(row.load, []).append(math.log(row.output_tokens_per_joule))
    loads = sorted(logs)
    means = [math.fsum(logs[load]) / len(logs[load]) for load in loads]
    if len(loads) >= MIN_CURVE_POINTS:
        x = np.log2(loads)
        means = np.polyval(np.polyfit(x, means, 2), x).tolist()
    return {load: math.exp(mean) for load, mean in zip(loads, means, strict=True)}


def best_row(rows: Sequence[Row], slo: Slo) -> Row | None:
    """The row to show for a config: the most tokens per joule among usable rows that meet the SLO."""
    good = [row for row in usable(rows) if meets(row, slo)]
    return max(good, key=lambda row: row.output_tokens_per_joule or 0.0, default=None)
