"""Which config next? Ask and tell over the stored trials; the results folder is the only memory.

First the baseline, then what the caller wants tried (a vendor's recipes), then a few configs that the roofline ranks
best (one per structural cell, so that a wrong model does not send all of them to the same corner), then an Optuna
sampler over the same axes. Configs that break a rule or were tried are never proposed. A failed trial is told as
COMPLETE with a broken constraint, never as FAIL, which samplers ignore. On the way the model is fitted to the rows.
"""

import json
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from pipeline.axes import bears, stated, without_inert
from pipeline.engine_config import EngineConfig
from pipeline.record import Row, Trial
from pipeline.roofline.calibration import Calibration
from pipeline.score import score, slack, usable
from pipeline.search.ladder import loads_of
from pipeline.search.prior import NoPrior, Prior
from pipeline.search.proposal import Proposal
from pipeline.search.recalibration import recalibrated
from pipeline.search.sampler import MEASURED, ResidualSampler, is_broken
from pipeline.search.surrogate import Expected
from pipeline.search.transfer import Elsewhere
from pipeline.space import Space, baseline_of
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

MAX_ASKS = 200
"""Asks for one proposal before an untried config is drawn at random: a sampler may keep repeating itself."""

CONSTRAINT = "broken"

RECALIBRATE_AFTER = (2, 4, 8, 16, 32, 64)
"""Trials after which the model is fitted to the rows so far: it takes a second or two."""


class Search:
    """Proposals for one study."""

    def __init__(
        self,
        study: Study,
        space: Space,
        trials: Sequence[Trial],
        rows: Sequence[Row],
        prior: Prior,
        seeds: Sequence[tuple[EngineConfig, str]] = (),
        elsewhere: Sequence[Elsewhere] = (),
    ) -> None:
        """Rebuild the state of the search from stored records.

        Args:
            study: Axes, baseline, budget and sampler.
            space: Feasible configs.
            trials: All stored trials of the study.
            rows: All stored rows of the study.
            prior: What the model expects of the feasible configs.
            seeds: Configs to try right after the baseline, each with who proposes it; they may lie outside the axes.
            elsewhere: What other studies say of the model.
        """
        self._study = study
        self._space = space
        self._feasible = {config.config_hash: config for config in space.configs}
        self._baseline = baseline_of(study, space)
        self._prior = prior
        self._calibration: Calibration | None = None
        self._seeds = {config.config_hash: (config, proposed_by) for config, proposed_by in seeds}
        self._axes = {key: values for key, values in study.axes.items() if len(values) > 1}
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(row.config_hash, []).append(row)
        self._tried: set[str] = set()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._params_by_hash: dict[str, dict[str, int] | None] = {}
        self._optuna = optuna.create_study(direction="maximize", sampler=self._sampler(len(trials), elsewhere))
        for trial in trials:
            self.tell(trial, self._rows.get(trial.config_hash, ()))
        self._interrupted = _unfinished(trials, self._tried)
        if len(trials) >= RECALIBRATE_AFTER[0]:
            self._recalibrate()

    @property
    def num_done(self) -> int:
        """Configs that have had their trial."""
        return len(self._tried)

    @property
    def calibration(self) -> Calibration | None:
        """Constants of the model as fitted to the rows so far; None before that."""
        return self._calibration

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
        self._rows[trial.config_hash] = list(rows)
        config = EngineConfig.from_axes(trial.engine, json.loads(trial.config_json))
        params = self._params(config, config.config_hash)
        if params is None:
            return
        worst = min((t.value for t in self._optuna.get_trials(deepcopy=False) if t.value is not None), default=0.0)
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
                user_attrs={MEASURED: self._told(usable(rows), value)},
            )
        )

    def _told(self, rows: Sequence[Row], value: float | None) -> list[tuple[float, float, float | None]]:
        """What was measured, as the sampler reads it: every load; without a model to compare with, the score alone."""
        slo = self._study.slo
        if not self._has_model:
            return [] if value is None else [(1.0, math.log(value), None)]
        return [
            (row.load, math.log(row.output_tokens_per_joule or 1.0), slack(row, slo) if slo.bounds else None)
            for row in rows
        ]

    @property
    def _has_model(self) -> bool:
        return self._prior.is_known and self._study.search.sampler != "gp"

    def reconsider(self) -> str | None:
        """Now and then, fit the model to the rows so far; says how wrong it was, None where nothing was done."""
        return self._recalibrate() if self.num_done in RECALIBRATE_AFTER else None

    def _recalibrate(self) -> str | None:
        found = recalibrated(self._study, [row for rows in self._rows.values() for row in rows])
        if found is None:
            return None
        self._calibration = found.calibration
        self._prior = Prior(self._study, self._space.configs, found.calibration)
        return str(found)

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
            ranked = self._prior.ranked()
            seeded = next((config for config in ranked if config.config_hash not in self._tried), None)
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
            config = self._config(asked.params)
            self._optuna.tell(asked, state=optuna.trial.TrialState.FAIL)
            if config.config_hash not in self._tried and self._is_feasible(config):
                return Proposal(config=config, proposed_by=sampler)
        chooser = random.Random(f"{self._study.search.seed}/{self.num_done}")  # noqa: S311  # no secret
        return Proposal(config=chooser.choice(list(left)), proposed_by="random")

    def _config(self, params: Mapping[str, Any]) -> EngineConfig:
        """The config that indices into the axes mean."""
        chosen = {key: values[params.get(key, 0)] for key, values in self._study.axes.items()}
        return EngineConfig.from_axes(self._study.engine.name, without_inert(chosen, self._study))

    def _candidates(self) -> list[tuple[dict[str, int], EngineConfig]]:
        """Untried configs with their params: those listed, and of a drawn space the neighbours of the best as well."""
        every = dict(self._feasible)
        best = max(self._optuna.get_trials(deepcopy=False), key=_feasible_value, default=None)
        if self._space.is_drawn and best is not None:
            for key, values in self._axes.items():
                for index in range(len(values)):
                    near = self._config(best.params | {key: index})
                    if near.config_hash not in every and self._space.allows(near):
                        every[near.config_hash] = near
        return [
            (params, config)
            for key, config in every.items()
            if key not in self._tried and (params := self._params(config, key)) is not None
        ]

    def _expected(self, configs: Sequence[EngineConfig]) -> Expected:
        """What the model expects; nothing of any config where there is none, or it is not asked."""
        prior = self._prior if self._has_model else NoPrior(self._study, ())
        found = np.array([prior.expected(config) for config in configs], float)
        return Expected(log_score=found[:, :, 0], slack=found[:, :, 1])

    def _sampler(self, num_trials: int, elsewhere: Sequence[Elsewhere]) -> optuna.samplers.BaseSampler:
        """The sampler, reseeded by how far the study has come, so that a resumed search does not repeat its draws."""
        settings = self._study.search
        seed = settings.seed * 100_003 + num_trials
        if settings.sampler in {"residual", "gp"}:
            known = elsewhere if settings.sampler == "residual" else ()
            return ResidualSampler(
                self._distributions(), self._config, self._candidates, self._expected,
                [point.load for point in loads_of(self._study)], known, seed=seed,
            )  # fmt: skip
        if settings.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(n_startup_trials=settings.num_seeded, multivariate=True, seed=seed)

    def _distributions(self) -> dict[str, BaseDistribution]:
        """Axes by the index of their value: Optuna's own categories cannot tell 1 from True."""
        return {key: CategoricalDistribution(range(len(values))) for key, values in self._axes.items()}

    def _is_feasible(self, config: EngineConfig) -> bool:
        return config.config_hash in self._feasible or (self._space.is_drawn and self._space.allows(config))

    def _params(self, config: EngineConfig, config_hash: str) -> dict[str, int] | None:
        """A config as indices into the axes; None where it lies outside them (a baseline may)."""
        if config_hash not in self._params_by_hash:
            self._params_by_hash[config_hash] = self._find_params(config)
        return self._params_by_hash[config_hash]

    def _find_params(self, config: EngineConfig) -> dict[str, int] | None:
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


def _feasible_value(trial: optuna.trial.FrozenTrial) -> float:
    """To find the best by: a trial that broke a constraint, or was only asked for, is none."""
    return -math.inf if trial.value is None or is_broken(trial) else trial.value
