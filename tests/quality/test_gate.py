"""The gate on servers that run: what passes, what fails, what cannot be said, and servers with faults."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.quality.gate import check
from pipeline.quality.record import Finding, QualityResult, Verdict, append_result, judged, latest_for, read_results
from pipeline.quality.settings import QualitySettings, load_settings
from pipeline.quality.side import Side
from pipeline.repeat import only_config
from tests.builders import make_study, with_axes
from tests.cli.command import tpw
from tests.quality.stand_in_server import Model, serving


@pytest.fixture
def settings(tmp_path: Path) -> QualitySettings:
    path = tmp_path / "few.txt"
    path.write_text("".join(f"prompt {number} of twelve\n" for number in range(12)))
    return replace(load_settings(()), max_tokens=12, prompts=str(path))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def sides(stack: ExitStack, candidate: Model, reference: Model | None = None) -> tuple[Side, Side]:
    models = {"candidate": candidate, "reference": reference or Model()}
    own, other = (Side(role=role, name=role, url=stack.enter_context(serving(model))) for role, model in models.items())
    return own, other


def verdicts(result: QualityResult) -> dict[str, Verdict | None]:
    return {finding.metric: finding.verdict for finding in result.findings}


def test_a_candidate_that_answers_alike_passes(stack: ExitStack, settings: QualitySettings) -> None:
    result = check(*sides(stack, Model(noise=0.01)), settings)
    assert result.verdict is Verdict.PASS
    assert set(verdicts(result).values()) == {Verdict.PASS, None}
    assert {finding.num_prompts for finding in result.findings} == {12}


def test_a_candidate_that_answers_otherwise_fails(stack: ExitStack, settings: QualitySettings) -> None:
    result = check(*sides(stack, Model(noise=2.0)), settings)
    assert result.verdict is Verdict.FAIL
    assert verdicts(result)["greedy_token_agreement"] is Verdict.FAIL
    assert verdicts(result)["kl_divergence_nats"] is Verdict.FAIL
    assert verdicts(result)["greedy_token_agreement_of_reference_with_itself"] is None


def test_what_lists_little_of_its_probability_cannot_pass_by_it(stack: ExitStack, settings: QualitySettings) -> None:
    """A bound from below that leaves most of the distribution out is small for anything."""
    flat = replace(settings, logprobs=1)
    result = check(*sides(stack, Model(), Model()), flat)
    assert verdicts(result)["kl_divergence_nats"] in {Verdict.PASS, Verdict.UNDECIDED}
    body = {"choices": [{"text": "x", "logprobs": {"tokens": ["x"], "token_logprobs": [-6.0], "top_logprobs": None}}]}
    result = check(*sides(stack, Model(body=body), Model(body=body)), flat)
    assert verdicts(result)["kl_divergence_nats"] is Verdict.UNDECIDED
    assert result.verdict is Verdict.UNDECIDED
    assert any("may fail a candidate and not pass one" in note for note in result.findings[0].notes)


@pytest.mark.parametrize(("max_logprobs", "asked"), [(20, 5), (1, 1), (None, None), (0, None)])
def test_fewer_log_probabilities_are_taken_where_a_server_gives_fewer(
    stack: ExitStack, settings: QualitySettings, max_logprobs: int | None, asked: int | None
) -> None:
    candidate = Model(max_logprobs=max_logprobs)
    result = check(*sides(stack, candidate), settings)
    assert candidate.asked[-1].get("logprobs") == asked
    agreement, divergence = result.findings[:2]
    assert agreement.value == 1
    assert (divergence.value is None) == (asked is None)
    assert any("gives no log-probabilities" in note for note in agreement.notes) == (asked is None)
    if asked is None:
        assert (divergence.verdict, result.verdict) == (Verdict.UNDECIDED, Verdict.UNDECIDED)


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (Model(status=500), "answers HTTP 500 to a completion: .*as it was told"),
        (Model(status=503, fails_from=5), "answers HTTP 503"),
        (Model(status=404), "answers HTTP 404"),
        (Model(delay_s=1.0), r"no answer within quality.timeout_s=0.2"),
        (Model(body={"choices": []}), "its answer is no completion"),
        (Model(body=b"<html>"), "its answer is no completion"),
        (Model(extra_prompt_tokens=1), "its tokenizer is not that of reference"),
    ],
    ids=["fails", "fails later", "refuses", "hangs", "empty", "html", "tokenizer"],
)
def test_a_server_that_does_not_answer_as_asked_is_said(
    stack: ExitStack, settings: QualitySettings, candidate: Model, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        check(*sides(stack, candidate), replace(settings, timeout_s=0.2 if candidate.delay_s else 10))


def test_models_and_kinds_of_weights_are_not_mixed(settings: QualitySettings) -> None:
    study = make_study()
    side = Side(role="candidate", name="one", study=study, config=only_config(with_axes(study)))
    for key, changed in {
        "weights=random": replace(study, weights="checkpoint"),
        "weights_seed=0": replace(study, weights_seed=1),
        "model.name=tiny-llama": replace(study, model=replace(study.model, name="other")),
    }.items():
        with pytest.raises(ConfigError, match=f"candidate=one: {key}, reference=two has"):
            check(side, replace(side, role="reference", name="two", study=changed), settings)


def test_a_result_is_kept_and_found_by_what_was_started(tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "tool_version": "0",
        "check": "data_free",
        "metric": "m",
        "candidate": "c",
        "reference": "r",
    }
    for number, rendered in enumerate(("one", "two", "one")):
        finding = Finding(
            **common, quality_id=f"q{number}", started_utc=f"2026-01-0{number + 1}", candidate_rendered_hash=rendered
        )
        append_result(tmp_path, QualityResult(findings=(finding, replace(finding, metric="n", value=0.5))))
    results = read_results(tmp_path)
    assert [result.quality_id for result in results] == ["q0", "q1", "q2"]
    found = latest_for(results, "one")
    assert found is not None
    assert (found.quality_id, found.findings[1].value) == ("q2", 0.5)
    assert latest_for(results, "three") is None
    (tmp_path / "quality" / "quality-bad.parquet").write_bytes(b"no")
    with pytest.raises(StoreError, match=r"quality-bad.parquet: holds no quality check .*; restore or move it away"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.96, 0.99, Verdict.PASS),
        (0.90, 0.94, Verdict.FAIL),
        (0.9, 0.99, Verdict.UNDECIDED),
        (None, None, Verdict.UNDECIDED),
    ],
)
def test_a_bound_is_met_where_the_whole_interval_says_so(
    low: float | None, high: float | None, verdict: Verdict
) -> None:
    assert judged(low, high, at_least=0.95) is verdict
    turned = None if high is None else 1 - high, None if low is None else 1 - low
    assert judged(*turned, at_most=0.05) is verdict


# --- the command


def test_the_command_says_passes_and_stores(stack: ExitStack, tmp_path: Path) -> None:
    own, other = sides(stack, Model(noise=0.01))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"word number {number} of many words\n" for number in range(30)))
    words = [f"candidate={own.url}", f"reference={other.url}", f"results_dir={tmp_path}", f"quality.prompts={prompts}"]
    said = tpw("quality", *words, "quality.max_tokens=12")
    assert (said.status, said.err) == (0, "")
    (stored,) = read_results(tmp_path)
    assert f"pass: {tmp_path}/quality/quality-{stored.quality_id}.parquet" in said.out.replace("\n", "")
    assert {finding.num_prompts for finding in stored.findings} == {30}
    said = tpw("quality", *words, "quality.max_tokens=12", "quality.max_kl_nats=0", "--json")
    assert said.status == 1
    assert '"verdict": "fail"' in said.out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["candidate=: name it"]),
        (["candidate=x"], ["reference=: name it"]),
        (["candidate=nobody", "reference=nobody"], ["candidate=nobody: is nothing known", "a YAML file of a config"]),
        (["candidate=missing.yaml", "reference=x"], ["candidate=missing.yaml: cannot be read"]),
        (["candidate=http://127.0.0.1:9", "reference=http://127.0.0.1:9"], ["reference=http://127.0.0.1:9:"]),
        (["candidate=x", "reference=x", "quality.max_tokens=0"], ["quality.max_tokens=0"]),
        (["candidate=x", "reference=x", "quality.max_tokns=1"], ["quality.max_tokns: unknown key", "max_tokens"]),
        (["candidate=x", "reference=x", "quality.lm_eval_tasks=[a]"], ["lm_eval_python and lm_eval_tasks go together"]),
        (
            ["candidate=http://127.0.0.1:9", "reference=http://127.0.0.1:9", "quality.prompts=none.txt"],
            ["quality.prompts=none.txt: cannot be read"],
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(tmp_path: Path, words: list[str], parts: list[str]) -> None:
    tpw("quality", *words, f"results_dir={tmp_path}").assert_refused(2, *parts)
