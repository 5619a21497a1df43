import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import tpw

RESULTS = Path(__file__).parents[2] / "results"
SWEEP = "h100-llama-3.1-8b"


def test_a_recorded_screening_is_chosen_from_and_says_that_it_is_one() -> None:
    said = tpw("choose", SWEEP, "--ttft-s", 0.2, "--results", RESULTS)
    assert (said.status, said.err) == (0, "")
    for part in (
        "evidence=measured, boundary=gpu,", "weights=random", "slo=custom (ttft_p99_s=0.2)", "chosen for now, by ",
        "runner-up: [", "+20.2 % tokens/J on it (95 %: ", "Pareto front", "mind: screening only: one start",
        "load 256 was tried and has no valid row (not_steady)", "the fresh starts that would decide it: tpw sweep ",
        "what mattered: 3 configs",
    ):  # fmt: skip
        assert part in said.out, part


def test_a_demand_adds_the_fleet_and_its_cost() -> None:
    demand = ("--requests-per-s", 50, "--profile", f"1{',0.01' * 23}")
    prices = ("--usd-per-device-h", 2, "--usd-per-kwh", 0.1, "--pue", 1.2)
    said = tpw("choose", SWEEP, *demand, *prices, "--results", RESULTS)
    assert (said.status, said.err) == (0, "")
    parts = ("replicas", "kWh a day", "tok/s per MW", "PUE 1.2 x $0.1/kWh", "per million", "hardware.idle_power_w")
    assert [part for part in parts if part not in said.out] == []


def test_json_is_the_decision_and_nothing_else() -> None:
    said = tpw("choose", SWEEP, "--json", "--tokens-per-s", 20000, "--results", RESULTS)
    found = json.loads(said.out)
    assert (said.status, found["schema_version"], found["basis"]) == (0, 1, "screening")
    assert found["fleet"]["replicas"] * found["fleet"]["capacity_output_tokens_per_s"] >= 20000
    assert len(found["fleet"]["hours"]) == 24
    assert found["winner"]["rendered_hash"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["h100-lama-3.1-8b"], ["unknown (did you mean 'h100-llama-3.1-8b'?)"]),
        (["h100-*"], ["rows differ in model", "--where model="]),
        (["h100-repeat-llama-3.1-8b-seed2-dcc91ecf"], ["no valid row", "throttled_thermal (2)"]),
        ([SWEEP, "--ttft-s", "0.01"], ["no measured config meets it; nearest is [", "4.81 times"]),
        ([SWEEP, "--tpot-s", "nan"], ["slo.tpot_p99_s=nan"]),
        ([SWEEP, "--slo", "fast"], ["slo=fast: unknown"]),
        ([SWEEP, "--tokens-per-s", "-5"], ["--tokens-per-s=-5.0", "above 0"]),
        ([SWEEP, "--tokens-per-s", "9e5", "--max-devices", "8"], ["--max-devices=8", "ask for less"]),
        ([SWEEP, "--tokens-per-s", "9", "--profile", "no.csv"], ["--profile=no.csv: cannot be read"]),
        ([SWEEP, "--percentile", "p95"], ["p95"]),
        ([SWEEP, "--rendered", "x"], ["--rendered=x: of which bundle?"]),
        ([SWEEP, "--where", "weights"], ["write KEY=VALUE"]),
        (
            [SWEEP, "--max-devices", "8", "--usd-per-device-h", "2"],
            ["--max-devices, --usd-per-device-h: of which demand?"],
        ),
        ([SWEEP, "--out", "never"], ["weights=random", "--allow-random-weights"]),
    ],
)
def test_bad_input_is_one_line(args: list[str], parts: list[str]) -> None:
    tpw("choose", *args, "--results", RESULTS).assert_refused(2, *parts)
    assert not Path("never").exists()


def test_what_was_chosen_becomes_a_bundle_that_verifies_and_needs_its_traces(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "production" / "chat"
    for kind in ("trials", "traces"):
        shutil.copytree(RESULTS / kind / f"study={SWEEP}", results / kind / f"study={SWEEP}")
    args = ("choose", SWEEP, "--allow-random-weights", "--json", "--results", results)
    said = tpw(*args, "--out", out)
    assert said.status == 0
    written, decision = json.loads((out / "decision.json").read_text()), json.loads(said.out)
    assert written.pop("bundle")["headline"]["row_ids"] == decision["winner"]["row_ids"]
    assert written == decision
    checked = tpw("verify", out, "--results", results)
    assert (checked.status, decision["winner"]["rendered_hash"] in checked.out) == (0, True)
    again = tpw(*args[:3], *args[4:], "--out", out)  # the same start again, for a person
    assert (again.status, again.out.splitlines()[-1]) == (
        0, f"written: {out}; whether its answers hold was not checked: tpw quality candidate={out} reference=",
    )  # fmt: skip
    assert "screening only" in (out / "README.md").read_text()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes").touch()
    tpw(*args, "--out", tmp_path / "taken").assert_refused(2, "exists and is no bundle")
    shutil.rmtree(results / "traces")
    tpw(*args, "--out", tmp_path / "other").assert_refused(2, "missing or not the trace", "tpw verify")
    assert not (tmp_path / "other").exists()
