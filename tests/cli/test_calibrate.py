"""`tpw calibrate`: from recorded rows to a file that predictions use."""

from pathlib import Path

from pipeline.roofline.calibration_file import read_calibration
from tests.cli.command import tpw

ROWS = ("--results", Path(__file__).parents[2] / "results")


def test_a_calibration_is_written_shown_and_used(tmp_path: Path) -> None:
    said = tpw("calibrate", "h100-llama-3.1-8b", *ROWS, "--out", tmp_path)
    assert said.status == 0, said.err
    (path,) = tmp_path.glob("*.json")
    calibration = read_calibration(path)
    assert "left out: 4 invalid (not_steady)" in said.out
    assert "moved from mlenergy-v3-" in said.out
    assert f"use it with calibration={path}" in said.out
    assert calibration.id in said.out
    plan = ("plan", "model=llama-3.1-8b", "hardware=h100", "rig=modelled", "engine=vllm")
    assert tpw(*plan).out.splitlines()[-1] != tpw(*plan, f"calibration={path}").out.splitlines()[-1]
    again = tpw("calibrate", "h100-llama-3.1-8b", *ROWS, "--out", tmp_path / "more", "--around", path)
    assert f"moved from {calibration.id}: " in again.out


def test_words_that_name_no_rows_are_refused(tmp_path: Path) -> None:
    tpw("calibrate", "h100-lama", *ROWS).assert_refused(2, "'h100-lama': no row and no study", "did you mean")
    tpw("calibrate", "x", "--results", tmp_path).assert_refused(2, "holds no study")
    tpw("calibrate", "h100-gpt-oss-120b", *ROWS).assert_refused(2, "1 usable rows (2 invalid (not_steady))")
    tpw("calibrate", "h100-llama-3.1-8b", *ROWS, "--around", tmp_path / "no.json").assert_refused(2, "cannot be read")


def test_a_calibration_that_is_not_there_is_refused_before_anything_is_predicted(tmp_path: Path) -> None:
    words = (
        "model=llama-3.1-8b",
        "hardware=h100",
        "rig=modelled",
        "engine=vllm",
        f"calibration={tmp_path / 'no.json'}",
    )
    for command in ("plan", "sweep"):
        tpw(command, *words, f"results_dir={tmp_path}").assert_refused(2, "no.json: cannot be read", "tpw calibrate")
