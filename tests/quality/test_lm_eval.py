"""lm-evaluation-harness: the file that it really wrote, its command line, and when it is not there."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.quality.answers import Endpoint
from pipeline.quality.lm_eval import Score, command, ratio, read_results, run_lm_eval
from pipeline.quality.settings import load_settings

RECORDED = Path(__file__).parent / "data" / "lm_eval_results.json"
ENDPOINT = Endpoint(side="candidate", url="http://127.0.0.1:9", model="m", timeout_s=5)
SETTINGS = replace(load_settings(()), lm_eval_python=sys.executable, lm_eval_tasks=("tiny_qa",))


def test_the_recorded_results_are_read() -> None:
    (score,), version = read_results(RECORDED)
    assert version == "0.4.13"
    assert score == Score(
        task="tiny_qa", metric="exact_match,none", value=0.75, stderr=0.09933992677987828, is_higher_better=True,
        num_samples=20,
    )  # fmt: skip


def test_the_ratio_has_the_doubt_of_both() -> None:
    (score,), _ = read_results(RECORDED)
    value, low, high = ratio(score, score)
    assert value == 1
    assert low is not None
    assert high is not None
    assert low < 1 - 1.96 * 0.0993 / 0.75 < 1 + 1.96 * 0.0993 / 0.75 < high
    half = replace(score, value=0.375)
    assert ratio(half, score)[0] == 0.5
    assert ratio(replace(half, is_higher_better=False), replace(score, is_higher_better=False))[0] == 2
    assert ratio(score, replace(score, value=0.0)) == (None, None, None)
    assert ratio(replace(score, stderr=None), score) == (1, None, None)


def test_all_samples_right_is_not_beyond_doubt() -> None:
    (score,), _ = read_results(RECORDED)
    perfect = replace(score, value=1.0, stderr=0.0)
    _, low, _ = ratio(perfect, perfect)
    assert low is not None
    assert low < 0.9  # twenty samples


def test_the_command_line_is_offline_and_names_local_tasks() -> None:
    argv = command(ENDPOINT, replace(SETTINGS, lm_eval_tasks_dir="/tasks", lm_eval_limit=5), "/out")
    assert argv[:5] == [sys.executable, "-m", "lm_eval", "--model", "local-completions"]
    assert "base_url=http://127.0.0.1:9/v1/completions" in argv[6]
    assert "tokenizer_backend=none" in argv[6]
    assert argv[7:] == ["--tasks", "tiny_qa", "--include_path", "/tasks", "--limit", "5", "--output_path", "/out"]
    with_tokenizer = command(ENDPOINT, replace(SETTINGS, lm_eval_tokenizer="/model"), "/out")
    assert "tokenizer_backend=huggingface,tokenizer=/model" in with_tokenizer[6]


def test_a_missing_harness_is_said_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No module named '?lm_eval'?; install it there by"):
        run_lm_eval(ENDPOINT, SETTINGS)
    with pytest.raises(ConfigError, match=r"cannot be run .*; give a Python that has lm-eval"):
        run_lm_eval(ENDPOINT, replace(SETTINGS, lm_eval_python=str(tmp_path / "none")))
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nsleep 5\n")
    slow.chmod(0o755)
    with pytest.raises(ConfigError, match="was not evaluated in time"):
        run_lm_eval(ENDPOINT, replace(SETTINGS, lm_eval_python=str(slow), lm_eval_timeout_s=0.1))


@pytest.mark.parametrize("text", ["", "{}", '{"results": {"t": {"alias": "t"}}}', '{"results": []}'])
def test_what_is_no_results_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ConfigError, match=r"no results file of lm-eval|holds no score"):
        read_results(tmp_path / "results.json")
