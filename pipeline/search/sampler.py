"""Which config next, as an Optuna sampler: the one whose expected improvement, by the model and its residual, is most.

It chooses among listed configs only, so that no ask is wasted on an impossible one, and counts running trials as if
they had come out as expected.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from pipeline.engine_config import EngineConfig
from pipeline.search.encoding import Array, Encoding
from pipeline.search.surrogate import NOISE_SD, Expected, Tried, improvement, residual_mean
from pipeline.search.transfer import TRANSFER_SD, Elsewhere

Params = Mapping[str, Any]

MEASURED = "measured"
"""User attribute of a trial: [load, log of tokens per joule, slack] of each load that was measured; slack as in
score.py, null where nothing is owed."""


class ResidualSampler(BaseSampler):
    """Expected improvement over listed configs; see surrogate.py.

    Trials of the study it is asked for have the attribute MEASURED, a value, and constraints, none of which is above 0
    in a feasible one.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        config_of: Callable[[Params], EngineConfig],
        candidates: Callable[[], Sequence[tuple[Params, EngineConfig]]],
        expected: Callable[[Sequence[EngineConfig]], Expected],
        loads: Sequence[float],
        elsewhere: Sequence[Elsewhere] = (),
        seed: int = 0,
    ) -> None:
        """Remember how to read a trial and what to choose from.

        Args:
            distributions: Of the params.
            config_of: The config that a trial's params mean.
            candidates: Params and config of all that may be proposed now; never empty.
            expected: What the model expects of configs at `loads`.
            loads: Of the study, ascending.
            elsewhere: What other studies say of the model's residual.
            seed: For the order of equals.
        """
        self._distributions = dict(distributions)
        self._config_of = config_of
        self._candidates = candidates
        self._expected = expected
        self._loads = np.log2(np.array(loads, float))
        self._elsewhere = elsewhere
        self._chooser = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All params: they are chosen together."""
        del study, trial
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The params of the best candidate."""
        del trial, search_space
        running = [each.params for each in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        every = self._candidates()
        candidates = [each for each in every if dict(each[0]) not in running] or every
        gain = self.improvement(study, [config for _, config in candidates])
        order = np.lexsort((self._chooser.random(len(candidates)), -gain))
        return dict(candidates[int(order[0])][0])

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # as the base class
        """At random: of a param that is none of ours."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def improvement(self, study: optuna.Study, configs: Sequence[EngineConfig]) -> Array:
        """Expected improvement by config, after what was measured and with running trials as expected."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        running = [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if trial.params]
        tried, pending = ([self._config_of(trial.params) for trial in trials] for trials in (done, running))
        carried = [each.config for each in self._elsewhere]
        encoding = Encoding([*configs, *tried, *pending, *carried])
        here = self._residuals(done, tried)
        level = float(np.nanmean(here[:, 0])) if np.isfinite(here[:, 0]).any() else 0.0
        there = np.array([[level + each.residual, math.nan] for each in self._elsewhere], float).reshape(-1, 2)
        known = np.concatenate([here, there])
        noise_sd = np.array([NOISE_SD] * len(tried) + [math.hypot(NOISE_SD, TRANSFER_SD)] * len(carried))
        started = np.array([bool(trial.user_attrs.get(MEASURED)) for trial in done] + [True] * len(carried), float)
        at = encoding([*tried, *carried])
        facts = Tried(at=at, residual=known[:, 0], slack_residual=known[:, 1], has_started=started, noise_sd=noise_sd)
        if pending:
            guess = residual_mean(encoding(pending), facts)
            facts = Tried(
                at=np.concatenate([at, encoding(pending)]),
                residual=np.concatenate([facts.residual, guess]),
                slack_residual=np.concatenate([facts.slack_residual, np.full(len(pending), math.nan)]),
                has_started=np.concatenate([started, np.ones(len(pending))]),
                noise_sd=np.concatenate([noise_sd, np.full(len(pending), NOISE_SD)]),
            )
        values = [math.log(trial.value) for trial in done if trial.value and not is_broken(trial)]
        return improvement(encoding(configs), self._expected(configs), facts, max(values, default=-math.inf))

    def _residuals(self, trials: Sequence[FrozenTrial], configs: Sequence[EngineConfig]) -> Array:
        """Mean residual of log tokens per joule and of slack over the loads of each trial; NaN where unknown."""
        found = np.full((len(trials), 2), math.nan)
        expected = self._expected(configs) if configs else None
        for number, trial in enumerate(trials):
            measured = trial.user_attrs.get(MEASURED) or []
            if expected is None or not measured:
                continue
            loads, logs, slacks = (np.array(column, float) for column in zip(*measured, strict=True))
            for column, (line, values) in enumerate(((expected.log_score, logs), (expected.slack, slacks))):
                differences = values - np.interp(np.log2(loads), self._loads, line[number])
                is_known = np.isfinite(differences)
                if is_known.any():
                    found[number, column] = float(np.mean(differences[is_known]))
        return found


def is_broken(trial: FrozenTrial) -> bool:
    """Whether a trial broke a constraint."""
    return any(value > 0 for value in trial.constraints.values())
