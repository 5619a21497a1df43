"""`tpw repeatability`: the engine is really started afresh, and what is stored is reported without measuring."""

import json
from pathlib import Path

import pytest

from pipeline.store import Store
from pipeline.vocabulary import TrialStatus
from tests.builders import make_row
from tests.cli.command import tpw
from tests.cli.test_measure import start


def test_fresh_starts_are_measured_and_reported_from_their_rows(tmp_path: Path) -> None:
    words = ("engine.knobs.num_threads=2", "plan.starts=2", "plan.windows=2")
    measuring = start(*words, folder=tmp_path, command="repeatability")
    out, err = measuring.communicate(timeout=120)
    assert (measuring.returncode, err) == (0, ""), out + err
    store = Store(tmp_path)
    trials, rows = store.trials("test"), store.rows("test")
    assert [(trial.status, trial.num_rows) for trial in trials] == [(TrialStatus.OK, 2)] * 2
    assert len({trial.start_s for trial in trials}) == 2  # two starts, not one told twice
    assert len({row.host_id for row in rows}) == len({row.case_id for row in rows}) == 1
    assert "test: 2 trials at most" in out

    reported = tpw("repeatability", "--report", "--results", tmp_path)
    assert (reported.status, reported.err) == (0, "")
    assert reported.out.strip() in out
    told = tpw("repeatability", "--report", "--json", "--results", tmp_path)
    (case,) = json.loads(told.out)["cases"]
    assert (case["window"]["num_units"], case["start"]["num_units"], case["visit"]["num_units"]) == (4, 2, 1)
    assert (case["visit"]["sd"], case["visit"]["df"]) == (None, 0)
    assert case["evidence"] == "estimated"
    assert case["mean"] > 0
    assert tpw("verify", "--results", tmp_path).status == 0


def test_the_report_alone_takes_no_settings_and_needs_rows(tmp_path: Path) -> None:
    tpw("repeatability", "--report", "plan.starts=2", "--results", tmp_path).assert_refused(
        2, "plan.starts=2 has no use"
    )
    tpw("repeatability", "--report", "--results", tmp_path).assert_refused(2, f"--results={tmp_path}: holds no row")
    tpw("repeatability", f"results_dir={tmp_path}").assert_refused(2, "one configuration is measured")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_rows", [1, 2])
def test_what_is_not_known_is_null_in_json(tmp_path: Path, num_rows: int) -> None:
    for number in range(num_rows):
        Store(tmp_path).append(make_row(trial_id="one", host_id="here", output_tokens_per_joule=1.0 + 0.01 * number))
    (case,) = json.loads(tpw("repeatability", "--report", "--json", "--results", tmp_path).out)["cases"]
    assert case["start"]["sd"] is case["visit"]["sd"] is case["is_start_sd_reached"] is None
    assert (case["window"]["sd"] is None) == (num_rows == 1)
