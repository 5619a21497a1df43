"""The smallest set of cases that still tracks the Pareto front of tokens per joule and tokens/s per user.

A case covers a point of the front if it has at least (1 - tolerance) times as much of both. Sorted by tokens per joule
the points that a case covers lie side by side, so that going along the front and taking each time the farthest case
that covers the first point left gives the fewest cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.choose.alternatives import front
from pipeline.choose.candidate import Candidate, Point, candidates
from pipeline.choose.conditions import Pool
from pipeline.choose.limit import nearest
from pipeline.choose.ranking import Contender, rank
from pipeline.errors import ConfigError
from pipeline.workload import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One case of a suite."""

    candidate: Candidate
    point: Point
    is_winner: bool


def pick(pool: Pool, slo: Slo, tolerance: float) -> tuple[list[Pick], int]:
    """The winner and the fewest other cases that cover the front under an SLO; and how many points the front has.

    Raises:
        ConfigError: If no load of any config meets the SLO.
    """
    found, ruled_out = candidates(pool)
    fit = [Contender(candidate=each, best=best, fleet=None) for each in found if (best := each.best(slo)) is not None]
    if not fit:
        raise ConfigError(nearest(found, ruled_out, slo))
    winner, _ = rank(fit).take()
    by_case = {
        (each.config.config_hash, point.rows[0].load_text): Pick(candidate=each, point=point, is_winner=False)
        for each in found
        for point in each.points
    }
    on_front = [by_case[point.config_hash, point.load] for point in front(found, slo, str)]
    chosen = [Pick(candidate=winner.candidate, point=winner.best, is_winner=True)]
    left = [each for each in on_front if not _covers(chosen[0], each, tolerance)]
    chosen += cover(left, tolerance)
    return chosen, len(on_front)


def cover(points: Sequence[Pick], tolerance: float) -> list[Pick]:
    """The fewest of these points of a front, the most tokens per joule first, that cover all of them."""
    chosen, left = list[Pick](), list(points)
    while left:
        best = [each for each in left if _covers(each, left[0], tolerance)][-1]
        chosen.append(best)
        left = [each for each in left if not _covers(best, each, tolerance)]
    return chosen


def _covers(one: Pick, other: Pick, tolerance: float) -> bool:
    """Whether a case has about as much of both as another; a winner whose tokens/s per user are unknown covers none."""
    have, wanted = _both(one), _both(other)
    return (
        have is not None
        and wanted is not None
        and all(own >= (1 - tolerance) * least for own, least in zip(have, wanted, strict=True))
    )


def _both(of: Pick) -> tuple[float, float] | None:
    per_user = of.point.mean("output_tokens_per_s_per_user")
    return None if per_user is None else (of.point.output_tokens_per_joule, per_user)
