import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError, LoadError, MeterError, StoreError
from pipeline.record import Row, Trial
from pipeline.resume import adopt_orphans
from pipeline.rig.protocol import TrialError
from pipeline.roofline.calibration import SHIPPED
from pipeline.score import score
from pipeline.search.climb import Climb, Standing
from pipeline.store import Store
from pipeline.study import Study
from pipeline.trial import run_trial
from pipeline.vocabulary import Evidence, TrialStatus
from tests.builders import INVALID, MODELLED, Recorder, StubRig, make_row, make_slo, make_study, make_trial, with_search

STUDY = make_study(*MODELLED)
LOADS = STUDY.workload.concurrency
CONFIG = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": 2})


def good(_config: EngineConfig, concurrency: int) -> dict[str, Any]:
    return {"output_tokens_per_joule": float(concurrency or 1), "tpot_p99_s": 0.001 * concurrency}


class Run:
    """One trial of a stub rig."""

    def __init__(
        self,
        folder: Path,
        answer: Any = good,
        study: Study = STUDY,
        earlier_rows: Sequence[Row] = (),
        standing: Standing | None = None,
    ) -> None:
        self.study, self.store, self.progress = study, Store(folder), Recorder()
        self.rig = StubRig(study, answer)
        self.earlier_rows = earlier_rows
        self.climb = None if standing is None else Climb.of(study, CONFIG, standing)

    def __call__(self) -> Trial:
        return run_trial(
            self.study, self.rig, self.store, CONFIG, number=7, proposed_by="prior", earlier_rows=self.earlier_rows,
            progress=self.progress, climb=self.climb,
        )  # fmt: skip

    @property
    def measured(self) -> list[int]:
        return [load for _, load in self.rig.measured]

    @property
    def stored(self) -> Trial:
        (trial,) = self.store.trials(self.study.id)
        return trial


def test_a_trial_climbs_the_ladder_and_is_stored_as_returned(tmp_path: Path) -> None:
    run = Run(tmp_path)
    trial = run()
    rows = run.store.rows(STUDY.id)
    assert run.measured == [row.concurrency for row in rows] == list(LOADS)
    assert run.stored == trial
    assert run.progress.rows == rows
    assert {row.trial_id for row in rows} == {trial.trial_id}
    assert (trial.status, trial.reasons, trial.num_rows, trial.number) == (TrialStatus.OK, (), len(LOADS), 7)
    assert (trial.proposed_by, trial.engine, trial.config_hash) == ("prior", "trtllm", CONFIG.config_hash)
    assert trial.score == score(rows, STUDY.slo)
    assert trial.evidence is Evidence.SIMULATED
    assert run.rig.num_stopped == 1
    assert TypeAdapter(Study).validate_json(trial.study_json) == STUDY
    assert trial.total_s >= 0


def test_a_load_that_misses_the_slo_ends_the_climb(tmp_path: Path) -> None:
    run = Run(tmp_path, study=dataclasses.replace(STUDY, slo=make_slo(tpot_p99_s=0.005)))
    trial = run()
    assert run.measured == [1, 4, 16]
    assert trial.score == 4.0
    assert trial.status is TrialStatus.OK


def test_an_invalid_row_neither_ends_the_climb_nor_counts(tmp_path: Path) -> None:
    run = Run(tmp_path, lambda c, load: INVALID if load == 4 else good(c, load))
    trial = run()
    assert run.measured == list(LOADS)
    assert trial.num_rows == len(LOADS)
    assert trial.score == pytest.approx(256.0)


def test_loads_that_are_there_are_not_measured_again_but_count(tmp_path: Path) -> None:
    earlier = [make_row(concurrency=load, config_hash=CONFIG.config_hash, **good(CONFIG, load)) for load in (1, 256)]
    run = Run(tmp_path, earlier_rows=earlier)
    trial = run()
    assert run.measured == [4, 16, 64]
    assert trial.num_rows == 3
    assert trial.score == pytest.approx(256.0)


def test_an_earlier_row_that_misses_the_slo_ends_the_climb_too(tmp_path: Path) -> None:
    earlier = [make_row(concurrency=load, **good(CONFIG, load)) for load in (1, 4, 16)]
    study = dataclasses.replace(STUDY, slo=make_slo(tpot_p99_s=0.005))
    run = Run(tmp_path, study=study, earlier_rows=earlier)
    trial = run()
    assert run.measured == []
    assert (trial.status, trial.num_rows, trial.score) == (TrialStatus.OK, 0, 4.0)


def test_invalid_earlier_rows_are_measured_again(tmp_path: Path) -> None:
    run = Run(tmp_path, earlier_rows=[make_row(concurrency=4, **INVALID)])
    assert run().num_rows == len(LOADS)
    assert run.measured == list(LOADS)


@pytest.mark.parametrize("status", [status for status in TrialStatus if status.is_failure])
def test_a_config_that_does_not_start_is_a_record(tmp_path: Path, status: TrialStatus) -> None:
    def fail(_config: EngineConfig, _concurrency: int) -> dict[str, Any]:
        raise TrialError(status, "CUDA out of memory, or so", ("last line", "of the log"))

    run = Run(tmp_path, fail)
    assert run() == run.stored
    assert run.stored.status is status
    assert run.stored.reasons == ("CUDA out of memory, or so",)
    assert run.stored.log_tail == ("last line", "of the log")
    assert (run.stored.num_rows, run.stored.score, run.stored.evidence) == (0, None, None)
    assert (run.stored.rendered_hash, run.stored.start_s) == (None, None)


def test_a_config_that_breaks_under_load_keeps_what_it_did(tmp_path: Path) -> None:
    def breaks(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        if concurrency == 16:
            raise TrialError(TrialStatus.HUNG, "no token for 120 s")
        return good(config, concurrency)

    run = Run(tmp_path, breaks)
    trial = run()
    assert run.measured == [1, 4]
    assert (trial.status, trial.num_rows, trial.score) == (TrialStatus.HUNG, 2, 4.0)
    assert trial.evidence is Evidence.SIMULATED
    assert trial.rendered_hash == CONFIG.config_hash
    assert run.rig.num_stopped == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_passed_on_after_the_trial_was_stored(tmp_path: Path, error: type[Exception]) -> None:
    def breaks(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        if concurrency == 16:
            raise error
        return good(config, concurrency)

    run = Run(tmp_path, breaks)
    with pytest.raises(error):
        run()
    assert run.stored.status is TrialStatus.INTERRUPTED
    assert run.stored.num_rows == len(run.store.rows(STUDY.id)) == 2
    assert run.rig.num_stopped == 1


def test_what_the_user_must_mend_leaves_no_record(tmp_path: Path) -> None:
    def unmended(_config: EngineConfig, _concurrency: int) -> dict[str, Any]:
        raise ConfigError("weights=checkpoint: there are none")

    run = Run(tmp_path, unmended)
    with pytest.raises(ConfigError, match="there are none"):
        run()
    assert run.store.trials(STUDY.id) == []


def test_results_that_cannot_be_written_stop_the_trial(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = Run(tmp_path / "file" / "results")
    with pytest.raises(StoreError, match="cannot be written"):
        run()
    assert run.rig.num_stopped == 1


def test_rows_of_a_killed_sweep_get_a_trial_that_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done = make_trial(study_id=STUDY.id, number=0)
    store.append(done)
    store.append(make_row(study_id=STUDY.id, trial_id=done.trial_id))
    json_text = '{"parallelism.tp":2,"precision.weights":"fp4"}'
    for trial_id, loads in (("lost", (1, 4)), ("gone", (1,))):
        for load in loads:
            store.append(make_row(
                study_id=STUDY.id, trial_id=trial_id, concurrency=load, config_hash=CONFIG.config_hash, window_s=2.5,
                config_json=json_text, started_utc=f"2026-01-01T00:00:0{load}.000+00:00",
            ))  # fmt: skip
    adopt_orphans(STUDY, store)
    adopt_orphans(STUDY, store)
    first, *adopted = store.trials(STUDY.id)
    assert first == done
    assert [trial.number for trial in adopted] == [1, 2]
    assert {trial.trial_id: trial.num_rows for trial in adopted} == {"lost": 2, "gone": 1}
    for trial in adopted:
        assert (trial.status, trial.reasons) == (TrialStatus.INTERRUPTED, ("the sweep was killed",))
        assert (trial.config_hash, trial.config_json, trial.score) == (CONFIG.config_hash, json_text, None)
        assert trial.total_s == 2.5 * trial.num_rows


def test_nothing_to_adopt_adds_nothing(tmp_path: Path) -> None:
    Run(tmp_path)()
    adopt_orphans(STUDY, Store(tmp_path))
    assert len(Store(tmp_path).trials(STUDY.id)) == 1


def test_a_client_that_fails_is_a_result_of_its_config(tmp_path: Path) -> None:
    def breaks(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        if concurrency == 16:
            raise LoadError("the load client failed")
        return good(config, concurrency)

    trial = Run(tmp_path, breaks)()
    assert (trial.status, trial.reasons) == (TrialStatus.LOAD_FAILED, ("the load client failed",))


def test_an_error_of_the_machine_leaves_no_record_of_the_config(tmp_path: Path) -> None:
    def breaks(config: EngineConfig, concurrency: int) -> dict[str, Any]:
        raise MeterError("GPU 0 is in use")

    run = Run(tmp_path, breaks)
    with pytest.raises(MeterError):
        run()
    assert run.store.trials(STUDY.id) == []


ADAPTIVE = with_search(STUDY, ladder="adaptive")
PRUNE = with_search(STUDY, prune=True)


def peaked(config: EngineConfig, concurrency: int) -> dict[str, Any]:
    return {"output_tokens_per_joule": 2.0 - abs(math.log2(max(1, concurrency) / 48)) / 10}


def test_an_adaptive_ladder_measures_around_the_best(tmp_path: Path) -> None:
    run = Run(tmp_path, peaked, study=ADAPTIVE, standing=Standing())
    trial = run()
    assert run.measured == [256, 128, 64, 32, 96, 48]
    assert (trial.status, trial.num_rows) == (TrialStatus.OK, 6)
    assert trial.score == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("num_earlier", range(7))
def test_an_adaptive_ladder_goes_on_where_it_was_interrupted(tmp_path: Path, num_earlier: int) -> None:
    whole = [256, 128, 64, 32, 96, 48]
    earlier = [make_row(concurrency=load, **peaked(CONFIG, load)) for load in whole[:num_earlier]]
    run = Run(tmp_path, peaked, study=ADAPTIVE, earlier_rows=earlier, standing=Standing())
    run()
    assert run.measured == whole[num_earlier:]


def test_a_start_is_not_used_for_longer_than_its_budget(tmp_path: Path) -> None:
    run = Run(tmp_path, study=with_search(STUDY, ladder_budget_s=1e-9), standing=Standing())
    assert run().status is TrialStatus.OK
    assert run.measured == [1]


def test_without_a_standing_nothing_is_bounded(tmp_path: Path) -> None:
    trial = Run(tmp_path, study=PRUNE)()
    assert (trial.status, trial.score_bound, trial.score_bound_by) == (TrialStatus.OK, None, None)


def test_a_trial_that_cannot_win_is_cut_and_keeps_its_rows(tmp_path: Path) -> None:
    run = Run(tmp_path, study=PRUNE, standing=Standing(best=1e6, num_rows=20))
    trial = run()
    assert run.measured == [1]
    assert (trial.status, trial.num_rows) == (TrialStatus.PRUNED, 1)
    assert trial.score == pytest.approx(1.0)
    assert trial.score_bound is not None
    assert trial.reasons == (
        f"cannot win: at most {trial.score_bound:.3g} tok/J (bound: {trial.score_bound_by}), the best so far has 1e+06",
    )
    assert [row.status for row in run.store.rows(STUDY.id)] == ["ok"]
    assert run.stored == trial
    assert run.rig.num_stopped == 1


def test_the_first_bound_is_kept_of_a_trial_that_went_on(tmp_path: Path) -> None:
    standing = Standing(best=1.0, num_rows=7)
    trials = [Run(tmp_path / str(study.search.prune), study=study, standing=standing)() for study in (STUDY, PRUNE)]
    for trial in trials:
        assert (trial.status, trial.num_rows) == (TrialStatus.OK, len(LOADS))
        assert trial.score_bound_by == SHIPPED.id
        assert trial.score_bound is not None
    assert trials[0].score_bound == trials[1].score_bound


def test_a_trial_is_not_cut_at_its_last_load(tmp_path: Path) -> None:
    slo = make_slo(tpot_p99_s=0.0005)
    run = Run(tmp_path, study=dataclasses.replace(PRUNE, slo=slo), standing=Standing(best=1e6, num_rows=20))
    assert run().status is TrialStatus.OK
    assert run.measured == [1]
