import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine_config import EngineConfig, Value, canonical_json
from pipeline.errors import ConfigError, StoreError
from pipeline.optuna_journal import CONSTRAINT, write_journal
from pipeline.record import Row, Trial
from pipeline.resume import stored_study
from pipeline.rig.modelled import ModelledRig
from pipeline.score import score
from pipeline.store import Store
from pipeline.study import Study
from pipeline.survey import survey
from pipeline.vocabulary import Evidence, TrialStatus
from tests.builders import INVALID, MODELLED, Recorder, make_row, make_slo, make_study, make_trial, with_axes

RESULTS = Path(__file__).parents[1] / "results"


def read(path: Path) -> optuna.Study:
    """The only study of a journal, as optuna reads it."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def exported(tmp_path: Path, study: Study, trials: list[Trial], rows: list[Row]) -> optuna.Study:
    write_journal(study, trials, rows, tmp_path / "journal.log")
    return read(tmp_path / "journal.log")


def a_study(**axes: Any) -> Study:
    return dataclasses.replace(with_axes(make_study(*MODELLED), **axes), slo=make_slo(tpot_p99_s=0.02))


def ran(number: int, values: dict[str, Value], *loads: dict[str, Any], **columns: Any) -> tuple[Trial, list[Row]]:
    """A trial of a config, and a row for each load."""
    config = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", **values})
    shared: dict[str, Any] = {"trial_id": f"t{number}", "config_hash": config.config_hash}
    shared["config_json"] = canonical_json(config.requested())
    return make_trial(number=number, **{**shared, **columns}), [make_row(**{**shared, **load}) for load in loads]


def test_a_recorded_study_comes_back_as_it_is_stored(tmp_path: Path) -> None:
    store, name = Store(RESULTS), "h100-llama-3.1-8b"
    trials, rows = store.trials(name), store.rows(name)
    found = exported(tmp_path, stored_study(store, name), trials, rows)
    assert (found.study_name, found.direction, found.metric_names) == (
        name, optuna.study.StudyDirection.MAXIMIZE, ["output_tokens_per_joule"],
    )  # fmt: skip
    attrs = found.user_attrs
    assert (attrs["evidence"], attrs["boundary"], attrs["weights"]) == (["measured"], ["gpu"], "random")
    assert (attrs["model"], attrs["hardware"], attrs["slo"]) == ("llama-3.1-8b", "h100", "none")
    assert len(found.trials) == len(trials) == 5
    for theirs, ours in zip(found.trials, trials, strict=True):
        assert theirs.state is TrialState.COMPLETE
        own = [row for row in rows if row.config_hash == ours.config_hash]
        assert theirs.user_attrs["score"] == pytest.approx(
            score(own, make_slo())
        )  # the stored one: by an earlier formula
        for key in ("trial_id", "config_hash", "status", "proposed_by", "config_json", "total_s", "evidence"):
            assert theirs.user_attrs[key] == getattr(ours, key)
        assert theirs.datetime_start is not None
        assert theirs.duration == pytest.approx(timedelta(seconds=ours.total_s), abs=timedelta(milliseconds=1))
        assert theirs.datetime_start.astimezone(UTC) == datetime.fromisoformat(ours.started_utc)
        config = json.loads(ours.config_json)
        assert {key: value for key, value in theirs.params.items() if value is not None} == {
            key: value for key, value in config.items() if key in theirs.params
        }
    best = found.best_trial
    assert best.value == pytest.approx(max(trial.score or 0 for trial in trials))
    row = next(r for r in rows if r.trial_id == best.user_attrs["trial_id"] and r.power_w == best.user_attrs["power_w"])
    assert best.user_attrs["output_tokens_per_s"] == row.output_tokens_per_s
    assert best.params["engine.knobs.enforce_eager"] is False
    failed = found.trials[4]  # no window of it is valid
    assert failed.user_attrs["score"] is None
    assert failed.user_attrs["power_w"] is None
    assert failed.constraints[CONSTRAINT] > 0
    assert failed.value == min(trial.score for trial in trials if trial.score is not None)


def test_a_modelled_study_comes_back_whole(tmp_path: Path) -> None:
    study = a_study(precision__weights=("fp4", "fp8"), parallelism__tp=(1, 2, 4), batching__max_batch_size=(64, 128))
    study = dataclasses.replace(study, axes={**study.axes, "parallelism.attention_dp": (False, True)})
    store = Store(tmp_path)
    survey(study, ModelledRig(study, TrtllmEngine()), store, Recorder())
    trials, rows = store.trials(study.id), store.rows(study.id)
    found = exported(tmp_path, study, trials, rows)
    assert found.user_attrs["evidence"] == ["modelled"]
    assert len(found.trials) == len(trials) > 10
    for theirs, ours in zip(found.trials, trials, strict=True):
        own = [row for row in rows if row.trial_id == ours.trial_id]
        assert theirs.value == score(own, study.slo) == ours.score
        assert all(value <= 0 for value in theirs.constraints.values())
        tp = theirs.params["parallelism.tp"]
        assert (tp == 1) == ("parallelism.attention_dp" not in theirs.params)  # no effect on one device
        assert type(theirs.params.get("parallelism.attention_dp", False)) is bool


def test_only_axes_that_tell_trials_apart_are_parameters(tmp_path: Path) -> None:
    study = a_study(parallelism__tp=(1, 2), parallelism__pp=(1,), batching__max_batch_size=(64, 128, 256))
    outside: dict[str, Value] = {"parallelism.tp": 8, "engine.knobs.print_iter_log": True}
    baseline, first = ran(0, outside, {}), ran(1, {"parallelism.tp": 1, "batching.max_batch_size": 64}, {})
    found = exported(tmp_path, study, [baseline[0], first[0]], baseline[1] + first[1])
    assert [trial.params for trial in found.trials] == [
        {"parallelism.tp": 8, "batching.max_batch_size": None, "engine.knobs.print_iter_log": True},
        {"parallelism.tp": 1, "batching.max_batch_size": 64, "engine.knobs.print_iter_log": None},
    ]
    assert found.trials[0].distributions["batching.max_batch_size"] == (
        optuna.distributions.CategoricalDistribution([64, 128, 256, None])
    )


def test_values_that_optuna_would_confuse_or_not_take_are_text(tmp_path: Path) -> None:
    study = a_study(engine__knobs__a=(1, True), engine__knobs__b=((1, 2), None))
    one, two = ran(0, {"engine.knobs.a": 1, "engine.knobs.b": (1, 2)}, {}), ran(1, {"engine.knobs.a": True}, {})
    found = exported(tmp_path, study, [one[0], two[0]], one[1] + two[1])
    assert [(t.params["engine.knobs.a"], t.params["engine.knobs.b"]) for t in found.trials] == [
        ("1", "[1,2]"), ("true", "null"),
    ]  # fmt: skip


def test_every_way_to_end_has_its_state_and_constraint(tmp_path: Path) -> None:
    study = a_study(parallelism__tp=(1, 2, 4, 8))
    runs = [
        ran(0, {"parallelism.tp": 1}, {"output_tokens_per_joule": 3.0}),
        ran(1, {"parallelism.tp": 2}, {"output_tokens_per_joule": 9.0, "tpot_p99_s": 0.04}),
        ran(2, {"parallelism.tp": 4}, status=TrialStatus.OUT_OF_MEMORY, reasons=("CUDA out of memory",)),
        ran(3, {"parallelism.tp": 8}, {"concurrency": 1, **INVALID}),
        ran(4, {"parallelism.tp": 8}, {"output_tokens_per_joule": 1.0}, status=TrialStatus.INTERRUPTED),
        ran(5, {"parallelism.tp": 8}, {"output_tokens_per_joule": 2.0, "concurrency": 4}),
    ]
    found = exported(tmp_path, study, [trial for trial, _ in runs], [row for _, rows in runs for row in rows])
    complete, fail = TrialState.COMPLETE, TrialState.FAIL
    assert [t.state for t in found.trials] == [complete, complete, complete, complete, fail, complete]
    values = [t.value for t in found.trials]
    assert values == [pytest.approx(3.0), 2.0, 2.0, 2.0, None, 2.0]  # the worst score stands for none
    assert [t.user_attrs["score"] for t in found.trials] == [pytest.approx(3.0), None, None, None, None, 2.0]
    broken = [t.constraints.get(CONSTRAINT) for t in found.trials]
    assert [b is not None and b > 0 for b in broken] == [False, True, True, True, False, False]
    assert broken[4] is None
    assert [t.system_attrs.get("constraints") for t in found.trials] == [b and [b] for b in broken]  # optuna-dashboard
    assert broken[1] == pytest.approx(0.693, abs=1e-3)
    assert found.trials[2].user_attrs["reasons"] == ["CUDA out of memory"]
    assert found.best_trial.number == 0


def test_a_study_of_failures_and_one_without_rows_are_exported_too(tmp_path: Path) -> None:
    trial, _ = ran(0, {}, status=TrialStatus.START_FAILED)
    found = exported(tmp_path, a_study(), [trial], [])
    assert [(t.value, t.user_attrs["score"], t.constraints[CONSTRAINT]) for t in found.trials] == [(0.0, None, 1.0)]
    assert found.user_attrs["evidence"] == []


def test_all_kinds_of_evidence_are_named(tmp_path: Path) -> None:
    one, two = ran(0, {"parallelism.tp": 1}, {}), ran(1, {"parallelism.tp": 2}, {"evidence": Evidence.ESTIMATED})
    found = exported(tmp_path, a_study(), [one[0], two[0]], one[1] + two[1])
    assert found.user_attrs["evidence"] == ["estimated", "measured"]


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"--out=.*journal.log: is there already"):
        write_journal(a_study(), [ran(0, {})[0]], [], path)
    assert path.read_text() == "mine"


def test_a_file_that_cannot_be_written_is_named_and_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"--out=.*nowhere/journal.log: cannot be written \(No such file"):
        write_journal(a_study(), [ran(0, {})[0]], [], tmp_path / "nowhere" / "journal.log")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        write_journal(a_study(), [ran(0, {})[0]], [], tmp_path / "journal.log")
    assert list(tmp_path.iterdir()) == []
