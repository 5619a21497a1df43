"""Real windows recorded on H100s and H200s (results/): their traces still give the rows that were stored, what happened
there is still caught, and a search resumes from them."""

import json
import statistics
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from pipeline.cli.repeatability import case_results
from pipeline.engine_config import EngineConfig
from pipeline.record import Row
from pipeline.rig.rows import measured
from pipeline.rig.verify import context_of, verify
from pipeline.score import score
from pipeline.search.prior import Prior
from pipeline.search.search import Search
from pipeline.space import build_space
from pipeline.store import Store
from pipeline.study import Study
from pipeline.trace_file import from_table
from pipeline.vocabulary import Evidence, Reason, RowStatus

STORE = Store(Path(__file__).parents[2] / "results")
SWEEPS = ("h100-llama-3.1-8b", "h100-gpt-oss-120b")
"""Of method 1."""

STUDIES = [study for study in STORE.studies() if study.startswith(("h100-", "h200-"))]
ROWS = [row for study in STUDIES for row in STORE.rows(study)]
TRACED = [row for row in ROWS if (STORE.results_dir / "traces" / f"study={row.study_id}").is_dir()]
"""The traces of repeated starts, of the drift, of two GPUs and of anchors on other hosts are not in the tree."""

each_row = pytest.mark.parametrize("row", TRACED, ids=lambda row: f"{row.study_id}-c{row.concurrency}-{row.row_id}")


def recorded_study(study_id: str) -> Study:
    return TypeAdapter(Study).validate_json(STORE.trials(study_id)[-1].study_json)


def test_there_are_the_recorded_windows() -> None:
    assert (len(ROWS), len(TRACED)) == (143, 91)
    assert {row.method for row in ROWS} == {1, 2}
    assert {row.evidence for row in ROWS} == {Evidence.MEASURED}
    assert {row.weights for row in ROWS} == {"random"}


def test_traces_of_version_1_are_there_as_written_and_with_their_events_in_one_list() -> None:
    tables = [STORE.read_trace(row) for study in SWEEPS for row in STORE.rows(study)]
    assert {table.schema.metadata[b"schema_version"] for table in tables} == {b"1"}
    assert sorted("event_gap_us" in table.column_names for table in tables) == [False] + 22 * [True]


@each_row
def test_a_trace_gives_its_row_again(row: Row) -> None:
    found = verify(row, from_table(STORE.read_trace(row)), recorded_study(row.study_id))
    assert found.differences == ()
    assert found.num_equal >= (24 if row.method == 1 else 65)


@each_row
def test_two_readings_of_a_valid_row_agree(row: Row) -> None:
    assert row.gpu_energy_j is not None
    assert row.gpu_energy_integral_j is not None
    disagreement = abs(row.gpu_energy_integral_j / row.gpu_energy_j - 1)
    assert (disagreement > 0.02) == (Reason.READING_DISAGREEMENT in row.reasons)


def test_kernels_that_compile_under_load_are_caught_as_not_steady() -> None:
    stalled = min(STORE.rows("h100-gpt-oss-120b"), key=lambda row: row.load)
    trace = from_table(STORE.read_trace(stalled))
    again = measured(trace, context_of(trace, stalled, recorded_study(stalled.study_id)))
    assert again["status"] is RowStatus.INVALID
    assert again["reasons"] == (Reason.NOT_STEADY,)


def test_kernels_that_compile_are_seen_from_outside_until_they_have() -> None:
    rows = STORE.rows("h100-drift-gpt-oss-20b-cold-3a4bf3b5")
    assert all(Reason.KERNELS_COMPILING in row.reasons for row in rows[:-1])
    assert (rows[-1].num_new_kernels, rows[-1].status) == (0, RowStatus.OK)
    throughput = [row.output_tokens_per_s or 0.0 for row in rows]
    assert max(throughput) == throughput[-1] > 10 * throughput[0]


def test_a_card_that_slows_down_for_heat_is_caught() -> None:
    throttled = [row for row in ROWS if Reason.THROTTLED_THERMAL in row.reasons]
    assert len(throttled) == 2
    assert all((row.throttle_s or 0) > 4 and (row.gpu_temperature_mean_c or 0) > 77 for row in throttled)


def test_the_engine_counts_the_tokens_that_reached_us() -> None:
    apart = sorted(abs(row.token_disagreement) for row in ROWS if row.token_disagreement is not None)
    assert len(apart) == 120
    assert apart[-1] <= 0.0052
    assert apart[-6] <= 0.0021


def test_two_readings_are_as_close_as_the_documents_say() -> None:
    valid = [row for row in ROWS if row.status is RowStatus.OK]
    apart = [abs((row.gpu_energy_integral_j or 0.0) / (row.gpu_energy_j or 1.0) - 1) for row in valid]
    assert statistics.median(apart) < 0.005


def test_starts_of_one_config_agree_and_cards_do_not() -> None:
    rows = [row for row in ROWS if row.study_id.startswith("h100-repeat-llama-3.1-8b-")]
    (case,) = [case for case in case_results(rows) if case["visit"]["df"]]
    assert (case["window"]["num_units"], case["start"]["num_units"], case["visit"]["num_units"]) == (14, 7, 3)
    assert case["start"]["upper"] < 0.01
    assert 0.02 < case["visit"]["sd"] < 0.04


def test_starts_of_gpt_oss_are_as_the_documents_say() -> None:
    rows = [row for row in ROWS if row.study_id.startswith("h100-repeat-gpt-oss-20b-")]
    (case,) = [case for case in case_results(rows) if case["visit"]["num_units"] == 2]
    assert len({row.trial_id for row in rows}) == 8
    assert case["start"]["num_units"] == 6
    assert case["start"]["upper"] == pytest.approx(0.024, abs=0.0005)


def test_two_gpus_of_one_deployment_are_both_metered() -> None:
    rows = [row for row in ROWS if row.study_id == "h100-tp2-llama-3.1-8b"]
    assert [(row.num_gpus, len(set(row.gpu_uuids)), row.status) for row in rows] == 2 * [(2, 2, RowStatus.OK)]
    assert all((row.power_w or 0.0) > 1000 for row in rows)  # more than one board may draw


def test_stored_scores_are_near_those_that_the_stored_rows_have_today() -> None:
    for study_id in SWEEPS:
        study, rows = recorded_study(study_id), STORE.rows(study_id)
        for trial in STORE.trials(study_id):
            now = score([row for row in rows if row.trial_id == trial.trial_id], study.slo)
            assert (trial.score or 0.0) == pytest.approx(now or 0.0, rel=0.01)  # they are of the highest row


def test_a_search_over_recorded_trials_proposes_none_of_them_again() -> None:
    study = recorded_study("h100-llama-3.1-8b")
    trials = STORE.trials(study.id)
    space = build_space(study)
    search = Search(study, space, trials, STORE.rows(study.id), Prior(study, space.configs))
    assert search.num_done == len({trial.config_hash for trial in trials}) == 5
    assert list(search.proposals()) == []  # the budget of five is used up


def test_a_recorded_config_still_has_its_hash() -> None:
    for row in ROWS:
        config = EngineConfig.from_axes(row.engine, json.loads(row.config_json))
        assert config.config_hash == row.config_hash


def test_the_figures_in_the_prose_of_the_documents_are_those_of_the_rows() -> None:
    by_card = [
        [row.output_tokens_per_joule or 0.0 for row in STORE.rows(f"h100-repeat-llama-3.1-8b-{card}")]
        for card in ("3d7d8474", "3a4bf3b5", "dcc91ecf")
    ]
    assert [round(statistics.mean(values), 2) for values in by_card] == [8.32, 8.05, 7.86]
    cold = [row.output_tokens_per_s or 0.0 for row in STORE.rows("h100-drift-gpt-oss-20b-cold-3a4bf3b5")]
    kept = [row.output_tokens_per_s or 0.0 for row in STORE.rows("h100-repeat-gpt-oss-20b-3a4bf3b5")]
    assert round(cold[-1] / cold[0]) == 14
    assert round(min(kept) / max(kept), 2) == 0.92
