import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.choose.conditions import Pool, comparable
from pipeline.errors import ConfigError
from pipeline.resume import study_json
from pipeline.store import Store
from tests.builders import INVALID, make_row, make_trial
from tests.choose.pools import STUDY

RESULTS = Path(__file__).parents[2] / "results"


def stored(folder: Path, *columns: dict[str, Any], **of_study: Any) -> Store:
    """A study for each of these rows."""
    store = Store(folder)
    for number, own in enumerate(columns):
        trial_id, study_id = f"trial{number}", f"study{number}"
        measured = {"power_w": 1.0, "output_tokens_per_s": 1.0, "gpu_uuids": ("GPU-a",)}
        store.append(make_row(trial_id=trial_id, study_id=study_id, **(measured | own)))
        study = dataclasses.replace(STUDY, **of_study) if number == 1 else STUDY
        store.append(make_trial(trial_id=trial_id, study_id=study_id, study_json=study_json(study)))
    return store


def pool(store: Store, **where: str) -> Pool:
    return comparable(store, store.studies(), where)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("evidence", "estimated"), ("boundary", "cpu"), ("weights", "random"), ("weights_init", "seed 1"),
        ("model", "another"), ("hardware", "h200"), ("gpu_name", "H200"), ("workload", "rag"), ("osl_tokens", 1),
        ("driver_version", "1"), ("engine_version", "2"), ("origin", "imported"), ("gpu_uuids", ("GPU-b",)),
        ("power_limit_w", 500.0),
    ],
)  # fmt: skip
def test_rows_that_differ_in_a_condition_are_not_ranked_together(tmp_path: Path, column: str, value: Any) -> None:
    store = stored(tmp_path, {}, {column: value})
    with pytest.raises(ConfigError, match=rf"rows differ in {column}.*study0.*study1.*--where {column}"):
        pool(store)
    assert pool(stored(tmp_path / "same", {column: value}, {column: value})).studies == ("study0", "study1")


def test_a_workload_that_differs_in_what_no_column_says_is_another(tmp_path: Path) -> None:
    store = stored(tmp_path, {}, {}, workload=dataclasses.replace(STUDY.workload, seed=7))
    with pytest.raises(ConfigError, match=r"rows differ in workload\.seed.*7 \(study study1\)"):
        pool(store)


@pytest.mark.parametrize(("key", "value"), [("power_cap_w", 500.0), ("sm_clock_share", 0.8), ("declared_idle_w", 5.0)])
def test_watts_that_were_declared_or_modelled_otherwise_are_others(tmp_path: Path, key: str, value: float) -> None:
    changed: dict[str, Any] = {key: value}
    store = stored(tmp_path, {}, {}, hardware=dataclasses.replace(STUDY.hardware, **changed))
    with pytest.raises(ConfigError, match=rf"rows differ in hardware\.{key}.*{value} \(study study1\)"):
        pool(store)


def test_plans_engines_and_nested_sets_of_cards_may_differ(tmp_path: Path) -> None:
    both = ("GPU-a", "GPU-b")
    store = stored(
        tmp_path, {"engine_version": "1"}, {"engine": "vllm", "engine_version": "2", "plan": "publish"},
        {"engine_version": "1", "gpu_uuids": both, "num_gpus": 2},
    )  # fmt: skip
    found = pool(store)
    assert (len(found.rows), found.gpu_uuids) == (3, both)
    assert {key: value for key, value in found.conditions.items() if key.startswith("engine_version")} == {
        "engine_version.trtllm": "1",
        "engine_version.vllm": "2",
    }


def test_where_keeps_the_rows_of_one_condition(tmp_path: Path) -> None:
    store = stored(tmp_path, {"weights": "random"}, {"gpu_uuids": ("GPU-b",), "plan": "publish"})
    assert pool(store, weights="random").studies == ("study0",)
    assert pool(store, gpu_uuids="GPU-b").studies == ("study1",)
    assert pool(store, plan="publish").studies == ("study1",)
    with pytest.raises(
        ConfigError, match=r"weigths=random: unknown condition \(did you mean 'weights'\?\); allowed: b"
    ):
        pool(store, weigths="random")
    with pytest.raises(ConfigError, match="weights=checkpint: no row has it; there are: "):
        pool(store, weights="checkpint")


def test_invalid_rows_never_count_and_are_told_where_there_are_no_others(tmp_path: Path) -> None:
    store = stored(tmp_path, {}, INVALID, {"output_tokens_per_s": None})
    found = pool(store)
    assert (len(found.rows), len(found.invalid)) == (1, 2)
    with pytest.raises(
        ConfigError, match=r"no valid row in study study1: 1 invalid: no_tokens \(1\); `tpw show study1`"
    ):
        comparable(store, ["study1"], {})


def test_a_row_of_a_start_that_still_runs_is_left_out(tmp_path: Path) -> None:
    store = stored(tmp_path, {})
    store.append(make_row(trial_id="running", study_id="study0", model="another"))
    assert len(pool(store).rows) == 1


def test_recorded_rows_of_two_cards_are_not_mixed() -> None:
    store = Store(RESULTS)
    of = ["h100-repeat-llama-3.1-8b-3a4bf3b5", "h100-repeat-llama-3.1-8b-dcc91ecf"]
    with pytest.raises(ConfigError, match=r"rows differ in gpu_uuids.*GPU-3a4bf3b5.*GPU-dcc91ecf"):
        comparable(store, of, {})
    assert comparable(store, of, {"gpu_uuids": "GPU-dcc91ecf"}).studies == (of[1],)
