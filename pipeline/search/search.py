"""Which config next? Ask and tell over the stored trials; the results folder is the only memory.

First the baseline, then what the caller wants tried (a vendor's recipes), then a few configs that the roofline ranks
best (one per structural cell, so that a wrong model does not send all of them to the same corner), then an Optuna
sampler over the same axes. Configs that break a rule or were tried are never proposed. A failed trial is told as
COMPLETE with a broken constraint, never as FAIL, which samplers ignore.
"""

import json
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from pipeline.axes import bears, stated, without_inert
from pipeline.engine_config import EngineConfig
from pipeline.record import Row, Trial
from pipeline.score import score, slack, usable
from pipeline.space import Space, engine_default
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

MAX_ASKS = 200
"""Asks for one proposal before an untried config is drawn at random: a sampler may keep repeating itself."""

CONSTRAINT = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A config to measure next, who proposed it, and usable rows it already has from an interrupted start."""

    config: EngineConfig
    proposed_by: str
    earlier_rows: tuple[Row, ...] = ()


class Search:
    """Proposals for one study."""

    def __init__(
        self,
        study: Study,
        space: Space,
        trials: Sequence[Trial],
        rows: Sequence[Row],
        prior: Sequence[EngineConfig],
        seeds: Sequence[tuple[EngineConfig, str]] = (),
    ) -> None:
        """Rebuild the state of the search from stored records.

        Args:
            study: Axes, baseline, budget and sampler.
            space: Feasible configs.
            trials: All stored trials of the study.
            rows: All stored rows of the study.
            prior: Feasible configs from the most to the least promising; empty where nothing is known.
            seeds: Configs to try right after the baseline, each with who proposes it; they may lie outside the axes.
        """
        self._study = study
        self._space = space
        self._feasible = {config.config_hash: config for config in space.configs}
        self._baseline = study.baseline or engine_default(space)
        self._prior = prior
        self._seeds = {config.config_hash: (config, proposed_by) for config, proposed_by in seeds}
        self._axes = {key: values for key, values in study.axes.items() if len(values) > 1}
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(row.config_hash, []).append(row)
        self._tried: set[str] = set()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna.create_study(direction="maximize", sampler=_sampler(study, len(trials)))
        for trial in trials:
            self.tell(trial, self._rows.get(trial.config_hash, ()))
        self._interrupted = _unfinished(trials, self._tried)

    @property
    def num_done(self) -> int:
        """Configs that have had their trial."""
        return len(self._tried)

    def proposals(self) -> Iterator[Proposal]:
        """Configs to measure, one at a time, until the budget or the space is used up; tell each before the next."""
        while self.num_done < self._study.search.budget_trials:
            proposal = self._next()
            if proposal is None:
                return
            yield proposal

    def tell(self, trial: Trial, rows: Sequence[Row]) -> None:
        """Take in a finished trial; an interrupted one leaves its config open.

        The score is taken anew from all rows of the config: the stored one may be that of another SLO.
        """
        if trial.status is TrialStatus.INTERRUPTED:
            return
        self._tried.add(trial.config_hash)
        params = self._params(EngineConfig.from_axes(trial.engine, json.loads(trial.config_json)))
        if params is None:
            return
        worst = min((t.value for t in self._optuna.trials if t.value is not None), default=0.0)
        value = score(rows, self._study.slo)
        if value is None and trial.status is TrialStatus.PRUNED:
            value = trial.score_bound  # cut before a load met the SLO: not known to break it at all of them
        broken = max(min((slack(row, self._study.slo) for row in usable(rows)), default=1.0), 1e-3)
        self._optuna.add_trial(
            optuna.create_trial(
                params=params,
                distributions=self._distributions(),
                value=worst if value is None else value,
                constraints={CONSTRAINT: broken if value is None else -1.0},
            )
        )

    def _next(self) -> Proposal | None:
        if self._interrupted:
            config = self._interrupted.pop(0)
            rows = tuple(usable(self._rows.get(config.config_hash, ())))
            return self._proposal(config, "resumed", rows)
        if self._baseline.config_hash not in self._tried:
            return self._proposal(self._baseline, "baseline")
        seed = next((config for key, (config, _) in self._seeds.items() if key not in self._tried), None)
        if seed is not None:
            return self._proposal(seed, "seed")
        left = [config for key, config in self._feasible.items() if key not in self._tried]
        if not left:
            return None
        if len(self._tried - self._seeds.keys()) <= self._study.search.num_seeded:
            seeded = next((config for config in self._prior if config.config_hash not in self._tried), None)
            if seeded is not None:
                return Proposal(config=seeded, proposed_by="prior")
        return self._ask(left)

    def _proposal(self, config: EngineConfig, proposed_by: str, earlier_rows: tuple[Row, ...] = ()) -> Proposal:
        """A proposal; a seed keeps its name, whoever comes upon it."""
        _, name = self._seeds.get(config.config_hash, (config, proposed_by))
        return Proposal(config=config, proposed_by=name, earlier_rows=earlier_rows)

    def _ask(self, left: Sequence[EngineConfig]) -> Proposal:
        sampler = self._study.search.sampler
        if sampler == "grid" or not self._axes:
            return Proposal(config=left[0], proposed_by="grid")
        for _ in range(MAX_ASKS):
            asked = self._optuna.ask(self._distributions())
            values = {key: self._study.axes[key][asked.params[key]] for key in self._axes}
            fixed = {key: values[0] for key, values in self._study.axes.items() if key not in self._axes}
            drawn = without_inert({**fixed, **values}, self._study)
            config = EngineConfig.from_axes(self._study.engine.name, drawn)
            self._optuna.tell(asked, state=optuna.trial.TrialState.FAIL)
            if config.config_hash not in self._tried and self._is_feasible(config):
                return Proposal(config=config, proposed_by=sampler)
        chooser = random.Random(f"{self._study.search.seed}/{self.num_done}")  # noqa: S311  # no secret
        return Proposal(config=chooser.choice(list(left)), proposed_by="random")

    def _distributions(self) -> dict[str, BaseDistribution]:
        """Axes by the index of their value: Optuna's own categories cannot tell 1 from True."""
        return {key: CategoricalDistribution(range(len(values))) for key, values in self._axes.items()}

    def _is_feasible(self, config: EngineConfig) -> bool:
        return config.config_hash in self._feasible or (self._space.is_drawn and self._space.allows(config))

    def _params(self, config: EngineConfig) -> dict[str, int] | None:
        """A config as indices into the axes; None where it lies outside them (a baseline may)."""
        requested, engine = config.requested(), self._study.engine.name
        params = {}
        for key, values in self._axes.items():
            wanted = repr(requested.get(key))  # 1, 1.0 and True differ
            matches = [n for n, value in enumerate(values) if repr(stated(engine, key, value)) == wanted]
            if not matches and bears(key, requested, self._study):
                return None
            params[key] = matches[0] if matches else 0
        return params


def _unfinished(trials: Sequence[Trial], tried: set[str]) -> list[EngineConfig]:
    """Configs whose trials were all interrupted, each once, in order."""
    open_trials = {t.config_hash: t for t in trials if t.config_hash not in tried}
    return [EngineConfig.from_axes(t.engine, json.loads(t.config_json)) for t in open_trials.values()]


def _sampler(study: Study, num_trials: int) -> optuna.samplers.BaseSampler:
    """The sampler, reseeded by how far the study has come, so that a resumed search does not repeat its draws."""
    seed = study.search.seed * 100_003 + num_trials
    if study.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(n_startup_trials=study.search.num_seeded, multivariate=True, seed=seed)
