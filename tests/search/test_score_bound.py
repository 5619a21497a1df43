"""What a trial can still score at most."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from pipeline.engine_config import EngineConfig
from pipeline.grouping import grouped
from pipeline.record import Row
from pipeline.resume import stored_study
from pipeline.roofline.bound import physical_limit
from pipeline.roofline.calibration import SHIPPED
from pipeline.roofline.predict import Prediction, predict_loads
from pipeline.score import usable
from pipeline.search.score_bound import MIN_ROWS, PHYSICAL, ScoreBound, coverage, score_bound
from pipeline.store import Store
from pipeline.vocabulary import TrialStatus
from pipeline.workload import OperatingPoint
from tests.builders import INVALID, MODELLED, make_row, make_study, make_trial

STUDY = make_study(*MODELLED)
CONFIG = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": 2})
LIGHT, *LEFT = STUDY.workload.ladder
ERRORS = SHIPPED.error_of(STUDY.model.name)


def modelled(points: list[OperatingPoint]) -> list[Prediction]:
    found = predict_loads(STUDY.model, STUDY.hardware, STUDY.workload, CONFIG, points)
    assert not isinstance(found, str)
    return found


def measured(ratio: float) -> Row:
    """A row of the lightest load at this measured / modelled."""
    (expected,) = modelled([LIGHT])
    return make_row(concurrency=LIGHT.concurrency, output_tokens_per_joule=ratio * expected.output_tokens_per_joule)


def bound(rows: list[Row], left: list[OperatingPoint] = LEFT, num_rows: int = MIN_ROWS) -> ScoreBound:
    found = score_bound(STUDY, CONFIG, rows, left, num_rows)
    assert found is not None
    return found


def test_until_enough_is_known_only_physics_counts() -> None:
    found = bound([measured(1.0)], num_rows=MIN_ROWS - 1)
    limits = [physical_limit(STUDY.model, STUDY.hardware, STUDY.workload, CONFIG, point) for point in LEFT]
    assert found == ScoreBound(value=max(each.output_tokens_per_joule or 0 for each in limits if each), by=PHYSICAL)


@pytest.mark.parametrize(("ratio", "counts_as"), [(0.5, 1.0), (1.0, 1.0), (1.25, 1.25)])
def test_then_the_model_does_with_its_error_raised_by_a_config_that_beats_it(ratio: float, counts_as: float) -> None:
    assert ERRORS is not None
    best = max(each.output_tokens_per_joule for each in modelled(LEFT))
    found = bound([measured(ratio)])
    assert found.by == SHIPPED.id
    assert found.value == pytest.approx(counts_as * best * (1 + ERRORS.j_per_token.p90))


def test_it_is_never_below_what_the_trial_scores_already() -> None:
    assert bound([measured(0.1), measured(0.1)], left=[LIGHT]).value > 0
    rows = [make_row(concurrency=256, output_tokens_per_joule=1e6)]
    assert bound(rows, num_rows=0).value == pytest.approx(1e6)


def test_rows_that_may_not_be_scored_say_nothing() -> None:
    assert bound([make_row(**INVALID)]) == bound([])


def test_there_is_none_where_nothing_is_left_or_known() -> None:
    assert score_bound(STUDY, CONFIG, [measured(1.0)], [], MIN_ROWS) is None
    assert score_bound(make_study(), CONFIG, [], LEFT, MIN_ROWS) is None
    unpublished = dataclasses.replace(STUDY, hardware=dataclasses.replace(STUDY.hardware, idle_power_w=None))
    assert score_bound(unpublished, CONFIG, [], LEFT, MIN_ROWS - 1) is None


def test_the_error_is_that_on_other_models_where_the_fit_had_none_of_this() -> None:
    stranger = dataclasses.replace(STUDY, model=dataclasses.replace(STUDY.model, name="stranger"))
    found, errors = score_bound(stranger, CONFIG, [], LEFT, MIN_ROWS), SHIPPED.error_of("stranger")
    assert found is not None
    assert errors is not None
    assert ERRORS is not None
    wider = (1 + errors.j_per_token.p90) / (1 + ERRORS.j_per_token.p90)
    assert found.value == pytest.approx(bound([]).value * wider)


def test_a_calibration_whose_error_is_unknown_bounds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = dataclasses.replace(SHIPPED, provenance=None)
    monkeypatch.setattr("pipeline.search.score_bound.calibration_of", lambda study: unknown)
    assert bound([measured(1.0)]).by == PHYSICAL


def test_it_held_for_the_recorded_sweeps_as_often_as_the_documents_say() -> None:
    """After each load of each config: the model's bound of the heavier ones against what they came to."""
    store, held = Store(Path(__file__).parents[2] / "results"), list[float]()
    for study_id in store.studies():
        if not study_id.startswith(("h100-", "h200-")):
            continue
        study = stored_study(store, study_id)
        for rows in grouped(usable(store.rows(study_id)), lambda row: row.config_hash).values():
            config = EngineConfig.from_axes(rows[0].engine, json.loads(rows[0].config_json))
            for load in sorted({row.load for row in rows})[:-1]:
                heavier = [row for row in rows if row.load > load]
                left = [point for point in study.workload.ladder if point.load in {row.load for row in heavier}]
                done = [row for row in rows if row.load <= load]
                found, physics = (score_bound(study, config, done, left, num_rows) for num_rows in (MIN_ROWS, 0))
                assert found is not None
                assert physics is not None
                came_to = max(row.output_tokens_per_joule or 0.0 for row in heavier)
                assert came_to < physics.value
                held.append(math.log(found.value / came_to))
    assert len(held) == 55
    assert sum(each > 0 for each in held) == 54
    assert min(held) > -0.02


def test_how_often_it_held_is_counted_of_the_trials_that_ran_to_their_end() -> None:
    trials = [
        make_trial(status=TrialStatus.OK, score=2.0, score_bound=3.0),
        make_trial(status=TrialStatus.OK, score=2.0, score_bound=1.9),
        make_trial(status=TrialStatus.OK, score=2.0, score_bound=None),
        make_trial(status=TrialStatus.PRUNED, score=2.0, score_bound=1.0),
    ]
    assert coverage(trials) == (1, 2)
