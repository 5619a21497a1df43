"""What is read, what is left out and why, and what joins with what."""

import dataclasses
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.store import Store
from pipeline.track import starts as module
from pipeline.track.starts import read_history
from pipeline.track.track import Asked, history_of, track
from tests.builders import make_slo
from tests.track.histories import STUDY, Builder, config

RECORDED = Store(Path(__file__).parents[2] / "results")


def test_a_start_of_a_case_is_the_mean_of_its_windows() -> None:
    study = "h100-repeat-llama-3.1-8b-dcc91ecf"
    history = read_history(RECORDED, [study])
    assert len(history.starts) == 4
    assert all(len(start.rows) == 2 for start in history.starts)
    assert len({start.key for start in history.starts}) == 1
    assert {start.case for start in history.starts} == {row.case_id for row in RECORDED.rows(study)}
    assert {str(start.release) for start in history.starts} == {"vllm 0.24.0, driver 580.159.04"}


def test_a_case_taken_anew_is_the_stored_one_where_nothing_is_different() -> None:
    """Told of weights, rows of random weights get another case; the model's name alone changes nothing."""
    for study in ("h100-llama-3.1-8b", "h200-qwen3-32b"):
        stored = {start.row.row_id: start.case for start in read_history(RECORDED, [study]).starts}
        other = {start.row.row_id: start.case for start in read_history(RECORDED, [study], ["weights"]).starts}
        assert stored.keys() == other.keys()
        assert not set(stored.values()) & set(other.values())
        assert len(set(stored.values())) == len(set(other.values()))


def test_rows_under_a_former_name_of_the_model_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = dataclasses.replace(STUDY, model=dataclasses.replace(STUDY.model, name="llama-31-8b"))
    old, new = Builder(study=former).start("1.0", {8: 1.0}), Builder().start("1.1", {8: 1.1})
    built = Builder(rows=old.rows + new.rows, trials=old.trials + new.trials)
    store = built.store(tmp_path)
    assert old.rows[0].case_id != new.rows[0].case_id
    with pytest.raises(ConfigError, match="nothing in common"):
        track(history_of(store, [STUDY.id], Asked()), make_slo(), Asked())
    monkeypatch.setattr(module, "present_name", lambda name: {"llama-31-8b": STUDY.model.name}.get(name, name))
    (group,) = track(history_of(store, [STUDY.id], Asked()), make_slo(), Asked()).groups
    assert [case.case_id for case in group.cases] == [new.rows[0].case_id]


def test_what_is_no_evidence_is_left_out_with_a_reason_and_the_rest_is_kept(tmp_path: Path) -> None:
    future = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    built = Builder().start("1.0", {8: 1.0}).start("1.1", {8: 1.1})
    built.start("1.1", {8: 1.1}, row_id="future", started_utc=future)
    built.start("1.1", {8: 1.1}, row_id="early", started_utc="2020-01-01T00:00:00+00:00")
    built.start("1.1", {8: 1.1}, row_id="no-time", started_utc="yesterday")
    built.start("1.1", {8: 1.1}, row_id="twice").start("1.1", {8: 1.3}, row_id="twice")
    built.start("1.1", {8: 1.1}, row_id="zero", output_tokens_per_joule=0.0)
    built.start("1.1", {8: 1.1}, row_id="killed")
    built.trials.pop()
    store = built.store(tmp_path)
    found = track(history_of(store, [STUDY.id], Asked()), make_slo(), Asked())
    parts = {
        "future": "has not come yet", "early": "before its engine's start", "no-time": "is no time",
        "twice": "2 different rows have this id", "zero": "=0 is not above 0", "killed": "it still runs, or was killed",
    }  # fmt: skip
    assert found.rejected.keys() == parts.keys()
    assert [part for row_id, part in parts.items() if part not in found.rejected[row_id]] == []
    assert found.num_rows == 2


def test_two_machines_results_merge_by_copying_and_copies_count_once(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    Builder().start("1.0", {8: 1.0}).start("1.1", {8: 1.1}).store(one)
    second = Builder().start("1.1", {8: 1.2}, card="GPU-b")
    second.store(other)
    shutil.copytree(other, one, dirs_exist_ok=True)
    merged = history_of(Store(one), [STUDY.id], Asked())
    assert (len(merged.starts), merged.num_copies, merged.rejected) == (3, 0, {})
    assert len(Store(one).trials(STUDY.id)) == 3
    shutil.copytree(one / "trials" / f"study={STUDY.id}", one / "trials" / "study=copy")
    again = history_of(Store(one), Store(one).studies(), Asked())
    assert (len(again.starts), again.num_copies, again.rejected) == (3, 3, {})


def test_only_releases_tell_old_from_new(tmp_path: Path) -> None:
    """Versions, drivers and images are releases: an old one that is measured again later stays where it belongs."""
    built = Builder().start("1.9", {8: 1.0}).start("1.10", {8: 1.0}, image="a@sha256:1")
    built.start("1.10", {8: 1.0}, image="a@sha256:2").start("1.10", {8: 1.0}, image="a@sha256:2", driver="590")
    built.start("1.10rc1", {8: 1.0}).start("1.9", {8: 1.0})
    (group,) = track(history_of(built.store(tmp_path), [STUDY.id], Asked()), make_slo(), Asked()).groups
    assert (group.before, group.after) == ("vllm 1.9, driver 580", "vllm 1.10, driver 590, a@sha256:2")
    assert group.series[0].num_releases == 5


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        (
            Asked(before={"engine_version": "2.0"}),
            ["--before engine_version=2.0: unknown version; there are: 1.0, 1.1"],
        ),
        (Asked(before={"driver_version": "580"}, after={"engine_version": "1.1"}), ["are of both sides"]),
        (Asked(before={"plan": "quick"}), ["plan: named for one side only"]),
        (Asked(where={"plan": "quick"}), ["no row has it; there are: standard"]),
        (Asked(where={"plam": "quick"}), ["unknown condition (did you mean 'plan'?)"]),
        (Asked(where={"engine_version": "1.1"}), ["one release only (vllm 1.1, driver 580)"]),
    ],
)
def test_bad_input_names_what_is_wrong(tmp_path: Path, asked: Asked, parts: list[str]) -> None:
    store = Builder().start("1.0", {8: 1.0}).start("1.1", {8: 1.1}).store(tmp_path)
    with pytest.raises(ConfigError) as refused:
        track(history_of(store, [STUDY.id], asked), make_slo(), asked)
    assert [part for part in parts if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("column", "value"),
    [("plan", "quick"), ("boundary", "cpu"), ("weights_init", "another"), ("gpu_name", "H100 PCIe"),
     ("evidence", "simulated"), ("origin", "imported"), ("power_limit_w", 500.0)],
)  # fmt: skip
def test_unlike_pairs_are_refused(tmp_path: Path, column: str, value: Any) -> None:
    store = Builder().start("1.0", {8: 1.0}).start("1.1", {8: 1.1}, **{column: value}).store(tmp_path)
    name = "power_limit_w_per_gpu" if column == "power_limit_w" else column
    with pytest.raises(ConfigError, match=rf"nothing in common: .* they differ in {name}: "):
        track(history_of(store, [STUDY.id], Asked()), make_slo(), Asked())


def test_what_is_unlike_beside_others_is_listed(tmp_path: Path) -> None:
    built = Builder().start("1.0", {8: 1.0}).start("1.1", {8: 1.1})
    built.start("1.0", {8: 1.0}, config(128)).start("1.1", {8: 1.0}, config(128), plan="quick")
    found = track(history_of(built.store(tmp_path), [STUDY.id], Asked()), make_slo(), Asked())
    (unlike,) = found.unlike
    assert (unlike.label, unlike.differs) == ("the only config", {"plan": ("standard", "quick")})
    assert found.num_single == 1
