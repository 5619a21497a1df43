"""What a row alone cannot show: warnings that come, or go, when it is seen beside the others.

A temperature apart from the rest of the study makes it another machine state. A risk of aliasing goes where power runs
smoothly through the neighbouring loads, whose inter-token latency is another: the sensor of an A100 or H100 sees 25 ms
of each 100 ms (arXiv 2312.02741), and a load that beats with it would stand out by up to a third.
"""

import math
import statistics
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from pipeline.grouping import grouped
from pipeline.record import Row
from pipeline.vocabulary import Reason, RowStatus

MAX_TEMPERATURE_APART_C = 3.0
"""Configurations are compared within this; leakage makes a warmer chip draw more for the same work."""

MAX_POWER_BEND = 0.02
"""Power this close to the line through its neighbours, in log power over log load, is no sign of aliasing."""

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def cross_row_warnings(rows: Sequence[Row]) -> dict[str, tuple[Reason, ...]]:
    """The warnings of every row, by row id, now that the others are known.

    Adds `temperature_apart`, takes away `aliasing_risk` where it is cleared; all others stand.
    """
    apart, cleared = temperature_apart(rows), aliasing_cleared(rows)
    found = {}
    for row in rows:
        warnings = {*row.warnings} - ({Reason.ALIASING_RISK} if row.row_id in cleared else set())
        warnings |= {Reason.TEMPERATURE_APART} if row.row_id in apart else set()
        found[row.row_id] = tuple(sorted(warnings))
    return found


def temperature_apart(rows: Iterable[Row]) -> frozenset[str]:
    """Ids of rows whose GPUs were more than 3 degrees from the median of the study's valid rows at the same load."""
    apart = set()
    for group in grouped(rows, lambda row: (row.study_id, row.concurrency, row.request_rate_per_s)).values():
        known = [(row, t) for row in group if (t := row.gpu_temperature_mean_c) is not None]
        valid = [t for row, t in known if row.status is RowStatus.OK]
        if valid:
            median = statistics.median(valid)
            apart |= {row.row_id for row, t in known if abs(t - median) > MAX_TEMPERATURE_APART_C}
    return frozenset(apart)


def aliasing_cleared(rows: Iterable[Row]) -> frozenset[str]:
    """Ids of rows at risk of aliasing whose power the next lower and the next higher load of their trial confirm.

    Both must be there, valid, and not at risk themselves; several windows at one load count by their geometric mean.
    """
    cleared: set[str] = set()
    for trial in grouped(rows, lambda row: row.trial_id).values():
        loads = sorted(grouped(trial, lambda row: row.load).items())
        for (below, lower), (load, middle), (above, upper) in _triples(loads):
            ends = _log_power(lower), _log_power(upper)
            if ends[0] is None or ends[1] is None:
                continue
            share = math.log(load / below) / math.log(above / below)
            expected = ends[0] + share * (ends[1] - ends[0])
            cleared |= {
                row.row_id
                for row in middle
                if Reason.ALIASING_RISK in row.warnings
                and row.power_w
                and abs(math.expm1(math.log(row.power_w) - expected)) <= MAX_POWER_BEND
            }
    return frozenset(cleared)


def _triples(items: Sequence[T]) -> Iterable[tuple[T, T, T]]:
    """Each item with the one before and the one after."""
    return ((a, b, c) for (a, b), (_, c) in pairwise(pairwise(items)))


def _log_power(rows: Sequence[Row]) -> float | None:
    """Mean log power of the valid rows at one load; None without any, or where one of them is at risk itself."""
    valid = [row for row in rows if row.status is RowStatus.OK and row.power_w]
    if not valid or any(Reason.ALIASING_RISK in row.warnings for row in rows):
        return None
    return statistics.fmean(math.log(row.power_w) for row in valid if row.power_w)
