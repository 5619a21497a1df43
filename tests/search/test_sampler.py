"""The sampler against truths that the model knows, half knows, and is wrong about."""

import dataclasses
import math
from collections.abc import Callable
from statistics import fmean

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.record import Row, Trial
from pipeline.roofline.predict import predict_loads
from pipeline.score import score
from pipeline.search.prior import NoPrior, Prior
from pipeline.search.search import Search
from pipeline.search.transfer import Elsewhere
from pipeline.space import Space, build_space
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from tests.builders import MODELLED, make_row, make_slo, make_study, make_trial, with_axes, with_search

Factor = Callable[[EngineConfig], float | None]
"""True tokens/s over the modelled ones, of a config; None where it does not start."""


def study(sampler: str = "residual", num_seeded: int = 1) -> Study:
    """About two hundred configs under an SLO that bounds the batch."""
    axes = with_axes(
        make_study(*MODELLED), precision__weights="fp4", precision__kv_cache=("auto", "fp8"),
        parallelism__tp=(1, 2, 4, 8), parallelism__attention_dp=(False, True),
        batching__max_batch_size=(32, 64, 128, 256), batching__max_num_tokens=(2048, 8192),
        engine__knobs__x=(None, 1, 2),
    )  # fmt: skip
    held = with_search(axes, sampler=sampler, num_seeded=num_seeded, budget_trials=60)
    return dataclasses.replace(held, slo=make_slo(tpot_p99_s=0.02))


SPACE = build_space(study())


class Truth:
    """The model times a factor, at every load."""

    def __init__(self, factor: Factor) -> None:
        self.factor = factor
        self.scores = {config.config_hash: score(self.rows(config), study().slo) or 0.0 for config in SPACE.configs}
        self.best = max(self.scores.values())

    def rows(self, config: EngineConfig) -> list[Row]:
        held, factor = study(), self.factor(config)
        found = predict_loads(held.model, held.hardware, held.workload, config, held.workload.ladder)
        if factor is None or isinstance(found, str):
            return []
        return [
            make_row(
                config_hash=config.config_hash, concurrency=point.concurrency, ttft_p99_s=one.ttft_s,
                output_tokens_per_joule=one.output_tokens_per_joule * factor, tpot_p99_s=one.tpot_s / factor,
            )
            for point, one in zip(held.workload.ladder, found, strict=True)
        ]  # fmt: skip


def outcome(truth: Truth, config: EngineConfig, number: int) -> tuple[Trial, list[Row]]:
    rows = truth.rows(config)
    status = TrialStatus.OK if rows else TrialStatus.OUT_OF_MEMORY
    return make_trial(
        number=number, config_hash=config.config_hash, config_json=canonical_json(config.requested()), status=status
    ), rows


def regrets(
    truth: Truth, num_starts: int, sampler: str = "residual", elsewhere: tuple[Elsewhere, ...] = (), **settings: int
) -> list[float]:
    """1 - best score so far / best there is, after each start."""
    held = study(sampler, **settings)
    prior = Prior(held, SPACE.configs) if sampler == "residual" else NoPrior(held, SPACE.configs)
    search, best, found = Search(held, SPACE, [], [], prior, elsewhere=elsewhere), 0.0, []
    for number, proposal in zip(range(num_starts), search.proposals(), strict=False):
        trial, rows = outcome(truth, proposal.config, number)
        search.tell(trial, rows)
        best = max(best, score(rows, held.slo) or 0.0)
        found.append(1 - best / truth.best)
    return found


def by_knob(config: EngineConfig) -> float:
    """What the model cannot know: one knob costs, the other gains."""
    return {None: 1.0, 1: 0.8, 2: 1.25}[config.knobs.get("x")]  # type: ignore[index]  # an integer or unset


def test_a_model_that_is_right_needs_two_starts() -> None:
    assert regrets(Truth(lambda _: 1.0), 2)[-1] == pytest.approx(0, abs=1e-9)


def test_what_the_model_does_not_know_is_found_in_a_few_starts() -> None:
    assert regrets(Truth(by_knob), 10)[-1] < 0.03


def test_a_model_that_is_off_alike_everywhere_finds_the_load_that_the_slo_allows() -> None:
    slow = Truth(lambda _: 0.6)
    assert regrets(slow, 8)[-1] < 0.03


def test_a_model_that_is_wildly_wrong_is_unlearned_and_beats_chance() -> None:
    def factor(config: EngineConfig) -> float:
        cell = (config.parallelism.tp, config.parallelism.attention_dp, 1)
        return float(np.exp(np.random.default_rng([*map(int, cell)]).normal(0, 0.7)))

    truth = Truth(factor)
    ours = regrets(truth, 20)[-1]
    assert ours < 0.1
    assert ours <= regrets(truth, 20, "random")[-1] + 1e-9


def test_where_starts_fail_is_learned_and_shunned() -> None:
    def factor(config: EngineConfig) -> float | None:
        return None if config.parallelism.tp == 1 else by_knob(config)

    truth, held = Truth(factor), study()
    search, failed = Search(held, SPACE, [], [], Prior(held, SPACE.configs)), 0
    for number, proposal in zip(range(20), search.proposals(), strict=False):
        trial, rows = outcome(truth, proposal.config, number)
        failed += not rows
        search.tell(trial, rows)
    assert failed <= 8


@pytest.mark.parametrize("value", [None, 1.0])
@pytest.mark.parametrize("sampler", ["residual", "gp"])
def test_all_failing_or_all_alike_is_no_crash_and_nothing_is_tried_twice(sampler: str, value: float | None) -> None:
    held = study(sampler)
    search, tried = Search(held, SPACE, [], [], Prior(held, SPACE.configs)), []
    for number, proposal in zip(range(12), search.proposals(), strict=False):
        trial, _ = outcome(Truth(lambda _: 1.0), proposal.config, number) if number == 0 else (
            make_trial(number=number, config_hash=proposal.config.config_hash, status=TrialStatus.START_FAILED,
                       config_json=canonical_json(proposal.config.requested())), [])  # fmt: skip
        rows = (
            [] if value is None else [make_row(config_hash=proposal.config.config_hash, output_tokens_per_joule=value)]
        )
        search.tell(trial, rows)
        tried.append(proposal.config.config_hash)
    assert len(set(tried)) == 12


def test_without_a_model_it_is_a_plain_regression() -> None:
    assert regrets(Truth(by_knob), 40, "gp")[-1] < 0.15


def test_what_another_study_learned_of_the_model_saves_starts() -> None:
    alone, helped = [], []
    for seed in range(4):

        def factor(config: EngineConfig, seed: int = seed) -> float:
            layout, knob = config.parallelism, config.knobs.get("x") or 0
            words = [layout.tp, int(layout.attention_dp), int(str(knob)), len(config.precision.kv_cache or ""), seed]
            return float(np.exp(np.random.default_rng(words).normal(0, 0.4)))

        truth = Truth(factor)
        there = tuple(Elsewhere(config=each, residual=math.log(factor(each))) for each in SPACE.configs[::7])
        alone.append(regrets(truth, 5)[-1])
        helped.append(regrets(truth, 5, elsewhere=there)[-1])
    assert fmean(helped) < 0.8 * fmean(alone)


def test_running_trials_are_not_proposed_again_and_count_as_expected() -> None:
    held = study(num_seeded=0)
    search = Search(held, SPACE, [], [], Prior(held, SPACE.configs))
    optuna_study, distributions = search._optuna, search._distributions()
    asked = [optuna_study.ask(distributions) for _ in range(6)]
    assert len({tuple(sorted(trial.params.items())) for trial in asked}) == 6


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, len(SPACE.configs) - 1), st.floats(0.2, 5)), min_size=1, max_size=8))
def test_improvement_is_finite_and_never_negative(told: list[tuple[int, float]]) -> None:
    held = study()
    search = Search(held, SPACE, [], [], Prior(held, SPACE.configs))
    for number, (index, factor) in enumerate(told):
        search.tell(*outcome(truth_of(factor), SPACE.configs[index], number))
    sampler = search._optuna.sampler
    assert hasattr(sampler, "improvement")
    gain = sampler.improvement(search._optuna, SPACE.configs)
    assert np.isfinite(gain).all()
    assert (gain >= 0).all()


def truth_of(factor: float) -> Truth:
    made = Truth.__new__(Truth)
    made.factor = lambda _: factor
    return made


def test_it_is_an_optuna_sampler() -> None:
    held = study()
    space: Space = SPACE
    sampler = Search(held, space, [], [], Prior(held, space.configs))._optuna.sampler
    assert isinstance(sampler, optuna.samplers.BaseSampler)
