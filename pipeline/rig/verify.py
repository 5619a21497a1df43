"""Does a stored row follow from its stored evidence? Recomputes it from the trace, as when it was measured."""

import math
from dataclasses import dataclass
from typing import Any

from pipeline.record import METHOD, Row
from pipeline.rig.rows import CHANGED_IN_METHOD_2, measured
from pipeline.study import Study
from pipeline.trace import Context, Trace
from pipeline.vocabulary import Boundary

REL_TOLERANCE = 1e-9
"""Sums of floats may differ in their last digits from one machine to another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A column that the trace does not give again."""

    column: str
    stored: Any
    recomputed: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of recomputing a row.

    Attributes:
        num_equal: Columns that came out as stored.
        differences: Columns that did not.
        not_compared: Columns whose formula has changed since the row was measured.
    """

    num_equal: int
    differences: tuple[Difference, ...]
    not_compared: tuple[str, ...]


def context_of(trace: Trace, row: Row, study: Study | None) -> Context:
    """What the row follows from besides the readings; from the study for traces that do not hold it (version 1).

    Raises:
        ValueError: If neither is given.
    """
    if trace.context is not None:
        return trace.context
    if study is None:
        raise ValueError("a trace of version 1 says nothing without its study")
    return Context(plan=study.plan, slo=study.slo, boundary=row.boundary, num_gpus=row.num_gpus)


def verify(row: Row, trace: Trace, study: Study | None) -> Verification:
    """Recompute a row from its trace.

    Args:
        row: As stored.
        trace: As stored; whoever reads it has checked its hash.
        study: As stored with the row's trial; traces of version 1 need it.
    """
    context = context_of(trace, row, study)
    again = measured(trace, context) | {
        "concurrency": trace.point.concurrency,
        "request_rate_per_s": trace.point.request_rate_per_s,
        "num_gpus": context.num_gpus,
        "gpu_uuids": tuple(trace.devices) if context.boundary is Boundary.GPU else (),
    }
    changed = set(CHANGED_IN_METHOD_2) if row.method < METHOD else set()
    if trace.context is None:  # what version 1 did not record cannot be null in one and known in the other
        changed |= {name for name in again if getattr(row, name) is None}
    differences = [
        Difference(column=name, stored=getattr(row, name), recomputed=value)
        for name, value in again.items()
        if name not in changed and not _equal(getattr(row, name), value)
    ]
    return Verification(
        num_equal=len(again.keys() - changed) - len(differences),
        differences=tuple(differences),
        not_compared=tuple(sorted(changed & again.keys())),
    )


def _equal(stored: Any, recomputed: Any) -> bool:
    if isinstance(stored, float) and isinstance(recomputed, (int, float)):
        return math.isclose(stored, recomputed, rel_tol=REL_TOLERANCE)
    return bool(stored == recomputed)
