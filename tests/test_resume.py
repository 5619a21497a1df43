"""What may be added to a study, and what a killed run leaves behind."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.resume import adopt_orphans, check_same, stored_study, study_json
from pipeline.store import Store
from pipeline.vocabulary import TrialStatus
from tests.builders import MODELLED, StubRig, make_row, make_study, make_trial

STUDY = make_study(*MODELLED)


def rig_of(engine_version: str | None = None, first_gpu: str | None = None) -> StubRig:
    rig = StubRig(STUDY, lambda config, concurrency: {})
    rig.engine_version, rig.first_gpu = engine_version, first_gpu
    return rig


def store_with_trial(folder: Path, **columns: object) -> Store:
    store = Store(folder)
    store.append(make_trial(study_json=study_json(STUDY), **columns))
    return store


@pytest.mark.parametrize("stored", ["1.0", None], ids=["known", "no start succeeded"])
def test_the_same_study_may_go_on(tmp_path: Path, stored: str | None) -> None:
    store = store_with_trial(tmp_path, engine_version=stored)
    store.append(make_row(gpu_uuids=("GPU-1",)))
    check_same(STUDY, rig_of("1.0", "GPU-1"), store)


def test_how_often_something_is_repeated_changes_no_row(tmp_path: Path) -> None:
    more = dataclasses.replace(STUDY, plan=dataclasses.replace(STUDY.plan, windows=4, starts=9))
    check_same(more, rig_of(), store_with_trial(tmp_path))


@pytest.mark.parametrize(
    "value",
    [{"window_s": 99.0}, {"block_s": 0.3}, {"hang_s": 1.0}, {"max_rel_ci95": 0.5}, {"check_s": 0.1}],
    ids=lambda value: next(iter(value)),
)
def test_another_way_to_measure_is_another_study(tmp_path: Path, value: dict[str, Any]) -> None:
    (name,) = value
    other = dataclasses.replace(STUDY, plan=dataclasses.replace(STUDY.plan, **value))
    with pytest.raises(ConfigError, match=rf"plan\.{name}={value[name]}: study test has rows of .*STUDY="):
        check_same(other, rig_of(), store_with_trial(tmp_path))


def test_other_weights_are_another_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights_seed=1: study test has rows of weights_seed=0"):
        check_same(dataclasses.replace(STUDY, weights_seed=1), rig_of(), store_with_trial(tmp_path))


def test_the_stored_study_is_that_of_the_last_trial(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="study test: no trial is complete yet"):
        stored_study(Store(tmp_path), "test")
    later = dataclasses.replace(STUDY, weights_seed=7)
    store = store_with_trial(tmp_path)
    store.append(make_trial(number=1, study_json=study_json(later)))
    assert stored_study(store, "test") == later


def test_rows_without_a_trial_get_one_that_says_what_happened(tmp_path: Path) -> None:
    store = store_with_trial(tmp_path, trial_id="whole")
    store.append(make_row(trial_id="whole"))
    store.append(make_row(trial_id="lost", window_s=2.0, started_utc="2026-01-02T00:00:00.000+00:00"))
    store.append(make_row(trial_id="lost", window_s=3.0, started_utc="2026-01-03T00:00:00.000+00:00"))
    store.append(make_row(trial_id="also", window_s=None, started_utc="2026-01-04T00:00:00.000+00:00"))
    adopt_orphans(STUDY, store)
    _, lost, also = store.trials("test")
    assert (lost.trial_id, lost.number, lost.num_rows, lost.total_s) == ("lost", 1, 2, 5.0)
    assert (lost.status, lost.score, lost.reasons) == (TrialStatus.INTERRUPTED, None, ("the sweep was killed",))
    assert lost.started_utc == "2026-01-02T00:00:00.000+00:00"
    assert (also.trial_id, also.number, also.num_rows) == ("also", 2, 1)
    adopt_orphans(STUDY, store)
    assert len(store.trials("test")) == 3
