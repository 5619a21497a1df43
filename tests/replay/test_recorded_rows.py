"""Real windows recorded on an H100 (results/): their traces still give the rows that were stored, and a search resumes
from them."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from pipeline.record import Evidence, Reason, Row, RowStatus
from pipeline.rig.rows import measured
from pipeline.score import score
from pipeline.search.search import Search
from pipeline.space import build_space
from pipeline.store import Store
from pipeline.study import EngineConfig, Study
from pipeline.trace import from_table

STORE = Store(Path(__file__).parents[2] / "results")
STUDIES = ("h100-llama-3.1-8b", "h100-gpt-oss-120b")
ROWS = [row for study in STUDIES for row in STORE.rows(study)]
VERDICT = {"status", "reasons", "warnings", "client_cpu_s"}
"""Not from the trace alone: the warm-up and the client's CPU time are not in it."""


def recorded_study(study_id: str) -> Study:
    return TypeAdapter(Study).validate_json(STORE.trials(study_id)[-1].study_json)


def test_there_are_the_recorded_windows() -> None:
    assert len(ROWS) == 23
    assert {row.evidence for row in ROWS} == {Evidence.MEASURED}
    assert {row.weights for row in ROWS} == {"random"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}-c{row.concurrency}-{row.row_id}")
def test_a_trace_gives_its_row_again(row: Row) -> None:
    trace = from_table(STORE.read_trace(row))
    again = measured(trace, recorded_study(row.study_id).plan, row.boundary)
    for name in again.keys() - VERDICT:
        stored = getattr(row, name)
        assert again[name] == (pytest.approx(stored, rel=1e-9) if isinstance(stored, float) else stored), name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}-c{row.concurrency}-{row.row_id}")
def test_two_readings_of_a_valid_row_agree(row: Row) -> None:
    assert row.gpu_energy_j is not None
    assert row.gpu_energy_integral_j is not None
    disagreement = abs(row.gpu_energy_integral_j / row.gpu_energy_j - 1)
    assert (disagreement > 0.02) == (Reason.READING_DISAGREEMENT in row.reasons)


def test_kernels_that_compile_under_load_are_caught_as_not_steady() -> None:
    stalled = min((row for row in ROWS if row.model == "gpt-oss-120b"), key=lambda row: row.concurrency)
    trace = from_table(STORE.read_trace(stalled))
    again = measured(trace, recorded_study(stalled.study_id).plan, stalled.boundary)
    assert again["status"] is RowStatus.INVALID
    assert again["reasons"] == (Reason.NOT_STEADY,)


def test_stored_scores_are_those_of_the_stored_rows() -> None:
    for study_id in STUDIES:
        study, rows = recorded_study(study_id), STORE.rows(study_id)
        for trial in STORE.trials(study_id):
            assert trial.score == score([row for row in rows if row.trial_id == trial.trial_id], study.slo)


def test_a_search_over_recorded_trials_proposes_none_of_them_again() -> None:
    study = recorded_study("h100-llama-3.1-8b")
    trials = STORE.trials(study.id)
    search = Search(study, build_space(study), trials, STORE.rows(study.id), prior=())
    assert search.num_done == len({trial.config_hash for trial in trials}) == 5
    assert list(search.proposals()) == []  # the budget of five is used up


def test_a_recorded_config_still_has_its_hash() -> None:
    for row in ROWS:
        config = EngineConfig.from_axes(row.engine, json.loads(row.config_json))
        assert config.config_hash == row.config_hash
