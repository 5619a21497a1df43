import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.record import Row, Trial
from pipeline.rig.modelled import ModelledRig
from pipeline.rig.protocol import TrialError
from pipeline.rules import why_infeasible
from pipeline.score import score
from pipeline.search.finalists import BY
from pipeline.space import build_space
from pipeline.store import Store
from pipeline.study import Study
from pipeline.sweep import sweep
from pipeline.vocabulary import Evidence, RowStatus, TrialStatus
from tests.builders import MODELLED, Recorder, StubRig, make_study, with_axes, with_search

WHOLE_STUDY = with_search(make_study(*MODELLED), budget_trials=6)
MODELLED_STUDY = with_axes(
    WHOLE_STUDY, precision__weights="fp4", precision__kv_cache=("auto", "fp8"), parallelism__tp=(1, 2, 4),
    batching__max_batch_size=(64, 256),
)  # fmt: skip
NUM_LOADS = len(MODELLED_STUDY.workload.concurrency)


def modelled(folder: Path, study: Study = MODELLED_STUDY, progress: Recorder | None = None) -> Store:
    """Sweep with the modelled rig into a folder."""
    store = Store(folder)
    sweep(study, ModelledRig(study, TrtllmEngine()), store, progress or Recorder())
    return store


def small_study(budget: int = 5) -> Study:
    """Eight configs at two loads, taken in a fixed order."""
    study = with_axes(
        make_study(*MODELLED), precision__weights="fp4", precision__kv_cache=("auto", "fp8"), parallelism__tp=(1, 2),
        batching__max_batch_size=(64, 128),
    )  # fmt: skip
    study = dataclasses.replace(study, workload=dataclasses.replace(study.workload, concurrency=(1, 4)))
    return with_search(study, sampler="grid", budget_trials=budget)


def good(_config: EngineConfig, concurrency: int) -> dict[str, Any]:
    return {"output_tokens_per_joule": float(concurrency or 1)}


def loads(store: Store, study: Study) -> Counter[tuple[str, float]]:
    return Counter((row.config_hash, row.load) for row in store.rows(study.id))


def finished(store: Store, study: Study) -> list[str]:
    return [trial.config_hash for trial in store.trials(study.id) if trial.status is TrialStatus.OK]


def test_a_modelled_sweep_from_end_to_end(tmp_path: Path) -> None:
    progress = Recorder()
    store = modelled(tmp_path, WHOLE_STUDY, progress)
    trials, rows = store.trials("test"), store.rows("test")
    assert [trial.number for trial in trials] == list(range(6))
    assert [trial.proposed_by for trial in trials[:5]] == ["baseline", "prior", "prior", "residual", "residual"]
    assert len({trial.config_hash for trial in trials}) == 6
    assert len(rows) == 6 * NUM_LOADS
    for trial in trials:
        own = [row for row in rows if row.trial_id == trial.trial_id]
        assert [row.concurrency for row in own] == list(MODELLED_STUDY.workload.concurrency)
        assert (trial.status, trial.num_rows, trial.evidence) == (TrialStatus.OK, NUM_LOADS, Evidence.MODELLED)
        assert trial.score == score(own, MODELLED_STUDY.slo)
        config = EngineConfig.from_axes("trtllm", json.loads(trial.config_json))
        assert config.config_hash == trial.config_hash
        assert why_infeasible(config, MODELLED_STUDY) is None
    for row in rows:
        assert {row.evidence, row.throughput_evidence, row.energy_evidence} == {Evidence.MODELLED}
        assert (row.weights, row.status, row.model) == ("none", RowStatus.OK, "gpt-oss-120b")
        assert row.calibration_id is not None
        assert (row.gpu_energy_j, row.window_s, row.output_tokens, row.gpu_uuids) == (None, None, None, ())
        assert row.output_tokens_per_s is not None
        assert row.power_w is not None
        assert row.output_tokens_per_joule == pytest.approx(row.output_tokens_per_s / row.power_w)
    assert progress.rows == rows
    assert progress.ended == trials
    assert [(number, num_done) for number, num_done, _ in progress.began] == [(n, n) for n in range(6)]


def test_the_prior_is_worth_having(tmp_path: Path) -> None:
    trials = modelled(tmp_path).trials("test")
    baseline, *others = [trial.score or 0.0 for trial in trials]
    assert max(others) >= baseline


def test_resuming_with_a_larger_budget_measures_only_what_is_new(tmp_path: Path) -> None:
    modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=3))
    before = Store(tmp_path).trials("test")
    store = modelled(tmp_path)
    assert store.trials("test")[:3] == before
    assert len(store.trials("test")) == 6
    assert set(loads(store, MODELLED_STUDY).values()) == {1}
    progress = Recorder()
    modelled(tmp_path, progress=progress)
    assert progress.began == []


def test_a_sweep_in_pieces_is_the_sweep_in_one(tmp_path: Path) -> None:
    study = small_study(budget=7)
    for budget in (2, 3, 7):
        sweep(with_search(study, budget_trials=budget), StubRig(study, good), Store(tmp_path / "pieces"), Recorder())
    sweep(study, StubRig(study, good), Store(tmp_path / "one"), Recorder())
    pieces, one = (Store(tmp_path / name) for name in ("pieces", "one"))
    assert finished(pieces, study) == finished(one, study)
    assert loads(pieces, study) == loads(one, study)


@pytest.mark.parametrize("at_row", [1, 2, 4, 7])
def test_ctrl_c_in_the_middle_loses_nothing_and_repeats_nothing(tmp_path: Path, at_row: int) -> None:
    study, progress = small_study(), Recorder()
    rig, store = StubRig(study, good), Store(tmp_path)
    progress.interrupt_at_row = at_row
    with pytest.raises(KeyboardInterrupt):
        sweep(study, rig, store, progress)
    assert rig.num_stopped == len(rig.started)
    assert len(store.rows("test")) == at_row
    last = store.trials("test")[-1]
    assert (last.status, last.num_rows) == (TrialStatus.INTERRUPTED, (at_row - 1) % 2 + 1)

    sweep(study, rig, store, Recorder())
    straight = Store(tmp_path / "straight")
    sweep(study, StubRig(study, good), straight, Recorder())
    assert loads(store, study) == loads(straight, study)
    assert finished(store, study) == finished(straight, study)
    trials = store.trials("test")
    assert [trial.number for trial in trials] == list(range(6))
    resumed = next(trial for trial in trials if trial.proposed_by == "resumed")
    assert resumed.config_hash == last.config_hash
    assert resumed.score == pytest.approx(4.0)
    assert resumed.num_rows == 2 - last.num_rows


class InterruptAt(Recorder):
    """Presses Ctrl-C at a named callback."""

    def __init__(self, callback: str) -> None:
        super().__init__()
        self._callback = callback

    def _maybe(self, callback: str) -> None:
        if callback == self._callback:
            raise KeyboardInterrupt

    def trial_began(self, *arguments: Any) -> None:
        self._maybe("trial_began")

    def trial_ended(self, trial: Trial) -> None:
        self._maybe("trial_ended")

    def phase(self, text: str) -> None:
        self._maybe(text)

    def row(self, row: Row) -> None:
        return


@pytest.mark.parametrize(
    ("callback", "num_trials"),
    [("trial_began", 0), ("predicting", 1), ("predicting, concurrency 4", 1), ("trial_ended", 1)],
)
def test_ctrl_c_anywhere_leaves_a_study_that_resumes(tmp_path: Path, callback: str, num_trials: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        modelled(tmp_path, progress=InterruptAt(callback))
    assert len(Store(tmp_path).trials("test")) == num_trials
    store = modelled(tmp_path)
    assert len(set(finished(store, MODELLED_STUDY))) == len(finished(store, MODELLED_STUDY)) == 6
    assert set(loads(store, MODELLED_STUDY).values()) == {1}


def test_a_kill_before_the_trial_was_written_is_mended_at_the_next_start(tmp_path: Path) -> None:
    store = modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=2))
    lost = store.trials("test")[1]
    (store.study_dir("test") / f"trial-{lost.trial_id}.parquet").unlink()
    modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=2))
    adopted, resumed = store.trials("test")[1:]
    assert (adopted.trial_id, adopted.status) == (lost.trial_id, TrialStatus.INTERRUPTED)
    assert (adopted.config_hash, adopted.num_rows, adopted.number) == (lost.config_hash, NUM_LOADS, 1)
    assert (resumed.config_hash, resumed.status, resumed.num_rows) == (lost.config_hash, TrialStatus.OK, 0)
    assert resumed.score == lost.score
    assert set(loads(store, MODELLED_STUDY).values()) == {1}


def test_a_kill_in_the_middle_of_a_ladder_loses_only_the_open_window(tmp_path: Path) -> None:
    store = modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=2))
    lost = store.trials("test")[1]
    (store.study_dir("test") / f"trial-{lost.trial_id}.parquet").unlink()
    for row in [row for row in store.rows("test") if row.trial_id == lost.trial_id][3:]:
        (store.study_dir("test") / f"row-{row.row_id}.parquet").unlink()
    modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=2))
    assert [trial.num_rows for trial in store.trials("test")] == [NUM_LOADS, 3, NUM_LOADS - 3]
    assert store.trials("test")[2].score == pytest.approx(lost.score)


def test_a_config_that_fails_is_a_trial_and_the_sweep_goes_on(tmp_path: Path) -> None:
    def fragile(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        if config.parallelism.tp == 2:
            raise TrialError(TrialStatus.OUT_OF_MEMORY, "CUDA out of memory", ("the last line",))
        return good(config, concurrency)

    study = small_study(budget=9)
    rig, store = StubRig(study, fragile), Store(tmp_path)
    sweep(study, rig, store, Recorder())
    trials = store.trials("test")
    failed = [trial for trial in trials if trial.status is TrialStatus.OUT_OF_MEMORY]
    assert len(trials) == 9
    assert len(failed) == 4
    for trial in failed:
        assert (trial.reasons, trial.log_tail) == (("CUDA out of memory",), ("the last line",))
        assert (trial.num_rows, trial.score, trial.evidence) == (0, None, None)
    sweep(study, rig, store, Recorder())
    assert len(store.trials("test")) == 9


def test_a_baseline_that_does_not_fit_is_the_first_record_and_no_crash(tmp_path: Path) -> None:
    theirs = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": 1})
    small = dataclasses.replace(MODELLED_STUDY.hardware, memory_bytes=60_000_000_000)
    study = dataclasses.replace(MODELLED_STUDY, hardware=small, baseline=theirs)
    first, *others = modelled(tmp_path, with_search(study, budget_trials=3)).trials("test")
    assert (first.proposed_by, first.status, first.num_rows) == ("baseline", TrialStatus.OUT_OF_MEMORY, 0)
    assert "does not fit b200" in first.reasons[0]
    assert [trial.status for trial in others] == [TrialStatus.OK, TrialStatus.OK]


def test_a_bug_is_no_result(tmp_path: Path) -> None:
    def broken(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        raise ZeroDivisionError

    study = small_study()
    with pytest.raises(ZeroDivisionError):
        sweep(study, StubRig(study, broken), Store(tmp_path), Recorder())
    assert Store(tmp_path).trials("test") == []
    sweep(study, StubRig(study, good), Store(tmp_path), Recorder())
    assert len(finished(Store(tmp_path), study)) == 5


def test_two_sweeps_do_not_share_a_study(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("test"), pytest.raises(StoreError, match="study test is being run by process"):
        modelled(tmp_path)
    assert store.trials("test") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rig": "served"}, "rig=served: study test has rows of rig=modelled; choose another name with STUDY="),
        (
            {"plan": {"window_s": 99.0}},
            f"plan.window_s=99.0: study test has rows of plan.window_s={MODELLED_STUDY.plan.window_s}",
        ),
        ({"hardware": {"name": "b300"}}, "hardware.name=b300: study test has rows of hardware.name=b200"),
    ],
)
def test_rows_that_cannot_be_compared_do_not_enter_one_study(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=1))
    values = {
        name: dataclasses.replace(getattr(MODELLED_STUDY, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    with pytest.raises(ConfigError) as caught:
        modelled(tmp_path, dataclasses.replace(MODELLED_STUDY, **values))
    assert said in str(caught.value)
    assert len(Store(tmp_path).trials("test")) == 1


def test_another_slo_or_other_axes_are_the_same_study(tmp_path: Path) -> None:
    modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=1))
    slo = dataclasses.replace(MODELLED_STUDY.slo, name="tight", tpot_p99_s=0.005)
    changed = with_axes(dataclasses.replace(MODELLED_STUDY, slo=slo), precision__weights="fp4", parallelism__tp=(2, 4))
    modelled(tmp_path, with_search(changed, budget_trials=2))
    assert [trial.slo for trial in Store(tmp_path).trials("test")] == ["none", "tight"]


def test_settings_of_a_version_that_is_not_ours_are_named(tmp_path: Path) -> None:
    store = modelled(tmp_path, with_search(MODELLED_STUDY, budget_trials=1))
    (trial,) = store.trials("test")
    store.append(dataclasses.replace(trial, study_json='{"colour": "red"}', tool_version="99.0"))
    with pytest.raises(StoreError, match=r"study test was made by version 99\.0.*choose another name with STUDY="):
        modelled(tmp_path)


def test_an_impossible_study_writes_nothing(tmp_path: Path) -> None:
    study = with_axes(MODELLED_STUDY, precision__weights="bf16")
    with pytest.raises(ConfigError, match="no feasible configuration"):
        modelled(tmp_path / "results", study)
    assert not (tmp_path / "results").exists()


def test_an_unwritable_folder_is_found_out_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    study = small_study()
    rig = StubRig(study, good)
    with pytest.raises(StoreError, match="cannot be written"):
        sweep(study, rig, Store(tmp_path / "file" / "results"), Recorder())
    assert rig.started == []


def test_configs_that_the_engine_refuses_are_not_started(tmp_path: Path) -> None:
    study, store = small_study(budget=100), Store(tmp_path)
    rig = StubRig(study, good)
    rig.refused = frozenset(config.config_hash for config in build_space(study).configs[::2])
    sweep(study, rig, store, Recorder())
    assert not rig.refused & {config.config_hash for config in rig.started}
    assert len(finished(store, study)) == 5


def test_what_the_user_must_mend_stops_the_sweep_and_is_no_result(tmp_path: Path) -> None:
    def unmended(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        raise ConfigError("weights=checkpoint: there are none")

    study = small_study()
    with pytest.raises(ConfigError, match="there are none"):
        sweep(study, StubRig(study, unmended), Store(tmp_path), Recorder())
    assert Store(tmp_path).trials("test") == []


def test_all_that_is_feasible_is_measured_if_the_budget_allows(tmp_path: Path) -> None:
    study = small_study(budget=100)
    store = Store(tmp_path)
    sweep(study, StubRig(study, good), store, Recorder())
    assert set(finished(store, study)) >= {config.config_hash for config in build_space(study).configs}


def test_rows_of_another_engine_version_are_not_mixed_in(tmp_path: Path) -> None:
    study, store = small_study(), Store(tmp_path)
    rig = StubRig(study, good)
    sweep(with_search(study, budget_trials=1), rig, store, Recorder())
    (trial,) = store.trials("test")
    store.append(dataclasses.replace(trial, engine_version="0.24.0"))
    rig.engine_version = "0.25.0"
    with pytest.raises(ConfigError, match=r"engine_version=0\.25\.0: study test has rows of engine_version=0\.24\.0"):
        sweep(study, rig, store, Recorder())


def test_rows_of_another_card_are_not_mixed_in(tmp_path: Path) -> None:
    study, store = small_study(), Store(tmp_path)
    rig = StubRig(study, good)
    rig.first_gpu = "GPU-1"
    sweep(with_search(study, budget_trials=1), rig, store, Recorder())
    store.append(dataclasses.replace(store.rows("test")[0], gpu_uuids=("GPU-1",)))
    sweep(with_search(study, budget_trials=2), rig, store, Recorder())
    rig.first_gpu = "GPU-2"
    with pytest.raises(ConfigError, match=r"has rows of GPU-1, this run would use GPU-2.*CUDA_VISIBLE_DEVICES"):
        sweep(study, rig, store, Recorder())


def uneven(config: EngineConfig, concurrency: int) -> dict[str, Any]:
    """The smaller the batch limit, the worse by far."""
    return {"output_tokens_per_joule": 1e-6 * (config.batching.max_batch_size or 1e9) ** 3 * (concurrency or 1)}


def test_a_sweep_cuts_what_cannot_win_and_resumes_to_the_same(tmp_path: Path) -> None:
    study = with_search(small_study(budget=9), prune=True)
    progress, store = Recorder(), Store(tmp_path)
    progress.interrupt_at_row = 5
    with pytest.raises(KeyboardInterrupt):
        sweep(study, StubRig(study, uneven), store, progress)
    sweep(study, StubRig(study, uneven), store, Recorder())
    done = [trial for trial in store.trials("test") if trial.status is not TrialStatus.INTERRUPTED]
    pruned = [trial for trial in done if trial.status is TrialStatus.PRUNED]
    assert len(done) == len({trial.config_hash for trial in done}) == 9
    assert pruned
    best = max(trial.score or 0.0 for trial in done)
    for trial in pruned:
        assert trial.score is not None
        assert trial.score_bound is not None
        assert trial.score <= trial.score_bound < best
    assert max(loads(store, study).values()) == 1


@pytest.mark.parametrize("at_row", [1, 2, 5])
def test_an_adaptive_sweep_loses_nothing_and_repeats_nothing(tmp_path: Path, at_row: int) -> None:
    study, progress = with_search(MODELLED_STUDY, ladder="adaptive", budget_trials=3), Recorder()
    progress.interrupt_at_row = at_row
    with pytest.raises(KeyboardInterrupt):
        modelled(tmp_path / "pieces", study, progress)
    pieces, one = modelled(tmp_path / "pieces", study), modelled(tmp_path / "one", study)
    assert loads(pieces, study) == loads(one, study)
    assert finished(pieces, study) == finished(one, study)
    assert set(loads(one, study).values()) == {1}


def test_an_adaptive_sweep_finds_what_every_load_would_have_found(tmp_path: Path) -> None:
    study = with_search(MODELLED_STUDY, budget_trials=6)
    fixed, adaptive = (
        modelled(tmp_path / ladder, with_search(study, ladder=ladder)) for ladder in ("fixed", "adaptive")
    )
    by_fixed = {trial.config_hash: trial.score or 0.0 for trial in fixed.trials("test")}
    for trial in adaptive.trials("test"):
        assert (trial.score or 0.0) > 0.99 * by_fixed.get(trial.config_hash, 0.0)
    assert len(adaptive.rows("test")) <= len(fixed.rows("test"))


def test_the_last_starts_of_a_budget_are_fresh_ones_of_the_best_in_turns_with_the_baseline(tmp_path: Path) -> None:
    study = dataclasses.replace(with_search(small_study(20), finals_share=0.5), rig="served")
    base = {64: 1.0, 128: 1.3}

    def answer(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        value = base[config.batching.max_batch_size or 64] / config.parallelism.tp
        return {"output_tokens_per_joule": value * (1 + 0.001 * len(rig.started)) * float(concurrency or 1)}

    rig, store = StubRig(study, answer), Store(tmp_path)
    sweep(study, rig, store, Recorder())
    trials = store.trials(study.id)
    fresh = [trial for trial in trials if trial.proposed_by == BY]
    assert [trial.proposed_by == BY for trial in trials] == sorted(trial.proposed_by == BY for trial in trials)
    assert len(trials) - len(fresh) == 9  # all eight configs, and the engine's default
    assert len({trial.config_hash for trial in fresh}) >= 2
    assert trials[0].config_hash in {trial.config_hash for trial in fresh}
    counts = Counter(trial.config_hash for trial in fresh)
    assert max(counts.values()) - min(counts.values()) <= 1
    num_before = len(rig.started)
    sweep(study, rig, store, Recorder())
    assert len(rig.started) == num_before  # nothing is left to do


def test_a_study_goes_on_on_another_card_after_its_anchor_and_scores_are_relative_to_it(tmp_path: Path) -> None:
    """The second card gives a quarter more for the same work: its configs are no better for that."""

    def on(card: str, factor: float, budget: int) -> tuple[StubRig, Recorder]:
        study = with_search(small_study(budget), anchor_every=2)

        def answer(config: EngineConfig, concurrency: int) -> dict[str, Any]:
            value = factor * config.parallelism.tp * float(concurrency or 1)
            return {"output_tokens_per_joule": value, "gpu_uuids": (card,)}

        rig, progress = StubRig(study, answer), Recorder()
        rig.first_gpu = card
        sweep(study, rig, Store(tmp_path), progress)
        return rig, progress

    on("GPU-a", 1.0, 3)
    rig, progress = on("GPU-b", 1.25, 8)
    baseline = build_space(small_study()).configs[0]
    trials = Store(tmp_path).trials("test")
    by = [trial.proposed_by for trial in trials]
    assert [name.replace("prior", "grid") for name in by] == [
        "baseline",
        "grid",
        "grid",
        "anchor",
        "anchor",
        "grid",
        "grid",
        "anchor",
        "grid",
        "grid",
        "anchor",
        "grid",
    ]
    assert {trial.config_hash for trial in trials if trial.proposed_by == "anchor"} == {trials[0].config_hash}
    assert baseline is not None
    assert len(rig.started) == len(progress.began) == len(trials) - 4
