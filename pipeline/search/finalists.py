"""The last starts of a budget: the best configs afresh, in turns with the baseline, until one is known to be best.

A search picks the luckiest of many single starts; what it reports is measured anew. Only these starts count.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from pipeline.engine_config import EngineConfig
from pipeline.grouping import grouped
from pipeline.multiple_comparison import Standing, compare
from pipeline.record import Row, Trial
from pipeline.score import score
from pipeline.search.anchor import gpu_set
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

BY = "finalist"
"""Who proposes these starts; a baseline that runs in turns with them is one too."""

MAX_FINALISTS = 3

MARGIN = 0.05
"""A config this much below the best single start may still be the best: two standard deviations between starts of one
config, at their upper bound (docs/measurement.md)."""

MIN_ROUNDS = 2
"""Starts of each, before a winner is called: the spread within configs comes from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finals:
    """What the fresh starts say so far.

    Attributes:
        standings: By multiple comparison, the best first; empty before it can be told.
        scores: Log of the score of each fresh start, by config; only configs whose starts all succeeded.
        baseline: Hash of the baseline.
        num_starts: Fresh starts made.
    """

    standings: tuple[Standing, ...]
    scores: dict[str, list[float]]
    baseline: str
    num_starts: int

    @property
    def tied(self) -> list[str]:
        """Configs of which none is known to be better than the others."""
        return [each.name for each in self.standings if each.may_be_best]

    @property
    def is_decided(self) -> bool:
        """Whether one config is known to be the best."""
        return len(self.tied) == 1 and min(map(len, self.scores.values())) >= MIN_ROUNDS


def num_final_starts(study: Study) -> int:
    """Starts kept for the finals: a share of the budget, none of it where nothing varies from start to start."""
    return 0 if study.rig == "modelled" else int(study.search.budget_trials * study.search.finals_share)


def without_finals(study: Study) -> Study:
    """The study with what the search may use of its budget."""
    budget = study.search.budget_trials - num_final_starts(study)
    return dataclasses.replace(study, search=dataclasses.replace(study.search, budget_trials=budget))


def finalists(study: Study, trials: Sequence[Trial], rows: Sequence[Row]) -> list[EngineConfig]:
    """The configs to start afresh: those within MARGIN of the best, the best first, then the baseline."""
    searched = [trial for trial in trials if trial.proposed_by != BY and trial.status is not TrialStatus.INTERRUPTED]
    own = {trial.trial_id for trial in searched}
    by_config = grouped((row for row in rows if row.trial_id in own), attrgetter("config_hash"))
    scores = {
        trial.config_hash: value
        for trial in searched
        if (value := score(by_config.get(trial.config_hash, ()), study.slo)) is not None
    }
    if not scores:
        return []
    best = max(scores.values())
    near = sorted((key for key, value in scores.items() if value >= best * (1 - MARGIN)), key=lambda key: -scores[key])
    chosen = near[:MAX_FINALISTS]
    baseline = next((trial.config_hash for trial in searched if trial.number == 0), None)
    if baseline in scores and baseline not in chosen:
        chosen.append(str(baseline))
    configs = {trial.config_hash: trial for trial in searched}
    return [EngineConfig.from_axes(configs[key].engine, json.loads(configs[key].config_json)) for key in chosen]


def finals(study: Study, trials: Sequence[Trial], rows: Sequence[Row]) -> Finals:
    """What the fresh starts of a study say."""
    by_trial, fresh = grouped(rows, attrgetter("trial_id")), _fresh(trials, rows)
    scores: dict[str, list[float]] = {}
    failed = set[str]()
    for trial in fresh:
        value = score(by_trial.get(trial.trial_id, ()), study.slo)
        if value is None:
            failed.add(trial.config_hash)
        else:
            scores.setdefault(trial.config_hash, []).append(math.log(value))
    kept = {key: values for key, values in scores.items() if key not in failed}
    baseline = next((trial.config_hash for trial in trials if trial.number == 0), "")
    return Finals(standings=tuple(compare(kept)), scores=kept, baseline=baseline, num_starts=len(fresh))


def _fresh(trials: Sequence[Trial], rows: Sequence[Row]) -> list[Trial]:
    """The fresh starts on the set of GPUs that the last one ran on, and those that failed without a row."""
    sets = {row.trial_id: gpu_set(row) for row in rows}
    fresh = [trial for trial in trials if trial.proposed_by == BY and trial.status is not TrialStatus.INTERRUPTED]
    last = next((sets[trial.trial_id] for trial in reversed(fresh) if trial.trial_id in sets), None)
    return [trial for trial in fresh if sets.get(trial.trial_id, last) == last]


def next_finalist(study: Study, trials: Sequence[Trial], rows: Sequence[Row]) -> EngineConfig | None:
    """The config to start afresh next: whichever of them has had the fewest starts; None when it is over.

    Every other round goes backwards, so that a drift of the machine does not favour whoever goes first.
    """
    so_far = finals(study, trials, rows)
    if so_far.num_starts >= num_final_starts(study) or so_far.is_decided:
        return None
    contenders = finalists(study, trials, rows)
    if len(contenders) < 2:
        return None
    starts = grouped(_fresh(trials, rows), attrgetter("config_hash"))
    counts = {config.config_hash: len(starts.get(config.config_hash, ())) for config in contenders}
    fewest = min(counts.values())
    order = contenders if fewest % 2 == 0 else contenders[::-1]
    return next(config for config in order if counts[config.config_hash] == fewest)
