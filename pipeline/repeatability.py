"""How well a case repeats: what windows, engine starts and visits to a machine each add to the spread of its results.

A visit is one boot of one machine with one set of GPUs. All is computed on logarithms, so that spreads are relative: a
standard deviation of 0.01 is 1 %.
"""

import math
import statistics
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, TypeVar

import numpy as np
from scipy import stats

from pipeline.grouping import grouped
from pipeline.multiple_comparison import detectable
from pipeline.record import Row
from pipeline.variance_components import TAIL, Components, components
from pipeline.vocabulary import Evidence, RowStatus

Response = Literal["output_tokens_per_joule", "output_tokens_per_s", "power_w"]
"""Columns whose spread can be asked for."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatability:
    """How well one case repeats.

    Attributes:
        mean: Geometric mean of the response, over visits of starts of windows.
        spread: Relative standard deviations of windows, starts and visits.
        half_width_median: Of the windows' own 95 % intervals of tokens per joule / value; None where none has one.
        half_width_max: The widest of them.
    """

    mean: float
    spread: Components
    half_width_median: float | None
    half_width_max: float | None

    def detectable(self, num_starts: int) -> float | None:
        """Smallest relative difference between two configs that so many starts of each would find, by this estimate.

        Two-sided t-test at 5 %, power 80 % (noncentral t); both configs in the same visits, windows per start as
        here. None where the spread of starts is unknown, or with fewer than two starts.
        """
        if self.spread.start_mean_sd is None or num_starts < 2:
            return None
        return math.expm1(detectable(self.spread.start_mean_sd, num_starts, df=2 * (num_starts - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsDifference:
    """What other random weights change, by the means of starts.

    Attributes:
        reference: Weights that most starts had.
        weights_init: The others.
        log_ratio: Mean log of the response less that of the reference, differences between visits taken out.
        half_width: Of its 95 % t-interval; None where df is 0.
        df: Of the spread of starts with the same weights in the same visit.
    """

    reference: str
    weights_init: str
    log_ratio: float
    half_width: float | None
    df: int


def cases(rows: Iterable[Row], evidence: Evidence = Evidence.MEASURED) -> list[list[Row]]:
    """Valid rows of one evidence, in groups of repetitions: of one case, plan, engine version and weights."""
    key = attrgetter("case_id", "plan", "engine_version", "weights_init", "boundary")
    return list(grouped(_valid(rows, evidence), key).values())


def repeatability(rows: Iterable[Row], response: Response = "output_tokens_per_joule") -> Repeatability:
    """The spread of one group of `cases`.

    Raises:
        ValueError: If no row has the response.
    """
    rows = list(rows)
    visits = list(_visits(rows, response).values())
    if not visits:
        raise ValueError(f"no row has {response}")
    half_widths = [width for row in rows if (width := row.output_tokens_per_joule_rel_ci95) is not None]
    means = (statistics.fmean(map(statistics.fmean, visit)) for visit in visits)
    return Repeatability(
        mean=math.exp(statistics.fmean(means)),
        spread=components(visits),
        half_width_median=statistics.median(half_widths) if half_widths else None,
        half_width_max=max(half_widths, default=None),
    )


def weights_cases(rows: Iterable[Row], evidence: Evidence = Evidence.MEASURED) -> list[list[Row]]:
    """Valid rows in groups that differ in nothing but how their random weights were drawn, in two ways or more."""
    drawn = (row for row in _valid(rows, evidence) if row.weights_init is not None)
    key = attrgetter(
        "model", "weights", "hardware", "num_gpus", "engine", "engine_version", "config_hash", "workload", "isl_tokens",
        "osl_tokens", "concurrency", "request_rate_per_s", "plan", "boundary",
    )  # fmt: skip
    return [group for group in grouped(drawn, key).values() if len({row.weights_init for row in group}) > 1]


def weights_differences(rows: Iterable[Row], response: Response = "output_tokens_per_joule") -> list[WeightsDifference]:
    """How the response of one group of `weights_cases` changes with the weights.

    Least squares on the means of starts, with an effect per visit and per weights. Weights that no visit links to the
    reference are left out.
    """
    starts = [
        (visit, str(weights_init), statistics.fmean(windows))
        for weights_init, group in grouped(rows, attrgetter("weights_init")).items()
        for visit, several in _visits(group, response).items()
        for windows in several
    ]
    if not starts:
        return []
    by_weights = grouped(starts, lambda start: start[1])
    reference, *others = sorted(by_weights, key=lambda name: (-len(by_weights[name]), name))
    visits = list(grouped(starts, lambda start: start[0]))
    x = np.array([[v == visit for v in visits] + [w == name for w in others] for visit, name, _ in starts], dtype=float)
    y = np.array([mean for *_, mean in starts])
    inverse = np.linalg.pinv(x)
    effects = inverse @ y
    df = len(starts) - int(np.linalg.matrix_rank(x))
    standard_errors = np.sqrt(np.diag(inverse @ inverse.T) * np.sum((y - x @ effects) ** 2) / max(df, 1))
    is_linked = np.isclose(inverse @ x, np.eye(x.shape[1])).all(axis=1)
    return [
        WeightsDifference(
            reference=reference,
            weights_init=name,
            log_ratio=float(effects[column]),
            half_width=float(stats.t.isf(TAIL, df) * standard_errors[column]) if df else None,
            df=df,
        )
        for column, name in enumerate(others, start=len(visits))
        if is_linked[column]
    ]


def _visits(rows: Iterable[Row], response: Response) -> dict[tuple[str | None, tuple[str, ...]], list[list[float]]]:
    """Log responses of windows by start, by visit; rows without a response are left out."""
    known = [row for row in rows if getattr(row, response)]
    by_visit = grouped(known, lambda row: (row.host_id, row.gpu_uuids))
    return {
        visit: [
            [math.log(getattr(row, response)) for row in start]
            for start in grouped(group, lambda row: row.trial_id).values()
        ]
        for visit, group in by_visit.items()
    }


def _valid(rows: Iterable[Row], evidence: Evidence) -> Iterable[Row]:
    return (row for row in rows if row.status is RowStatus.OK and row.evidence is evidence)
