"""ML.ENERGY's leaderboard: its JSON and our CSV are the same points; what is no point is rejected alone."""

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.importers import mlenergy
from pipeline.importers.foreign_file import read_file
from pipeline.importers.reported import Read
from tests.importers.samples import DATA, changed

JSON = DATA / "mlenergy_openai__gpt-oss-120b__gpqa.json"


def leaderboard(path: Path) -> Read:
    return mlenergy.read(read_file(path))


def test_a_configuration_is_read_in_our_units() -> None:
    read = leaderboard(JSON)
    assert (len(read.reported), read.rejected) == (5, ())
    found, content = read.reported[0], json.loads(JSON.read_text())["configurations"][0]
    assert (found.model, found.weights, found.hardware) == ("openai/gpt-oss-120b", "fp4", "h100")
    assert (found.engine, found.engine_version, found.gpu_name) == ("vllm", None, None)
    assert found.power_w == content["avg_power_watts"]
    assert found.output_tokens_per_joule == pytest.approx(found.output_tokens_per_s / content["avg_power_watts"])
    assert found.latencies_s["itl_p50_s"] == pytest.approx(content["median_itl_ms"] / 1000)
    assert set(found.latencies_s) == {"itl_p50_s", "itl_p99_s"}  # no TTFT, no TPOT
    assert (found.concurrency, found.num_in_flight) == (None, content["avg_batch_size"])
    assert (found.isl_tokens, found.isl_mean_tokens) == (300, None)
    assert "ISL: not published; 300 is declared for gpqa" in found.notes


def test_the_csv_that_comes_along_has_the_same_points() -> None:
    shipped = leaderboard(mlenergy.shipped())
    assert (len(shipped.reported), shipped.rejected) == (461, ())
    assert len({each.digest for each in shipped.reported}) == 461
    assert {each.digest for each in leaderboard(JSON).reported} <= {each.digest for each in shipped.reported}


def test_a_file_of_a_task_names_the_model_in_each_configuration(tmp_path: Path) -> None:
    content = json.loads(JSON.read_text())
    above = {key: content[key] for key in ("model_id", "weight_precision", "architecture")}
    flat = [each | each.pop("parallelization") | above for each in content["configurations"]]
    path = tmp_path / "gpqa.json"
    path.write_text(json.dumps({"task": "gpqa", "task_display_name": "GPQA Diamond", "configurations": flat}))
    assert [each.digest for each in leaderboard(path).reported] == [each.digest for each in leaderboard(JSON).reported]


def test_the_first_build_left_out_what_follows_from_the_rest(tmp_path: Path) -> None:
    content = json.loads(JSON.read_text())
    later = {"avg_power_watts", "avg_output_len", "p99_itl_ms", "parallelization"}
    early = [{key: each[key] for key in each.keys() - later} | {"model_id": content["model_id"]}
             for each in content["configurations"]]  # fmt: skip
    path = tmp_path / "gpqa.json"
    path.write_text(json.dumps({"task": "gpqa", "configurations": early}))
    read, full = leaderboard(path), leaderboard(JSON)
    assert (len(read.reported), read.rejected) == (5, ())
    for found, other in zip(read.reported, full.reported, strict=True):
        assert found.weights is None  # the checkpoint's name tells
        assert found.power_w == pytest.approx(other.power_w)
        assert found.osl_mean_tokens == pytest.approx(other.osl_mean_tokens)


def test_what_is_no_point_is_rejected_alone(tmp_path: Path) -> None:
    good, *others = json.loads(JSON.read_text())["configurations"]
    bad = [
        good | {"avg_power_watts": good["avg_power_watts"] / 1000},  # kilowatts
        {key: value for key, value in good.items() if key != "energy_per_token_joules"},
        good | {"gpu_model": None},
        good | {"median_itl_ms": "fast"},
        7,
    ]
    read = leaderboard(changed(JSON, tmp_path, {"configurations": [good, *bad]}))
    assert len(read.reported) == 1
    said = ("units in doubt: energy_per_token_joules x output", "it is not of tokens", "it has no gpu_model",
            "median_itl_ms='fast': is no number", "is no JSON object")  # fmt: skip
    assert [part for part, text in zip(said, read.rejected, strict=True) if part not in text] == []
    assert [text.partition("configurations")[2][:3] for text in read.rejected] == ["[1]", "[2]", "[3]", "[4]", "[5]"]
    assert others


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"models": {}, "tasks": []}))
    with pytest.raises(ConfigError, match=r"is not of ML\.ENERGY's leaderboard; give its public/data/models"):
        leaderboard(path)
