"""`tpw suite`: what was picked is really measured again, and joins."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.config import load_study
from pipeline.repeat import only_config
from pipeline.store import Store
from pipeline.suite.suite import Member, Suite, write_suite
from tests.cli.command import tpw
from tests.cli.test_measure import ONE_CONFIG, REPO, SHORT

RESULTS = REPO / "results"


def test_a_suite_is_picked_from_recorded_rows(tmp_path: Path) -> None:
    said = tpw("suite", "pick", "nightly", "h100-llama-3.1-8b", "--out", tmp_path, "--results", RESULTS)
    assert (said.status, said.err) == (0, "")
    assert "(the winner)" in said.out
    assert "2 engine starts, stand for the 3 points of the front within 5 %" in said.out
    again = ("suite", "pick", "nightly", "h100-llama-3.1-8b", "--out", tmp_path, "--results", RESULTS)
    tpw(*again).assert_refused(2, "nightly.yaml: is there already")
    tpw("suite", "run", tmp_path / "nightly.yaml").assert_refused(2, "rig=served: no NVIDIA GPU is visible here")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    tpw("suite", "pick", "a/b", "--results", RESULTS).assert_refused(2, "suite 'a/b': use letters")
    tpw("suite", "pick", "a", "h100-llama-3.1-8b", "--tolerance", "5", "--results", RESULTS).assert_refused(
        2, "--tolerance=5", "write e.g. 3%"
    )
    tpw("suite", "run", tmp_path / "none.yaml").assert_refused(2, "none.yaml: cannot be read")


def test_a_suite_is_measured_afresh_and_its_rows_join(tmp_path: Path) -> None:
    shared = [word for word in SHORT if not word.startswith("workload.concurrency")]
    study = load_study([*ONE_CONFIG, *SHORT, "engine.knobs.num_threads=2"])
    config = only_config(study)
    (point,) = study.workload.ladder
    member = Member(
        config=config.requested(), config_hash=config.config_hash, loads=[2], case_ids=[study.case_id(config, point)]
    )
    path = write_suite(tmp_path, Suite(name="nightly", overrides=shared, members=[member]))
    argv = [sys.executable, "-m", "pipeline.cli.main", "suite", "run", str(path),
            f"results_dir={tmp_path}/results", f"engines_dir={tmp_path}/engines"]  # fmt: skip
    said = subprocess.run(
        argv, cwd=REPO, env=os.environ | {"COLUMNS": "160"}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (said.returncode, said.stderr) == (0, ""), said.stdout + said.stderr
    store = Store(tmp_path / "results")
    (name,) = store.studies()
    rows = store.rows(name)
    assert name == f"nightly-{config.config_hash[:8]}-{rows[0].engine_version}"
    assert [row.case_id for row in rows] == member.case_ids
    assert [trial.trial_id for trial in store.trials(name)] == [row.trial_id for row in rows]
