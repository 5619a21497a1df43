import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Callable, Sequence

import pytest
from optuna.trial import TrialState

from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.record import Row, Trial
from pipeline.score import usable
from pipeline.search.proposal import Proposal
from pipeline.search.search import CONSTRAINT, Search
from pipeline.space import build_space, engine_default
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from tests.builders import INVALID, MODELLED, make_row, make_slo, make_study, make_trial, with_axes, with_search
from tests.search.listed import Listed

Objective = Callable[[EngineConfig], float | None]

SAMPLERS = ("residual", "gp", "tpe", "random", "grid")


@pytest.fixture(autouse=True)
def fewer_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the end of a space a sampler repeats itself until it is told to stop; that takes most of the time."""
    monkeypatch.setattr("pipeline.search.search.MAX_ASKS", 20)


def small_study(sampler: str = "tpe", budget: int = 8, num_seeded: int = 2, seed: int = 0) -> Study:
    """Eight configs and a default that is none of them."""
    study = with_axes(
        make_study(*MODELLED), precision__weights="fp4", precision__kv_cache=("auto", "fp8"), parallelism__tp=(1, 2),
        batching__max_batch_size=(64, 128),
    )  # fmt: skip
    return with_search(study, sampler=sampler, budget_trials=budget, num_seeded=num_seeded, seed=seed)


def large_study(sampler: str, budget: int, seed: int) -> Study:
    """696 configs, and 24 that a rule excludes."""
    study = with_axes(
        make_study(*MODELLED), precision__weights="fp4", parallelism__tp=(1, 2, 4, 8),
        batching__max_batch_size=(64, 128, 256, 512, 1024, 2048),
        batching__max_num_tokens=(1024, 2048, 4096, 8192, 16384),
        batching__kv_cache_fraction=(0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    )  # fmt: skip
    return with_search(study, sampler=sampler, budget_trials=budget, num_seeded=4, seed=seed)


def separable(config: EngineConfig) -> float:
    """Every axis has its own best value, whatever the others are."""
    batching = config.batching
    return (
        4 / config.parallelism.tp
        + 3 / (1 + abs(math.log2((batching.max_batch_size or 32) / 256)))
        + 2 / (1 + abs(math.log2((batching.max_num_tokens or 1024) / 8192)))
        + (batching.kv_cache_fraction or 0.0)
    )


def outcome(config: EngineConfig, value: float | None, number: int) -> tuple[Trial, list[Row]]:
    """The records of a trial that found this value, or ran out of memory."""
    status = TrialStatus.OUT_OF_MEMORY if value is None else TrialStatus.OK
    trial = make_trial(
        number=number, config_hash=config.config_hash, config_json=canonical_json(config.requested()), status=status,
        score=value,
    )  # fmt: skip
    rows = [make_row(config_hash=config.config_hash, output_tokens_per_joule=value, trial_id=trial.trial_id)]
    return trial, [] if value is None else rows


class Campaign:
    """A search played through against a function, its records kept as a store would."""

    def __init__(
        self,
        study: Study,
        objective: Objective,
        prior: Sequence[EngineConfig] = (),
        seeds: Sequence[tuple[EngineConfig, str]] = (),
    ) -> None:
        self.study, self.space, self.objective, self.prior = study, build_space(study), objective, prior
        self.seeds = seeds
        self.trials: list[Trial] = []
        self.rows: list[Row] = []
        self.proposals: list[Proposal] = []

    def search(self) -> Search:
        return Search(self.study, self.space, self.trials, self.rows, Listed(self.study, self.prior), self.seeds)

    def play(self, limit: int | None = None) -> list[str]:
        """Start anew from the records; returns the hashes of all configs ever proposed."""
        search = self.search()
        for proposal in itertools.islice(search.proposals(), limit):
            self.proposals.append(proposal)
            trial, rows = outcome(proposal.config, self.objective(proposal.config), len(self.trials))
            self.trials.append(trial)
            self.rows += rows
            search.tell(trial, rows)
        return [proposal.config.config_hash for proposal in self.proposals]


def interrupted(config: EngineConfig, number: int = 0) -> Trial:
    trial, _ = outcome(config, 1.0, number)
    return dataclasses.replace(trial, status=TrialStatus.INTERRUPTED, score=None)


def test_the_default_of_the_engine_comes_first() -> None:
    campaign = Campaign(small_study(), separable)
    campaign.play(1)
    assert campaign.proposals[0] == Proposal(config=engine_default(campaign.space), proposed_by="baseline")


def test_the_users_baseline_comes_first_even_if_it_lies_outside_the_axes() -> None:
    theirs = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": 8})
    campaign = Campaign(dataclasses.replace(small_study(), baseline=theirs), separable)
    campaign.play()
    assert campaign.proposals[0] == Proposal(config=theirs, proposed_by="baseline")
    assert len(campaign.proposals) == 8


def test_the_prior_comes_next_in_its_order_and_then_the_sampler() -> None:
    study = small_study(num_seeded=3)
    prior = build_space(study).configs[::-1]
    campaign = Campaign(dataclasses.replace(study, baseline=prior[0]), separable, prior)
    campaign.play()
    assert [p.proposed_by for p in campaign.proposals[:5]] == ["baseline", "prior", "prior", "prior", "tpe"]
    assert [p.config for p in campaign.proposals[:4]] == list(prior[:4])


def test_without_a_prior_the_sampler_follows_the_baseline() -> None:
    campaign = Campaign(small_study(), separable)
    campaign.play(3)
    assert [p.proposed_by for p in campaign.proposals] == ["baseline", "tpe", "tpe"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_is_proposed_twice_and_the_budget_is_kept(sampler: str) -> None:
    campaign = Campaign(large_study(sampler, 25, seed=1), separable)
    proposed = campaign.play()
    assert len(campaign.space.configs) == 696
    assert len(proposed) == len(set(proposed)) == 25
    assert set(proposed[1:]) <= {config.config_hash for config in campaign.space.configs}


@pytest.mark.parametrize("num_seeded", [0, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_space_is_used_up_and_then_there_is_an_end(sampler: str, num_seeded: int) -> None:
    campaign = Campaign(small_study(sampler, budget=100, num_seeded=num_seeded), separable)
    proposed = campaign.play()
    everything = {config.config_hash for config in campaign.space.configs}
    assert set(proposed) - everything == {engine_default(campaign.space).config_hash}
    assert set(proposed) > everything
    assert len(proposed) == len(everything) + 1


def test_a_space_of_one_is_the_baseline_and_its_only_config() -> None:
    study = with_search(with_axes(make_study(*MODELLED), precision__weights="fp4"), budget_trials=5)
    campaign = Campaign(study, separable)
    assert len(campaign.play()) == 2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("stops", [(1,), (2,), (5,), (1, 1, 1), (3, 2, 4)])
def test_resuming_goes_on_where_it_was(sampler: str, stops: tuple[int, ...]) -> None:
    study = small_study(sampler, budget=9)
    prior = build_space(study).configs[::-1]
    straight, resumed = Campaign(study, separable, prior), Campaign(study, separable, prior)
    straight.play()
    for stop in stops:
        resumed.play(stop)
    proposed = resumed.play()
    assert len(proposed) == len(set(proposed)) == 9
    assert set(proposed) == {p.config.config_hash for p in straight.proposals}
    num_fixed = 9 if sampler == "grid" else 3
    assert resumed.proposals[:num_fixed] == straight.proposals[:num_fixed]
    assert resumed.play() == proposed


def test_a_larger_budget_goes_on_a_spent_one_does_not() -> None:
    campaign = Campaign(small_study(budget=4), separable)
    assert len(campaign.play()) == 4
    assert campaign.search().num_done == 4
    assert next(campaign.search().proposals(), None) is None
    campaign.study = small_study(budget=6)
    assert len(campaign.play()) == 6


def test_the_order_of_stored_records_may_be_that_of_a_merge() -> None:
    campaign = Campaign(small_study(budget=6), separable)
    campaign.play(4)
    campaign.trials, campaign.rows = campaign.trials[::-1], campaign.rows[::-1]
    proposed = campaign.play()
    assert len(proposed) == len(set(proposed)) == 6


def test_an_interrupted_config_comes_back_first_with_its_usable_rows() -> None:
    campaign = Campaign(small_study(), separable)
    tried = campaign.play(2)
    lost = next(config for config in campaign.space.configs if config.config_hash not in tried)
    campaign.trials.append(interrupted(lost, 2))
    kept = [make_row(config_hash=lost.config_hash, concurrency=load) for load in (1, 4)]
    campaign.rows += [*kept, make_row(config_hash=lost.config_hash, concurrency=16, **INVALID)]
    search = campaign.search()
    assert search.num_done == 2
    proposals = search.proposals()
    assert next(proposals) == Proposal(config=lost, proposed_by="resumed", earlier_rows=tuple(kept))
    search.tell(*outcome(lost, 1.0, 3))
    assert next(proposals).config != lost
    assert search.num_done == 3


def test_a_config_interrupted_twice_comes_back_once_and_a_finished_one_never() -> None:
    campaign = Campaign(small_study(), separable)
    lost, done = campaign.space.configs[:2]
    finished, rows = outcome(done, 1.0, 3)
    campaign.trials = [interrupted(lost, 0), interrupted(lost, 1), interrupted(done, 2), finished]
    campaign.rows = rows
    proposed = campaign.play()
    assert proposed.count(lost.config_hash) == 1
    assert proposed[0] == lost.config_hash
    assert done.config_hash not in proposed
    assert len(proposed) == 7


def test_an_interrupted_baseline_is_not_started_twice() -> None:
    campaign = Campaign(small_study(), separable)
    campaign.trials = [interrupted(engine_default(campaign.space))]
    proposed = campaign.play()
    assert len(proposed) == len(set(proposed)) == 8
    assert [p.proposed_by for p in campaign.proposals[:2]] == ["resumed", "tpe"]


def with_seeds(study: Study, num_seeds: int = 3) -> tuple[Campaign, list[tuple[EngineConfig, str]]]:
    """A campaign whose seeds lie outside the axes, but for the last."""
    inside = build_space(study).configs[-1]
    outside = [
        dataclasses.replace(inside, knobs={"print_iter_log": True, "stream_interval": n}) for n in range(1, num_seeds)
    ]
    seeds = [(config, f"recipe:{n}.yaml") for n, config in enumerate([*outside, inside])]
    return Campaign(study, separable, build_space(study).configs, seeds), seeds


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_come_right_after_the_baseline_under_their_own_names(sampler: str) -> None:
    campaign, seeds = with_seeds(small_study(sampler, budget=20))
    proposed = campaign.play()
    assert [p.proposed_by for p in campaign.proposals[:4]] == ["baseline", *(by for _, by in seeds)]
    assert [p.config for p in campaign.proposals[1:4]] == [config for config, _ in seeds]
    assert len(proposed) == len(set(proposed)) == 8 + 1 + 2


def test_seeds_count_in_the_budget_and_leave_the_prior_its_share() -> None:
    campaign, _ = with_seeds(small_study(budget=7, num_seeded=2))
    campaign.play()
    assert [p.proposed_by for p in campaign.proposals[:6]] == [
        "baseline", "recipe:0.yaml", "recipe:1.yaml", "recipe:2.yaml", "prior", "prior",
    ]  # fmt: skip
    assert len(campaign.proposals) == 7
    assert campaign.proposals[6].proposed_by in {"tpe", "random"}


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 6])
def test_seeds_are_not_repeated_when_a_search_resumes(stop: int) -> None:
    campaign, _ = with_seeds(small_study("grid", budget=8))
    straight, _ = with_seeds(small_study("grid", budget=8))
    campaign.play(stop)
    assert campaign.play() == straight.play()
    assert [p.proposed_by for p in campaign.proposals] == [p.proposed_by for p in straight.proposals]


def test_an_interrupted_seed_comes_back_under_its_name() -> None:
    campaign, seeds = with_seeds(small_study())
    campaign.trials = [interrupted(seeds[1][0])]
    campaign.play(1)
    assert campaign.proposals == [Proposal(config=seeds[1][0], proposed_by="recipe:1.yaml")]


def test_a_baseline_that_is_a_seed_is_tried_once_under_the_seeds_name() -> None:
    study = small_study()
    campaign, seeds = with_seeds(study)
    campaign.study = dataclasses.replace(study, baseline=seeds[0][0])
    campaign.play(3)
    assert [p.proposed_by for p in campaign.proposals] == ["recipe:0.yaml", "recipe:1.yaml", "recipe:2.yaml"]


def test_a_failed_config_is_told_as_complete_with_a_broken_constraint_and_not_tried_again() -> None:
    study = small_study("random", budget=9)
    campaign = Campaign(study, lambda c: None if c.parallelism.tp == 2 else separable(c))
    proposed = campaign.play()
    assert len(proposed) == len(set(proposed)) == 9
    told = [t for t in campaign.search()._optuna.trials if t.state is TrialState.COMPLETE]
    assert len(told) == 8
    for trial in told:
        failed = trial.params["parallelism.tp"] == 1
        assert (trial.constraints[CONSTRAINT] > 0) is failed
        assert trial.value is not None
    assert [t for t in campaign.search()._optuna.trials if t.state is not TrialState.COMPLETE] == []


def test_the_first_trial_may_fail() -> None:
    campaign = Campaign(small_study(budget=9), lambda _: None)
    proposed = campaign.play()
    assert len(proposed) == len(set(proposed)) == 9


def test_a_config_that_misses_the_slo_is_told_by_how_much() -> None:
    study = dataclasses.replace(small_study(), slo=make_slo(tpot_p99_s=0.01))
    space = build_space(study)
    trials, rows = [], []
    for number, factor in enumerate((0.5, 2.0, 8.0)):
        config = space.configs[number]
        trials.append(outcome(config, None, number)[0])
        rows.append(make_row(config_hash=config.config_hash, tpot_p99_s=0.01 * factor))
    told = Search(study, space, trials, rows, Listed(study))._optuna.trials
    broken = [trial.constraints[CONSTRAINT] for trial in told]
    assert broken[0] < 0
    assert broken[1:] == pytest.approx([math.log(2), math.log(8)])


def test_a_trial_is_told_under_the_slo_of_today_and_not_of_the_day_it_ran() -> None:
    study = small_study()
    space = build_space(study)
    trial, rows = outcome(space.configs[0], 5.0, 0)
    strict = dataclasses.replace(study, slo=make_slo(tpot_p99_s=0.001))
    (told,) = Search(strict, space, [trial], rows, Listed(strict))._optuna.trials
    assert told.constraints[CONSTRAINT] > 0
    stale = dataclasses.replace(trial, score=None)
    (told,) = Search(study, space, [stale], rows, Listed(study))._optuna.trials
    assert told.constraints[CONSTRAINT] < 0
    assert told.value == pytest.approx(5.0)


def test_every_config_of_a_space_has_its_place_on_the_axes_however_they_are_spelt() -> None:
    study = with_axes(
        make_study(*MODELLED), precision__weights="fp4", precision__kv_cache=(None, "fp8"), parallelism__tp=(None, 2),
        parallelism__pp=(1, 2), parallelism__ep=(None, 2), parallelism__attention_dp=(None, True),
        batching__kv_cache_fraction=(1, 0.9), batching__max_batch_size=("64", 128), batching__chunked_prefill=(True, 0),
    )  # fmt: skip
    study.axes["engine.knobs.moe_backend"] = (None, 1, True, "1", 1.0)
    space = build_space(study)
    search = Search(study, space, [], [], Listed(study))
    assert len(space.configs) > 100
    for config in space.configs:
        params = search._find_params(EngineConfig.from_axes("trtllm", json.loads(canonical_json(config.requested()))))
        assert params is not None
        chosen = {key: study.axes[key][params.get(key, 0)] for key in study.axes}
        assert EngineConfig.from_axes("trtllm", chosen).config_hash == config.config_hash


def test_a_search_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    Campaign(small_study(), separable).play()
    assert capfd.readouterr() == ("", "")


def best(study: Study, objective: Objective) -> float:
    campaign = Campaign(study, objective)
    campaign.play()
    return max(row.output_tokens_per_joule or 0.0 for row in usable(campaign.rows))


def test_tpe_learns_what_random_draws_do_not() -> None:
    found = {
        sampler: statistics.fmean(best(large_study(sampler, 30, seed), separable) for seed in range(5))
        for sampler in ("tpe", "random")
    }
    assert found["tpe"] > found["random"] + 0.5


def test_tpe_learns_to_stay_where_engines_start() -> None:
    def fragile(config: EngineConfig) -> float | None:
        return None if (config.batching.max_batch_size or 0) >= 256 else separable(config)

    num_failed = {"tpe": 0, "random": 0}
    for sampler in num_failed:
        for seed in range(5):
            campaign = Campaign(large_study(sampler, 30, seed), fragile)
            campaign.play()
            num_failed[sampler] += sum(trial.status is TrialStatus.OUT_OF_MEMORY for trial in campaign.trials)
    assert num_failed["tpe"] < 0.75 * num_failed["random"]


def test_a_trial_that_was_cut_is_told_by_its_score_or_by_its_bound() -> None:
    study = dataclasses.replace(small_study(), slo=make_slo(tpot_p99_s=0.1))
    space = build_space(study)
    for tpot_p99_s, value in ((0.05, 2.0), (0.2, 3.0)):
        trial, (row,) = outcome(space.configs[0], 2.0, 0)
        trial = dataclasses.replace(trial, status=TrialStatus.PRUNED, score_bound=3.0)
        row = dataclasses.replace(row, tpot_p99_s=tpot_p99_s)
        (told,) = Search(study, space, [trial], [row], Listed(study))._optuna.trials
        assert told.value == pytest.approx(value)
        assert told.constraints[CONSTRAINT] < 0
