"""How far one start goes."""

import dataclasses

import pytest

from pipeline.engine_config import EngineConfig
from pipeline.record import Row
from pipeline.score import score
from pipeline.search.climb import Climb, Standing, first_load
from pipeline.search.ladder import AdaptiveLadder, FixedLadder, Grid
from pipeline.search.score_bound import ScoreBound
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from pipeline.workload import Slo
from tests.builders import MODELLED, make_row, make_slo, make_study, make_trial, with_search

STUDY = make_study(*MODELLED)
ADAPTIVE = with_search(STUDY, ladder="adaptive")
CONFIG = EngineConfig.from_axes(
    "trtllm", {"precision.weights": "fp4", "parallelism.tp": 2, "batching.max_batch_size": 64}
)
LOW = ScoreBound(value=1.0, by="physical")


def first(slo: Slo, study: Study = STUDY) -> float:
    return first_load(dataclasses.replace(study, slo=slo), CONFIG, Grid.of(study.workload)).load


def test_the_first_load_is_the_lightest_at_which_the_model_sees_the_most() -> None:
    assert first(make_slo()) == 64  # beyond the batch limit users only wait


def test_the_first_load_keeps_the_slo_by_the_model() -> None:
    assert [first(make_slo(tpot_p99_s=bound_s)) for bound_s in (0.02, 0.01, 0.005, 1e-6)] == [64, 32, 4, 1]
    assert first(make_slo(ttft_p99_s=0.0255)) == 8


def test_without_a_model_it_starts_in_the_middle() -> None:
    study = make_study()
    config = EngineConfig.from_axes("openvino", {"precision.weights": "bf16"})
    grid = Grid.of(study.workload)
    assert study.hardware.kind == "cpu"
    assert first_load(study, config, grid).load == 8  # of 1 to 64


def test_a_config_that_does_not_fit_by_the_model_starts_in_the_middle() -> None:
    small = dataclasses.replace(STUDY, hardware=dataclasses.replace(STUDY.hardware, memory_bytes=2**30))
    assert first(make_slo(), small) == 16  # of 1 to 256


def test_the_settings_choose_the_ladder() -> None:
    fixed, adaptive = (Climb.of(study, CONFIG, Standing()) for study in (STUDY, ADAPTIVE))
    assert fixed.ladder == FixedLadder(points=STUDY.workload.ladder, slo=STUDY.slo)
    assert isinstance(adaptive.ladder, AdaptiveLadder)
    assert Climb.whole(ADAPTIVE, CONFIG).ladder == fixed.ladder


@pytest.mark.parametrize(("budget_s", "num_loads"), [(None, 5), (1.0, 1), (99.0, 3), (100.0, 3), (120.0, 4)])
def test_no_load_is_begun_that_would_not_fit_into_the_budget(budget_s: float | None, num_loads: int) -> None:
    climb = Climb.of(with_search(STUDY, ladder_budget_s=budget_s), CONFIG, Standing())
    rows, durations_s = list[Row](), list[float]()
    while (point := climb.next_load(rows, durations_s)) is not None:
        rows.append(make_row(concurrency=point.concurrency))
        durations_s.append(30.0)
    assert len(rows) == num_loads


def test_the_standing_is_that_of_finished_trials_under_the_slo_owed_now() -> None:
    study = dataclasses.replace(STUDY, slo=make_slo(tpot_p99_s=0.05))
    trials = [
        make_trial(config_hash="a", score=99.0),
        make_trial(config_hash="b", status=TrialStatus.HUNG),
        make_trial(config_hash="c", status=TrialStatus.INTERRUPTED),
    ]
    rows = [
        make_row(config_hash="a", output_tokens_per_joule=2.0),
        make_row(config_hash="b", output_tokens_per_joule=3.0),
        make_row(config_hash="b", output_tokens_per_joule=9.0, concurrency=4, tpot_p99_s=0.1),
        make_row(config_hash="c", output_tokens_per_joule=8.0),
    ]
    assert Standing.of(study, trials, rows) == Standing(best=score(rows[1:3], study.slo), num_rows=4)
    assert Standing.of(study, [], []) == Standing()


def test_what_nothing_is_compared_with_has_no_bound_and_is_not_beaten() -> None:
    climb = Climb.whole(with_search(STUDY, prune=True), CONFIG)
    assert climb.bound([make_row()], 1) is None
    assert climb.beaten(LOW) is None


@pytest.mark.parametrize(
    ("prune", "best", "bound", "is_beaten"),
    [(True, 2.0, LOW, True), (False, 2.0, LOW, False), (True, 1.0, LOW, False), (True, None, LOW, False),
     (True, 2.0, None, False)],
)  # fmt: skip
def test_a_trial_is_beaten_only_where_it_cannot_win_and_that_is_wanted(
    prune: bool, best: float | None, bound: ScoreBound | None, is_beaten: bool
) -> None:
    climb = Climb.of(with_search(STUDY, prune=prune), CONFIG, Standing(best=best, num_rows=9))
    says = climb.beaten(bound)
    assert (says is not None) == is_beaten
    assert says in {None, "cannot win: at most 1 tok/J (bound: physical), the best so far has 2"}


def test_a_ladder_that_is_done_has_no_bound() -> None:
    climb = Climb.of(STUDY, CONFIG, Standing(best=2.0, num_rows=9))
    rows = [make_row(concurrency=load) for load in STUDY.workload.concurrency]
    assert climb.bound(rows[:2], 2) is not None
    assert climb.bound(rows, 5) is None
