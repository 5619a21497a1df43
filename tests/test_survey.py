"""Every config of a modelled study at once."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.errors import ConfigError
from pipeline.rig.modelled import ModelledRig
from pipeline.roofline.predict import Prediction, predict
from pipeline.space import build_space, engine_default
from pipeline.store import Store
from pipeline.study import Study
from pipeline.survey import survey
from pipeline.sweep import sweep
from pipeline.vocabulary import Evidence, TrialStatus
from tests.builders import MODELLED, Recorder, make_study, with_axes, with_search

STUDY = with_axes(
    make_study(*MODELLED), precision__weights="fp4", precision__kv_cache=("auto", "fp8"), parallelism__tp=(1, 2, 4),
    batching__max_batch_size=(64, 256),
)  # fmt: skip


def surveyed(folder: Path, study: Study = STUDY) -> Store:
    store = Store(folder)
    survey(study, ModelledRig(study, TrtllmEngine()), store, Recorder())
    return store


def test_every_config_and_the_baseline_have_a_trial_and_a_row_per_load(tmp_path: Path) -> None:
    store, space = surveyed(tmp_path), build_space(STUDY)
    wanted = {config.config_hash for config in (*space.configs, engine_default(space))}
    trials, rows = store.trials(STUDY.id), store.rows(STUDY.id)
    assert {trial.config_hash for trial in trials} == wanted
    assert [trial.number for trial in trials] == list(range(len(wanted)))
    assert [trial.proposed_by for trial in trials[:2]] == ["baseline", "survey"]
    assert len(rows) == len(wanted) * len(STUDY.workload.ladder)
    assert {row.evidence for row in rows} == {Evidence.MODELLED}


def test_rows_are_as_a_search_would_have_them(tmp_path: Path) -> None:
    one = surveyed(tmp_path / "survey")
    study = with_search(STUDY, budget_trials=20, sampler="grid")
    other = Store(tmp_path / "sweep")
    sweep(study, ModelledRig(study, TrtllmEngine()), other, Recorder())

    def values(store: Store) -> set[tuple[object, ...]]:
        return {
            (row.config_hash, row.load, row.output_tokens_per_joule, row.ttft_p99_s) for row in store.rows(STUDY.id)
        }

    assert values(one) == values(other)


def test_all_is_in_two_files_and_a_second_survey_adds_nothing(tmp_path: Path) -> None:
    store = surveyed(tmp_path)
    files = sorted(path.name for path in store.study_dir(STUDY.id).glob("*.parquet"))
    assert [name.split("-")[0] for name in files] == ["row", "trial"]
    surveyed(tmp_path)
    assert sorted(path.name for path in store.study_dir(STUDY.id).glob("*.parquet")) == files


def test_a_wider_space_adds_what_is_new(tmp_path: Path) -> None:
    surveyed(tmp_path, with_axes(STUDY, precision__weights="fp4", parallelism__tp=(1, 2)))
    store = surveyed(tmp_path)
    hashes = [trial.config_hash for trial in store.trials(STUDY.id)]
    assert len(hashes) == len(set(hashes))
    assert {config.config_hash for config in build_space(STUDY).configs} <= set(hashes)


def test_a_baseline_that_does_not_fit_is_a_trial_without_rows(tmp_path: Path) -> None:
    small = dataclasses.replace(STUDY, hardware=dataclasses.replace(STUDY.hardware, memory_bytes=60_000_000_000))
    baseline = next(config for config in build_space(STUDY).configs if config.parallelism.tp == 1)
    store = surveyed(tmp_path, dataclasses.replace(small, baseline=baseline))
    assert store.trials(STUDY.id)[0].status is TrialStatus.OUT_OF_MEMORY


def test_a_survey_of_other_constants_is_another_study(tmp_path: Path) -> None:
    surveyed(tmp_path)
    with pytest.raises(ConfigError, match=r"hardware\.power_cap_w=500"):
        surveyed(tmp_path, dataclasses.replace(STUDY, hardware=dataclasses.replace(STUDY.hardware, power_cap_w=500.0)))


def test_an_open_loop_is_surveyed_too(tmp_path: Path) -> None:
    load = dataclasses.replace(STUDY.workload, arrival="poisson", concurrency=(), request_rate_per_s=(0.5, 2.0, 1e5))
    store = surveyed(tmp_path, dataclasses.replace(STUDY, workload=load))
    rows = store.rows(STUDY.id)
    assert {row.request_rate_per_s for row in rows} == {0.5, 2.0, 1e5}
    assert all(bool(row.reasons) == (row.request_rate_per_s == 1e5) for row in rows)
    assert all((row.ttft_p99_s is None) == bool(row.reasons) for row in rows)
    row = rows[0]
    found = predict(STUDY.model, STUDY.hardware, load, engine_default(build_space(STUDY)), load.ladder[0])
    assert isinstance(found, Prediction)
    assert row.output_tokens_per_joule == found.output_tokens_per_joule
