"""One config over and over: as many good starts as the plan wants, resumed, and nothing that cannot be compared."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.repeat import measure_once, on_gpu, only_config, repeat
from pipeline.rig.protocol import TrialError
from pipeline.store import Store
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from tests.builders import MODELLED, Recorder, StubRig, make_study, with_axes


def study_of(starts: int = 3, **axes: Any) -> Study:
    """One config at two loads, to be started so often."""
    study = with_axes(make_study(*MODELLED), precision__weights="fp4", **axes)
    return dataclasses.replace(
        study,
        workload=dataclasses.replace(study.workload, concurrency=(1, 4)),
        plan=dataclasses.replace(study.plan, starts=starts),
    )


class Starts:
    """Answers of a StubRig: the starts of these numbers fail."""

    def __init__(self, *failing: int) -> None:
        self._failing, self._number = failing, -1

    def __call__(self, config: EngineConfig, concurrency: int) -> dict[str, Any]:
        self._number += concurrency == 0
        if self._number in self._failing:
            raise TrialError(TrialStatus.START_FAILED, "no luck")
        return {"output_tokens_per_joule": 1.0}


def statuses(store: Store) -> list[TrialStatus]:
    return [trial.status for trial in store.trials("test")]


def test_every_start_is_a_trial_of_the_same_config_with_all_its_loads(tmp_path: Path) -> None:
    study, store, progress = study_of(3), Store(tmp_path), Recorder()
    rig = StubRig(study, Starts())
    repeat(study, rig, store, progress)
    trials = store.trials("test")
    assert rig.started == [only_config(study)] * 3
    assert rig.num_stopped == 3
    assert [(trial.number, trial.status, trial.num_rows, trial.proposed_by) for trial in trials] == [
        (number, TrialStatus.OK, 2, "repeat") for number in range(3)
    ]
    assert {row.trial_id for row in store.rows("test")} == {trial.trial_id for trial in trials}
    assert [(number, num_done) for number, num_done, _ in progress.began] == [(0, 0), (1, 1), (2, 2)]
    assert progress.ended == trials


def test_it_resumes_until_there_are_enough_good_starts_and_then_does_nothing(tmp_path: Path) -> None:
    study, store = study_of(3), Store(tmp_path)
    repeat(study, StubRig(study, Starts(0)), store, Recorder())
    assert statuses(store) == [TrialStatus.START_FAILED, TrialStatus.OK, TrialStatus.OK]
    progress = Recorder()
    repeat(study, StubRig(study, Starts()), store, progress)
    assert statuses(store)[3:] == [TrialStatus.OK]
    assert [(number, num_done) for number, num_done, _ in progress.began] == [(3, 2)]
    repeat(study, StubRig(study, Starts()), store, Recorder())
    assert len(store.trials("test")) == 4


def test_more_starts_are_added_to_a_study_that_had_fewer(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for starts in (1, 3):
        repeat(study_of(starts), StubRig(study_of(starts), Starts()), store, Recorder())
    assert statuses(store) == [TrialStatus.OK] * 3


def test_an_engine_that_never_starts_is_not_tried_for_ever(tmp_path: Path) -> None:
    study, store = study_of(2), Store(tmp_path)
    repeat(study, StubRig(study, Starts(0, 1, 2, 3)), store, Recorder())
    assert statuses(store) == [TrialStatus.START_FAILED] * 2
    assert store.trials("test")[0].reasons == ("no luck",)


def test_measuring_once_adds_a_start_whatever_is_there(tmp_path: Path) -> None:
    study, store = study_of(1), Store(tmp_path)
    for _ in range(2):
        measure_once(study, StubRig(study, Starts()), store, Recorder())
    assert statuses(store) == [TrialStatus.OK] * 2


def test_ctrl_c_keeps_what_is_measured_and_the_start_does_not_count(tmp_path: Path) -> None:
    study, store, progress = study_of(2), Store(tmp_path), Recorder()
    progress.interrupt_at_row = 3
    with pytest.raises(KeyboardInterrupt):
        repeat(study, StubRig(study, Starts()), store, progress)
    assert statuses(store) == [TrialStatus.OK, TrialStatus.INTERRUPTED]
    assert len(store.rows("test")) == 3
    repeat(study, StubRig(study, Starts()), store, Recorder())
    assert statuses(store) == [TrialStatus.OK, TrialStatus.INTERRUPTED, TrialStatus.OK]


def test_a_kill_leaves_rows_that_are_adopted(tmp_path: Path) -> None:
    study, store = study_of(2), Store(tmp_path)
    repeat(study, StubRig(study, Starts()), store, Recorder())
    lost = store.trials("test")[1]
    (store.study_dir("test") / f"trial-{lost.trial_id}.parquet").unlink()
    repeat(study, StubRig(study, Starts()), store, Recorder())
    assert statuses(store) == [TrialStatus.OK, TrialStatus.INTERRUPTED, TrialStatus.OK]
    assert store.trials("test")[1].trial_id == lost.trial_id


def test_what_cannot_be_repeated_is_refused_before_anything_starts(tmp_path: Path) -> None:
    study, store = study_of(2), Store(tmp_path / "results")
    rig = StubRig(study, Starts())
    several = study_of(2, parallelism__tp=(1, 2))
    with pytest.raises(ConfigError, match=r"parallelism\.tp=\[1,2\]: one configuration is measured; give one value"):
        repeat(several, rig, store, Recorder())
    rig.refused = frozenset({only_config(study).config_hash})
    with pytest.raises(ConfigError, match="the engine refuses this one"):
        repeat(study, rig, store, Recorder())
    assert not (tmp_path / "results").exists()
    rig.refused = frozenset()
    with store.lock("test"), pytest.raises(StoreError, match="is being run by process"):
        repeat(study, rig, store, Recorder())
    assert rig.started == []


def test_the_study_of_a_gpu_bears_its_name() -> None:
    study = make_study()
    assert on_gpu(study, None) is study
    named = on_gpu(study, "GPU-3A4BF3B5-1111-2222")
    assert named.id == f"{study.id}-gpu-3a4bf3b5"
    assert on_gpu(study, "GPU-3a4bf3b5-9999").id == named.id
    assert dataclasses.replace(named, id=study.id) == study
