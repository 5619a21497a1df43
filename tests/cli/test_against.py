"""Our rows beside ML.ENERGY's as they come along, and beside imported points of InferenceX."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.against.side_by_side import Asked
from pipeline.cli.against import against
from pipeline.errors import ConfigError
from pipeline.record import Row
from pipeline.store import Store
from tests.builders import make_row
from tests.cli.command import tpw
from tests.importers.samples import DATA, changed

ROOT = Path(__file__).parents[2]


def printed(store: Store, tool: str, asked: Asked, capsys: pytest.CaptureFixture[str], *, as_json: bool = False) -> str:
    against(Console(width=160), store, tool, store.studies(), asked, as_json=as_json)
    return capsys.readouterr().out


def a_row(**columns: Any) -> Row:
    """A measured row of gpt-oss-120b on an H100."""
    return make_row(
        **{"model": "gpt-oss-120b", "hardware": "h100", "num_gpus": 1, "isl_tokens": 300, "osl_tokens": 1750,
           "config_json": '{"parallelism.tp":1,"precision.weights":"fp4"}', "concurrency": 32, "itl_p50_s": 0.016,
           "tpot_p50_s": 0.018, "power_w": 660.0, "output_tokens_per_s": 1980.0, "output_tokens_per_joule": 3.0,
           "study_id": "mine"} | columns
    )  # fmt: skip


def test_a_row_stands_beside_the_leaderboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    row = a_row()
    store.append(row)
    store.append(dataclasses.replace(row, study_id="copied"))
    said = json.loads(printed(store, "mlenergy", Asked(), capsys, as_json=True))
    assert all(len(each["row_ids"]) == 1 for each in said["placed"])
    by_gpus = {each["public_series"].split(" x ")[0]: each for each in said["placed"]}
    alone = by_gpus["1"]
    # Between batch 32 (1744.9 tok/s at 655.9 W, ITL 17.962 ms) and batch 16 (1191.4 tok/s at 609.9 W, 13.226 ms).
    assert 1 / 0.51188 < alone["public"]["output_tokens_per_joule"] < 1 / 0.37591
    assert alone["ratios"]["output_tokens_per_joule"] == pytest.approx(3.0 / alone["public"]["output_tokens_per_joule"])
    assert (alone["boundary"], alone["load"], said["refused"]) == ("gpu", "32", [])
    flat = " ".join(printed(store, "mlenergy", Asked(), capsys).split())
    assert "gpt-oss-120b fp4 on h100; ours: trtllm" in flat
    assert "ISL 300 (declared here, not published)" in flat
    assert "boundary=gpu: GPU boards, measured on both sides" in flat


def test_the_recorded_rows_say_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    store, asked = Store(ROOT / "results"), Asked(tolerance=3.2, allow_random_weights=True)
    against(Console(width=160), store, "mlenergy", ["h100-repeat-llama-3.1-8b-dcc91ecf"], asked)
    flat = " ".join(capsys.readouterr().out.split())
    assert "weights=random" in flat
    assert "1 x h100, vllm, tp=1, mlenergy_lm-arena-chat" in flat
    with pytest.raises(ConfigError, match="none of 8 rows has a public counterpart"):
        against(Console(), store, "mlenergy", ["h100-repeat-llama-3.1-8b-dcc91ecf"], Asked())
    assert "weights=random, theirs are trained: --allow-random-weights" in capsys.readouterr().out.replace("\n", " ")
    with pytest.raises(ConfigError, match="none of 8 rows has a public counterpart"):
        against(Console(), store, "mlenergy", ["h100-repeat-llama-3.1-8b-dcc91ecf"], Asked(), as_json=True)
    assert len(json.loads(capsys.readouterr().out)["refused"]) == 8


def test_points_of_inferencex_are_those_that_were_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    store.append(a_row(isl_tokens=1024, osl_tokens=1024, tpot_p50_s=0.0083))
    with pytest.raises(ConfigError, match=r"no point of it was imported; first: tpw import inferencex agg_\*\.json"):
        printed(store, "inferencex", Asked(), capsys)
    power = DATA / "inferencex_agg_power.json"
    halved = {name: json.loads(power.read_text())[name] / 2 for name in (
        "avg_power_w", "avg_total_gpu_power_w", "total_gpu_energy_j", "joules_per_output_token",
        "joules_per_input_token",
    )}  # fmt: skip
    slower = halved | {"conc": 16, "median_tpot": 0.01, "median_intvty": 100.0}
    assert tpw("import", power, changed(power, tmp_path, slower)).status == 0
    said = json.loads(printed(store, "inferencex", Asked(), capsys, as_json=True))
    (placed,) = said["placed"]
    assert 1.0107 < placed["public"]["output_tokens_per_joule"] < 2.0214
    assert len(placed["public_row_ids"]) == 2
    assert placed["public_series"] == "2 x h100, trtllm 1.3.0rc14, tp=2, inferencex_1024_1024"
    reasons = {each["reason"] for each in said["refused"]}
    assert reasons == {"origin=imported: it is no row of ours"}


@pytest.mark.parametrize(
    ("tool", "asked", "said"),
    [
        ("mlperf", Asked(), "against mlperf: unknown; allowed: inferencex, mlenergy"),
        ("mlenergy", Asked(tolerance=-1), "tolerance=-1"),
        ("mlenergy", Asked(tolerance=float("nan")), "tolerance=nan"),
    ],
)
def test_what_the_user_says_wrong_is_refused(tmp_path: Path, tool: str, asked: Asked, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        against(Console(), Store(tmp_path), tool, [], asked)
