"""`tpw plan` says what a sweep would do and starts nothing."""

import re
from collections import Counter
from collections.abc import Sequence

import pytest

from pipeline.cli.plan import grouped_reasons, plan
from pipeline.errors import ConfigError


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


def test_a_space_that_is_drawn_from_says_so_and_what_a_precision_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.space.NUM_DRAWS", 500)
    said = planned(capsys, ["model=gpt-oss-120b", "rig=modelled", "hardware=b200", "space=full"])
    assert re.search(r"configs: \S+e\+\d+ combinations, too many to list; \d+ feasible ones among", said)
    assert "openai/gpt-oss-120b: mxfp4 weights, mxfp8 activations, bf16 KV cache" in said


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
