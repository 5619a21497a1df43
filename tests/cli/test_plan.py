"""`tpw plan` says what a sweep would do and starts nothing."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.cli.plan import grouped_reasons, plan
from pipeline.cli.second_opinion import reason
from pipeline.errors import ConfigError
from tests.search.stand_in_aiconfigurator import make_stand_in


def planned(capsys: pytest.CaptureFixture[str], overrides: Sequence[str]) -> str:
    plan(list(overrides))
    return capsys.readouterr().out


def test_it_counts_configs_and_gives_every_reason(capsys: pytest.CaptureFixture[str]) -> None:
    said = planned(capsys, ["model=gpt-oss-120b", "rig=modelled", "hardware=h100", "engine.knobs=null"])
    assert "NOTHING IS MEASURED" in said
    assert "gpt-oss-120b has no bf16 weights" in said
    found = re.search(r"configs: (\d+) feasible, (\d+) excluded", said)
    assert found
    assert int(found[1]) > 0
    assert sum(int(count) for count in re.findall(r"^ +(\d+)  \w", said, flags=re.MULTILINE)) == int(found[2])


def test_its_bill_is_trials_times_starts_and_loads(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["search.budget_trials=4", "workload.concurrency=[1,16]", "plan.warmup_s=1", "plan.window_s=8.7"]
    said = planned(capsys, [*overrides, "plan.warmup_max_s=2"])
    hours = 4 * (2.5 + 2 * (1 + 8.7 + 0.3)) / 3600
    assert f"= {hours:.2f} h" in said
    assert "kWh" in said


@pytest.mark.parametrize(("budget_s", "loads_s"), [("null", 60.0), ("25", 25.0), ("1", 10.0)])
def test_the_bill_of_an_adaptive_ladder_is_about(
    capsys: pytest.CaptureFixture[str], budget_s: str, loads_s: float
) -> None:
    plan = ["plan.warmup_s=1", "plan.window_s=8.7", "plan.warmup_max_s=2", "search.budget_trials=100"]
    said = planned(capsys, [*plan, "search.ladder=adaptive", f"search.ladder_budget_s={budget_s}"])
    found = re.search(r"(\d+) trials x \(start 2.5 s \+ about 6 loads x 10 s.*\) = (\S+) h", said)
    assert found
    assert float(found[2]) == pytest.approx(int(found[1]) * (2.5 + loads_s) / 3600, abs=0.006)


def test_a_space_that_is_drawn_from_says_so_and_what_a_precision_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.space.NUM_DRAWS", 500)
    said = planned(capsys, ["model=gpt-oss-120b", "rig=modelled", "hardware=b200", "space=full"])
    assert re.search(r"configs: \S+e\+\d+ combinations, too many to list; \d+ feasible ones among", said)
    assert "openai/gpt-oss-120b: mxfp4 weights, mxfp8 activations, bf16 KV cache" in said


def test_it_shows_both_opinions_where_there_are_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(make_stand_in(tmp_path)))
    monkeypatch.setenv("COLUMNS", "160")
    overrides = ["model=gpt-oss-120b", "rig=modelled", "hardware=b200", "batching=default", "engine.knobs=null"]
    alone = planned(capsys, overrides)
    both = planned(capsys, [*overrides, f"search.aiconfigurator_python={sys.executable}"])
    assert set(alone.splitlines()) <= set(both.splitlines())
    assert "by ours and by aiconfigurator 0.12.0 (trtllm 1.3.0rc20), watts ours" in both
    assert re.search(r"aiconfigurator / ours, median of \d+ loads: tok/s [\d.]+, TTFT [\d.]+, TPOT [\d.]+", both)
    assert re.search(r"at all loads of \d+ of \d+ settings, most often: perf database error: MoE data missing", both)


def test_a_reason_is_told_without_its_sizes() -> None:
    assert reason("MoE data missing for MoeKey { quant: 1 }") == "MoE data missing for MoeKey"
    assert reason("OOM: it does not fit (tp=1, pp=1). Try more") == "OOM: it does not fit"


def test_an_image_that_a_sweep_would_refuse_is_refused_here_too() -> None:
    with pytest.raises(ConfigError, match=r"engine\.image=trtllm:latest"):
        plan(["engine.runtime=docker", "engine.image=trtllm:latest"])


def test_reasons_that_differ_in_numbers_only_are_one_line() -> None:
    reasons = Counter(
        {"ep=4 does not divide tp=2": 3, "no bf16 weights": 5, "ep=8 does not divide tp=2": 4, "no fp8": 1}
    )
    assert grouped_reasons(reasons) == [
        ("ep=8 does not divide tp=2 (and 1 more with other numbers)", 7), ("no bf16 weights", 5), ("no fp8", 1),
    ]  # fmt: skip
