"""A config to choose: its starts, and its ladder of loads as far as they measured it.

Only fresh starts tell how good a config is: those of finals and of `tpw repeatability`, which no search picked for
their luck. Where a config has none, all its rows together are one start, which nominates it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean

from pipeline.choose.conditions import Pool
from pipeline.engine_config import EngineConfig
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.score import curve, meets, slack
from pipeline.search.finalists import BY, MIN_ROUNDS
from pipeline.search.proposal import REPEAT
from pipeline.vocabulary import TrialStatus
from pipeline.workload import Slo

FRESH = frozenset({BY, REPEAT})
"""Who proposes a fresh start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load of a config: geometric means over the starts that measured it, of windows within each.

    Attributes:
        rows: Every valid window at this load that counts, those of the last start last.
        log_scores: Log of tokens per joule by start, read off its smooth curve (score.py).
        output_tokens_per_s: Of one replica.
        power_w: Of one replica.
    """

    rows: tuple[Row, ...]
    log_scores: tuple[float, ...]
    output_tokens_per_s: float
    power_w: float

    @property
    def load(self) -> float:
        """How heavy it is."""
        return self.rows[0].load

    @property
    def num_starts(self) -> int:
        """Independent starts that measured it."""
        return len(self.log_scores)

    @property
    def output_tokens_per_joule(self) -> float:
        """Geometric mean over the starts."""
        return math.exp(fmean(self.log_scores))

    def meets(self, slo: Slo) -> bool:
        """Whether every window does."""
        return all(meets(row, slo) for row in self.rows)

    def slack(self, slo: Slo) -> float:
        """Of the worst window, see score.py."""
        return max(slack(row, slo) for row in self.rows)

    def worst(self, column: str) -> float | None:
        """The highest value over the windows; None where one is not known."""
        values = [getattr(row, column) for row in self.rows]
        return None if None in values else max(values)

    def mean(self, column: str) -> float | None:
        """Arithmetic mean over the windows in which it is known; None where it is in none."""
        values = [value for row in self.rows if (value := getattr(row, column)) is not None]
        return fmean(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A config under the conditions of a pool.

    Attributes:
        config: What it is.
        config_json: The same as stored.
        rendered_hash: Of what was started: two renderings of one config are two candidates.
        is_fresh: Whether its rows are of fresh starts; else they are one screening.
        points: Its ladder, lightest first; loads that enough of the starts measured.
        invalid: Its rows that do not count.
    """

    config: EngineConfig
    config_json: str
    rendered_hash: str
    is_fresh: bool
    points: tuple[Point, ...]
    invalid: tuple[Row, ...]

    @property
    def key(self) -> str:
        """Identity among candidates."""
        return f"{self.config.config_hash} {self.rendered_hash}"

    @property
    def num_gpus(self) -> int:
        """Devices of one replica; of a CPU, one machine."""
        return max(1, self.points[0].rows[0].num_gpus)

    def best(self, slo: Slo) -> Point | None:
        """The load with the most tokens per joule among those that meet an SLO; None where none does."""
        fit = [point for point in self.points if point.meets(slo)]
        return max(fit, key=attrgetter("output_tokens_per_joule"), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledOut:
    """A config that cannot be chosen, and why."""

    config_json: str
    reason: str


def candidates(pool: Pool) -> tuple[list[Candidate], list[RuledOut]]:
    """The configs of a pool, and those that a failed fresh start rules out."""
    found, out = [], []
    invalid = grouped(pool.invalid, attrgetter("config_hash", "rendered_hash"))
    trials = grouped(pool.trials.values(), attrgetter("config_hash"))
    for (config_hash, rendered_hash), rows in grouped(pool.rows, attrgetter("config_hash", "rendered_hash")).items():
        failed = [trial for trial in trials[config_hash] if trial.proposed_by in FRESH and trial.status.is_failure]
        if failed:
            reason = f"a fresh start failed: {failed[0].status} ({'; '.join(failed[0].reasons) or 'no reason given'})"
            out.append(RuledOut(config_json=rows[0].config_json, reason=reason))
        else:
            found.append(_candidate(rows, invalid.get((config_hash, rendered_hash), []), pool.trials))
    return found, out


def _candidate(rows: Sequence[Row], invalid: Sequence[Row], trials: Mapping[str, Trial]) -> Candidate:
    by_trial = grouped(rows, attrgetter("trial_id"))
    fresh = {key: own for key, own in by_trial.items() if _is_fresh(trials[key])}
    starts = list(fresh.values()) if fresh else [list(rows)]
    return Candidate(
        config=EngineConfig.from_axes(rows[0].engine, json.loads(rows[0].config_json)),
        config_json=rows[0].config_json,
        rendered_hash=rows[0].rendered_hash,
        is_fresh=bool(fresh),
        points=_points(starts),
        invalid=tuple(invalid),
    )


def _is_fresh(trial: Trial) -> bool:
    return trial.proposed_by in FRESH and trial.status is not TrialStatus.INTERRUPTED


def _points(starts: Sequence[Sequence[Row]]) -> tuple[Point, ...]:
    """A ladder from starts: loads that one of them alone measured do not count where there are several."""
    curves = [curve(start) for start in starts]
    points = []
    for load in sorted({load for one in curves for load in one}):
        at = [[row for row in start if row.load == load] for start in starts]
        measured = [own for own in at if own]
        if len(measured) >= min(MIN_ROUNDS, len(starts)):
            points.append(
                Point(
                    rows=tuple(row for own in measured for row in own),
                    log_scores=tuple(math.log(one[load]) for one in curves if load in one),
                    output_tokens_per_s=_mean(measured, "output_tokens_per_s"),
                    power_w=_mean(measured, "power_w"),
                )
            )
    return tuple(points)


def _mean(starts: Sequence[Sequence[Row]], column: str) -> float:
    """Geometric mean over starts of windows."""
    return math.exp(fmean(fmean(math.log(getattr(row, column)) for row in start) for start in starts))
