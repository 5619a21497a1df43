"""Percentiles of what was seen, and what they prove about the percentile of all that might have been seen."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.vocabulary import Met
from pipeline.workload import Slo

CONFIDENCE = 0.95
"""Of each bound on its own: one in twenty is wrong."""


class BoundedLatencies(Protocol):
    """Bounds on the 99th percentiles, seconds; a LoadWindow or a Row."""

    @property
    def ttft_p99_low_s(self) -> float | None:
        """Lower bound of time to first token."""

    @property
    def ttft_p99_high_s(self) -> float | None:
        """Upper bound of time to first token."""

    @property
    def tpot_p99_low_s(self) -> float | None:
        """Lower bound of time per output token."""

    @property
    def tpot_p99_high_s(self) -> float | None:
        """Upper bound of time per output token."""


def percentile(values: Sequence[float] | npt.NDArray[np.float64], share: float) -> float | None:
    """Nearest-rank percentile: the smallest value that at least `share` of the values do not exceed; None of none."""
    if len(values) == 0:
        return None
    rank = max(0, int(np.ceil(share * len(values))) - 1)
    return float(np.partition(np.asarray(values, dtype=np.float64), rank)[rank])


def percentile_bounds(values: Sequence[float], share: float) -> tuple[float | None, float | None]:
    """Lower and upper 95 % confidence bound of a percentile, one-sided each, whatever the distribution.

    The number of values below the true percentile is Binomial(n, share). So the k-th smallest value is an upper bound
    for the smallest k with P(fewer than k) >= 0.95, and a lower bound for the largest k with P(at least k) >= 0.95.
    None where no k will do: a 99th percentile has no upper bound below 299 values. Assumes that the values are
    independent; requests that share a batch are not quite, which makes the bounds optimistic.

    Source: Hahn and Meeker, Statistical Intervals (1991), chapter 5, distribution-free bounds for a percentile.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    if count == 0:
        return None, None
    low, high = (int(rank) for rank in stats.binom.ppf([1 - CONFIDENCE, CONFIDENCE], count, share))
    return float(ordered[low - 1]) if low > 0 else None, float(ordered[high]) if high < count else None


def slo_met(found: BoundedLatencies, slo: Slo) -> Met | None:
    """Whether an SLO is kept, as far as the requests of one window can tell: bounds are known of two 99th percentiles.

    No if a lower bound is above what is owed, yes if no upper bound is, else undecided; an unknown bound decides
    nothing. None where the SLO owes nothing.
    """
    known = {
        "ttft_p99_s": (found.ttft_p99_low_s, found.ttft_p99_high_s),
        "tpot_p99_s": (found.tpot_p99_low_s, found.tpot_p99_high_s),
    }
    owed = [(*known.get(column, (None, None)), limit) for column, limit in slo.bounds.items()]
    if not owed:
        return None
    if any(low is not None and low > limit for low, _, limit in owed):
        return Met.NO
    return Met.YES if all(high is not None and high <= limit for _, high, limit in owed) else Met.UNDECIDED
