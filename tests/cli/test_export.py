import json
from pathlib import Path

from pipeline.store import Store
from tests.builders import make_row, make_trial
from tests.cli.command import tpw
from tests.test_optuna_journal import RESULTS, read


def test_a_recorded_study_is_written_once(tmp_path: Path) -> None:
    out = tmp_path / "journal.log"
    said = tpw("export", "optuna", "h100-llama-3.1-8b", "--out", out, "--results", RESULTS)
    assert (said.status, said.err) == (0, "")
    assert said.out == f"{out}: 5 trials; look at them with: optuna-dashboard {out}\n"
    assert len(read(out).trials) == 5
    written = out.read_bytes()
    again = tpw("export", "optuna", "h100-llama-3.1-8b", "--out", out, "--results", RESULTS)
    again.assert_refused(2, f"--out={out}: is there already; name another file")
    assert out.read_bytes() == written


def test_an_unknown_study_or_tool_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "journal.log"
    tpw("export", "optuna", "h100-lama-3.1-8b", "--out", out, "--results", RESULTS).assert_refused(
        2, "study 'h100-lama-3.1-8b': unknown (did you mean 'h100-llama-3.1-8b'?); there are: "
    )
    tpw("export", "optuna", "any", "--out", out, "--results", tmp_path).assert_refused(2, "holds no study")
    tpw("export", "optunna", "h100-llama-3.1-8b", "--out", out).assert_refused(
        2, "tpw export optunna: unknown (did you mean 'optuna'?); allowed: optuna, inferencex"
    )
    tpw("export", "optuna", "h100-llama-3.1-8b", "--results", RESULTS).assert_refused(2, "--out")
    assert not out.exists()


def test_a_study_without_a_complete_trial_says_so(tmp_path: Path) -> None:
    Store(tmp_path).append(make_row(study_id="begun"))
    said = tpw("export", "optuna", "begun", "--out", tmp_path / "journal.log", "--results", tmp_path)
    said.assert_refused(1, "study begun: no trial is complete yet")


def test_a_recorded_study_becomes_points_of_inferencex(tmp_path: Path) -> None:
    out = tmp_path / "points"
    said = tpw("export", "inferencex", "h100-llama-3.1-8b", "--out", out, "--results", RESULTS)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{out}: 13 points, 13 with measured power\nleft out, 4 x: invalid (not_steady)\n")
    files = sorted(out.iterdir())
    assert len(files) == 13
    assert {json.loads(path.read_text())["conc"] for path in files} == {8, 32, 64, 256}
    again = tpw("export", "inferencex", "h100-llama-3.1-8b", "--out", out, "--results", RESULTS)
    again.assert_refused(2, f"--out={out}: is there already")
    assert sorted(out.iterdir()) == files


def test_a_study_without_a_point_of_inferencex_says_why(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(make_row(study_id="mine", concurrency=None, config_json='{"precision.weights":"fp4"}'))
    store.append(make_trial(study_id="mine", trial_id="trial"))
    said = tpw("export", "inferencex", "mine", "--out", tmp_path / "points", "--results", tmp_path)
    said.assert_refused(2, "study mine: no row is a point of InferenceX: 1 x an open loop has no concurrency")
    assert not (tmp_path / "points").exists()
