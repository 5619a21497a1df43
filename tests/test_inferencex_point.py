"""Rows as points of InferenceX: its keys and units, there and back, and what is no point."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.importers import inferencex
from pipeline.importers.composed import compose_study
from pipeline.importers.foreign_file import read_file
from pipeline.importers.records import records
from pipeline.inferencex_point import LABELS, point, why_not
from pipeline.resume import study_of
from pipeline.store import Store
from pipeline.vocabulary import Evidence, Reason, RowStatus
from tests.builders import make_row
from tests.importers.samples import DATA

STORE = Store(Path(__file__).parents[1] / "results")
RECORDED = "h100-llama-3.1-8b"


def points_of(study: str) -> list[dict[str, Any]]:
    trials = {trial.trial_id: study_of(trial) for trial in STORE.trials(study)}
    return [point(row, trials[row.trial_id]) for row in STORE.rows(study) if why_not(row) is None]


@pytest.mark.parametrize("name", ["inferencex_agg_power.json", "inferencex_agg.json"])
def test_a_point_of_theirs_comes_back_as_it_was(name: str) -> None:
    theirs = json.loads((DATA / name).read_text())
    reported = inferencex.read(read_file(DATA / name)).reported[0]
    study, config = compose_study(reported, [])
    _, row = records(reported, study, config, 0, None)
    assert why_not(row) is None
    ours = point(row, study)
    told_otherwise = {"image", "model", "recipe_fingerprint"}  # the row has neither container nor their names
    shared = (theirs.keys() & ours.keys()) - told_otherwise
    for key in shared:
        is_number = isinstance(theirs[key], float)
        assert ours[key] == (pytest.approx(theirs[key], rel=1e-4) if is_number else theirs[key]), key
    not_ours = {key for key in theirs.keys() - ours.keys() if not key.startswith(("mean_", "std_", "p90_", "p99.9_"))}
    assert not_ours == {"median_itl", "p99_itl"}


def test_a_recorded_study_has_their_keys_of_their_types_and_says_what_it_is() -> None:
    theirs = json.loads((DATA / "inferencex_agg_power.json").read_text())
    points = points_of(RECORDED)
    assert len(points) == len([row for row in STORE.rows(RECORDED) if row.status is RowStatus.OK])
    for ours in points:
        assert ours.keys() <= {*theirs, *LABELS}
        for key in ours.keys() & theirs.keys() - {"image"}:
            assert type(ours[key]) is type(theirs[key]), key
        assert (ours["hw"], ours["framework"], ours["weights"], ours["evidence"]) == (
            "h100", "vllm", "random", "measured"
        )  # fmt: skip
        assert ours["tput_per_gpu"] == pytest.approx(ours["output_tput_per_gpu"] + ours["input_tput_per_gpu"])
        assert ours["joules_per_output_token"] * ours["output_tput_per_gpu"] == pytest.approx(
            ours["avg_power_w"], rel=1e-3
        )
        assert ours["median_tpot"] * ours["median_intvty"] == pytest.approx(1)


def test_a_recorded_row_comes_back_with_its_figures_and_its_random_weights(tmp_path: Path) -> None:
    rows = {row.row_id: row for row in STORE.rows(RECORDED)}
    for ours in points_of(RECORDED)[:3]:
        path = tmp_path / f"agg_{ours['row_id']}.json"
        path.write_text(json.dumps(ours))
        reported = inferencex.read(read_file(path)).reported[0]
        study, config = compose_study(reported, [])
        _, back = records(reported, study, config, 0, None)
        own = rows[ours["row_id"]]
        same = ("model", "hardware", "num_gpus", "engine", "engine_version", "concurrency", "isl_tokens", "osl_tokens",
                "weights", "boundary", "energy_evidence", "output_tokens", "input_tokens", "num_completed")  # fmt: skip
        assert {name: getattr(back, name) for name in same} == {name: getattr(own, name) for name in same}
        figures = ("output_tokens_per_joule", "total_tokens_per_joule", "output_tokens_per_s", "power_w", "window_s",
                   "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "e2e_p99_s")  # fmt: skip
        for name in figures:
            assert getattr(back, name) == pytest.approx(getattr(own, name), rel=1e-4), name
        assert (back.origin, back.reasons) == ("imported", (Reason.DUMMY_WEIGHTS,))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"status": RowStatus.INVALID, "reasons": (Reason.NOT_STEADY,)}, "invalid (not_steady)"),
        ({"throughput_evidence": Evidence.MODELLED}, "its tokens are modelled"),
        ({"num_gpus": 0}, "it is of no GPU"),
        ({"num_gpus": 4}, "engines are apart"),
        ({"concurrency": None, "request_rate_per_s": 2.0}, "an open loop"),
        ({"input_tokens": None, "total_tokens_per_joule": None}, "tokens/s are not known"),
    ],
)
def test_what_is_no_point_says_why(columns: dict[str, Any], said: str) -> None:
    measured = {
        "config_json": '{"precision.weights":"fp4"}',
        "output_tokens_per_s": 100.0,
        "input_tokens": 900,
        "window_s": 10.0,
        "concurrency": 8,
    }
    assert why_not(make_row(**measured)) is None
    assert said in str(why_not(make_row(**measured | columns)))
