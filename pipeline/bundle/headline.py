"""The number that a bundle promises: tokens per joule at one load, with its interval, from the rows of its starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.record import Row
from pipeline.score import best_row
from pipeline.workload import OperatingPoint, Slo

BETWEEN_STARTS = "mean of starts, Student's t over the logarithms of their means"
WITHIN_WINDOW = "one start: within its window only, start-to-start variation not included"
UNKNOWN = "one start, whose window gives no interval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Output tokens per joule at one operating point.

    Attributes:
        point: The load.
        output_tokens_per_joule: The number.
        low: 95 % bound below; None where unknown.
        high: 95 % bound above.
        again_rel: Half-width of the 95 % interval, of the logarithm, in which another start's number is expected.
        num_starts: Fresh engine starts that it rests on.
        interval_of: What the interval covers.
        row_ids: Rows that it is computed from.
    """

    point: OperatingPoint
    output_tokens_per_joule: float
    low: float | None
    high: float | None
    again_rel: float | None
    num_starts: int
    interval_of: str
    row_ids: tuple[str, ...]


def headline(rows: Sequence[Row], slo: Slo) -> Headline:
    """The number at the best load that meets the SLO.

    Args:
        rows: Valid rows of one config, of one start or several.
        slo: What is owed to the users.

    Raises:
        ConfigError: If no row meets the SLO.
    """
    best = best_row(rows, slo)
    if best is None:
        raise ConfigError(f"slo={slo.name}: no row of this config meets it; choose another config, or a wider SLO")
    return at_load([row for row in rows if row.load == best.load])


def at_load(rows: Sequence[Row]) -> Headline:
    """The number at the load that these valid rows share."""
    point = OperatingPoint(concurrency=rows[0].concurrency, request_rate_per_s=rows[0].request_rate_per_s)
    starts = grouped(rows, lambda row: row.trial_id)
    logs = [
        float(np.mean([math.log(row.output_tokens_per_joule or math.nan) for row in one])) for one in starts.values()
    ]
    count, mean = len(logs), float(np.mean(logs))
    mean_rel, again_rel, covers = rows[0].output_tokens_per_joule_rel_ci95, None, UNKNOWN
    if count > 1:
        spread = float(np.std(logs, ddof=1)) * float(stats.t.ppf(0.975, count - 1))
        # Of the mean, and of one more start beside it: the textbook's confidence and prediction intervals.
        mean_rel, again_rel, covers = spread / math.sqrt(count), spread * math.sqrt(1 + 1 / count), BETWEEN_STARTS
    elif mean_rel is not None:
        again_rel, covers = mean_rel, WITHIN_WINDOW
    return Headline(
        point=point,
        output_tokens_per_joule=math.exp(mean),
        low=None if mean_rel is None else math.exp(mean - mean_rel),
        high=None if mean_rel is None else math.exp(mean + mean_rel),
        again_rel=again_rel,
        num_starts=count,
        interval_of=covers,
        row_ids=tuple(row.row_id for row in rows),
    )
