"""The quality gate: ask reference and candidate the same, one after the other, and judge the differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.quality.answers import Answer, Endpoint, ask_all, supported_logprobs
from pipeline.quality.compare import Estimate, kl_divergence, listed_share, logprob_change, token_agreement
from pipeline.quality.lm_eval import Score, ratio, run_lm_eval
from pipeline.quality.record import Finding, QualityResult, Verdict, judged
from pipeline.quality.settings import QualitySettings, read_prompts
from pipeline.quality.side import Side, Started, serving, shared_facts
from pipeline.store import new_id

NO_LOGPROBS = (
    "{}: gives no log-probabilities: tokens are told apart by the characters of the text, divergence is unknown"
)
RANDOM = "weights=random: what random weights answer hangs on the last bit; the check is exercised, the model is not"


MIN_LISTED_SHARE = 0.5
"""Of half of the probability or less, a small divergence says little."""

LITTLE_LISTED = (
    "the listed tokens hold {:.2g} of the probability: the divergence between them bounds the whole from below, so it "
    "may fail a candidate and not pass one"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examined:
    """What one side answered.

    Attributes:
        started: What it was.
        answers: To the prompts.
        again: The same prompts asked once more; empty for the candidate.
        notes: What was not to be had.
        scores: lm-eval's.
        lm_eval_version: Of lm-eval; None where it was not run.
    """

    started: Started
    answers: tuple[Answer, ...]
    again: tuple[Answer, ...]
    notes: tuple[str, ...]
    scores: tuple[Score, ...]
    lm_eval_version: str | None


def check(
    candidate: Side, reference: Side, settings: QualitySettings, report: Callable[[str], None] = lambda _: None
) -> QualityResult:
    """Compare a candidate with a reference.

    The reference is asked twice: how far it agrees with itself is how far anything can.

    Raises:
        ConfigError: If models, weights or tokenizers differ, or a side does not start or does not answer.
        EngineError: If an engine is not to be had here.
        MeterError: If GPUs cannot be read.
    """
    quality_id, started, prompts = new_id(), datetime.now(UTC).isoformat(timespec="seconds"), read_prompts(settings)
    facts = shared_facts(candidate, reference)
    other = _examine(reference, quality_id, prompts, settings, report, is_asked_again=True)
    own = _examine(candidate, quality_id, prompts, settings, report, is_asked_again=False)
    _check_tokenizers(candidate, own.answers, reference, other.answers)
    notes = (*other.notes, *own.notes, *([RANDOM] if facts.get("weights") == "random" else []))
    common: dict[str, Any] = {
        "quality_id": quality_id, "started_utc": started, "tool_version": __version__,
        **candidate.columns(own.started), **reference.columns(other.started), **facts,
    }  # fmt: skip
    findings = [*_data_free(own, other, settings, common, notes), *_tasks(own, other, settings, common)]
    return QualityResult(findings=tuple(findings))


def _examine(
    side: Side,
    quality_id: str,
    prompts: Sequence[str],
    settings: QualitySettings,
    report: Callable[[str], None],
    *,
    is_asked_again: bool,
) -> _Examined:
    with serving(side, quality_id, settings.timeout_s, report) as started:
        endpoint = started.endpoint
        logprobs = supported_logprobs(endpoint, prompts[0], settings.logprobs) if settings.logprobs else None
        asked = [_ask(side, endpoint, prompts, logprobs, settings, report) for _ in range(1 + is_asked_again)]
        scores, version = list[Score](), None
        if settings.lm_eval_python is not None:
            report(f"lm-eval asks the {side.role}")
            scores, version = run_lm_eval(endpoint, settings)
    return _Examined(
        started=started,
        answers=asked[0],
        again=asked[1] if is_asked_again else (),
        notes=() if logprobs else (NO_LOGPROBS.format(f"{side.role}={side.name}"),),
        scores=tuple(scores),
        lm_eval_version=version,
    )


def _ask(
    side: Side,
    endpoint: Endpoint,
    prompts: Sequence[str],
    logprobs: int | None,
    settings: QualitySettings,
    report: Callable[[str], None],
) -> tuple[Answer, ...]:
    report(f"asking the {side.role} {len(prompts)} prompts")
    return ask_all(endpoint, prompts, settings.max_tokens, logprobs, settings.concurrency)


def _check_tokenizers(candidate: Side, own: Sequence[Answer], reference: Side, other: Sequence[Answer]) -> None:
    for number, (one, two) in enumerate(zip(own, other, strict=True), start=1):
        if None not in {one.prompt_tokens, two.prompt_tokens} and one.prompt_tokens != two.prompt_tokens:
            raise ConfigError(
                f"candidate={candidate.name}: its tokenizer is not that of reference={reference.name}: prompt {number} "
                f"has {one.prompt_tokens} tokens there and {two.prompt_tokens} here; compare configs of one model"
            )


def _data_free(
    own: _Examined, other: _Examined, settings: QualitySettings, common: dict[str, Any], notes: Sequence[str]
) -> list[Finding]:
    def finding(metric: str, found: Estimate, **judgement: Any) -> Finding:
        return Finding(
            **common, check="data_free", metric=metric, value=found.value, low=found.low, high=found.high,
            num_prompts=len(own.answers), num_tokens=found.num_tokens, notes=tuple(notes), **judgement,
        )  # fmt: skip

    pair = other.answers, own.answers
    agreement, divergence, share = token_agreement(*pair), kl_divergence(*pair), listed_share(*pair)
    least, most = settings.min_token_agreement, settings.max_kl_nats
    verdict = judged(divergence.low, divergence.high, at_most=most)
    if verdict is Verdict.PASS and (share is None or share < MIN_LISTED_SHARE):
        verdict, notes = Verdict.UNDECIDED, (*notes, LITTLE_LISTED.format(share or 0.0))
    return [
        finding(
            "greedy_token_agreement", agreement,
            threshold=least, verdict=judged(agreement.low, agreement.high, at_least=least),
        ),
        finding(
            "kl_divergence_nats", divergence,
            threshold=most, verdict=verdict,
        ),
        finding("mean_absolute_logprob_change_nats", logprob_change(*pair)),
        finding("greedy_token_agreement_of_reference_with_itself", token_agreement(other.answers, other.again)),
    ]  # fmt: skip


def _tasks(own: _Examined, other: _Examined, settings: QualitySettings, common: dict[str, Any]) -> list[Finding]:
    theirs = {(score.task, score.metric): score for score in other.scores}
    findings = []
    for score in own.scores:
        reference = theirs.get((score.task, score.metric))
        if reference is None:
            continue
        value, low, high = ratio(score, reference)
        unsaid = ("the reference scores 0: there is no ratio to it",) if value is None else ()
        findings.append(
            Finding(
                **common, check="lm_eval", metric=f"{score.task} {score.metric}", value=value, low=low, high=high,
                threshold=settings.min_accuracy_ratio,
                verdict=judged(low, high, at_least=settings.min_accuracy_ratio),
                reference_value=reference.value, candidate_value=score.value, num_prompts=score.num_samples,
                notes=(f"lm-eval {own.lm_eval_version}; value is candidate / reference", *unsaid),
            )
        )  # fmt: skip
    return findings
