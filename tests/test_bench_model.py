import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from bench.model import POINTS, floor, leave_one_model_out, order, read_points
from pipeline.roofline.calibration import SHIPPED
from pipeline.roofline.fit import fit, summary

ROOT = Path(__file__).resolve().parents[1]


def test_the_published_points_are_met_as_the_document_says() -> None:
    points = read_points(POINTS)
    assert len(points.rows) == 381
    assert sum(points.left_out.values()) == 461 - 381
    inside, outside = points.measured.errors(SHIPPED), leave_one_model_out(points)
    assert outside is not None
    own, others = summary(inside), summary(outside)
    assert own.j_per_token.median <= 0.12
    assert others.j_per_token.median <= 0.18
    assert (order(points, inside)["rank_correlation_median"] or 0) >= 0.9
    assert 0 < (floor(points) or {})["median"] < own.j_per_token.median
    provenance = SHIPPED.provenance
    assert provenance is not None
    assert provenance.outside is not None
    assert provenance.num_points == len(points.rows)
    assert set(provenance.models) == set(points.rows["conf"])
    for stated, found in ((provenance.inside, own), (provenance.outside, others)):
        for quantity in ("tokens_per_s", "power_w", "j_per_token"):
            assert asdict(getattr(stated, quantity)) == pytest.approx(asdict(getattr(found, quantity)), abs=0.01)


def test_the_shipped_constants_are_those_of_the_file() -> None:
    measured = read_points(POINTS).measured
    again = measured.errors(fit(measured, "again"))
    for quantity, errors in measured.errors(SHIPPED).items():
        assert again[quantity] == pytest.approx(errors, abs=0.03), quantity


def test_only_series_of_one_gpu_that_wait_for_neither_memory_nor_arithmetic_are_left_out() -> None:
    points = read_points(POINTS)
    kept = points.rows[
        points.rows["conf"].isin(["qwen3-8b", "qwen3-14b", "qwen3-32b"]) & (points.rows["gpu"] == "B200")
    ]
    assert set(kept["task"]) == {"lm-arena-chat"}
    assert "gpqa" in set(points.rows["task"])


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.model", *args], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_any_file_with_these_columns_will_do_and_the_last_line_is_json(tmp_path: Path) -> None:
    lines = POINTS.read_text("utf-8").splitlines()
    some = [
        lines[0],
        *(line for line in lines[1:] if "gpt-oss" in line or "Llama-3.1-8B" in line or "Nemotron" in line),
    ]
    file = tmp_path / "points.csv"
    file.write_text("\n".join(some) + "\n", "utf-8")
    answer = run("--csv", str(file))
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout.splitlines()[-1])
    assert result["calibration"] == SHIPPED.id
    assert result["num_points"] == 59
    assert result["num_left_out"] == 56
    assert result["points_per_s"] > 0
    assert "no facts in conf/model" in answer.stdout


def test_a_file_that_is_not_there_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    absent = run("--csv", str(tmp_path / "nothing.csv"))
    assert absent.returncode == 2
    assert "there is no such file" in absent.stderr
    file = tmp_path / "short.csv"
    file.write_text("model,task\na,b\n", "utf-8")
    short = run("--csv", str(file))
    assert short.returncode == 2
    assert "lacks the columns" in short.stderr
    assert "avg_batch_size" in short.stderr


def test_two_points_of_one_model_are_told_apart_from_many_and_bad_lines_are_counted(tmp_path: Path) -> None:
    table = pd.read_csv(POINTS)
    table = table[table["model"].str.contains("Llama-3.1-8B") & (table["gpu"] == "H100")].head(7).reset_index(drop=True)
    table["gpu"] = table["gpu"].astype(object)
    table.loc[2, "gpu"] = "H20"
    table.loc[3, "avg_power_w_total"] = 0.0
    table.loc[4, "output_tokens_per_s"] = float("nan")
    table.loc[5, "avg_batch_size"] = 1e6
    table.loc[6, "weight_precision"] = "int3"
    table.to_csv(tmp_path / "few.csv", index=False)
    answer = run("--csv", str(tmp_path / "few.csv"))
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout.splitlines()[-1])
    assert (result["num_points"], result["leave_one_model_out"], result["floor_j_per_token"]) == (2, None, None)
    assert result["in_sample"]["rank_correlation_median"] is None
    for reason in (
        "H20: no facts in conf/hardware/h20.yaml", "avg_power_w_total is no positive number", "precision.weights=int3",
        "output_tokens_per_s is no positive number", "llama-3.1-8b on 1 x H100: the batch cannot fit their memory",
    ):  # fmt: skip
        assert f"left out: 1 {reason}" in answer.stdout


def test_a_file_without_a_usable_point_says_so(tmp_path: Path) -> None:
    lines = POINTS.read_text("utf-8").splitlines()
    file = tmp_path / "points.csv"
    file.write_text("\n".join([lines[0], *(line for line in lines if "Nemotron" in line)]) + "\n", "utf-8")
    answer = run("--csv", str(file))
    assert answer.returncode == 2
    assert "no point that the model can answer for" in answer.stderr
