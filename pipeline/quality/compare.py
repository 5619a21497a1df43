"""How far a candidate's greedy answers are from a reference's, with intervals.

Two greedy answers to one prompt have the same text before them up to and with their first different token: only there
do they say something of the models, and only there are they compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.quality.answers import Answer

NUM_RESAMPLES = 2000
SMALLEST = 1e-9
"""Least probability of what a list leaves out: rounded log-probabilities may add up to more than 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval, over so many tokens; None where nothing could be compared."""

    value: float | None
    low: float | None
    high: float | None
    num_tokens: int


def token_agreement(reference: Sequence[Answer], candidate: Sequence[Answer]) -> Estimate:
    """Share of greedy tokens that agree, among those with the same text before them.

    Each is a trial that ends its answer where it fails; the likelihood is the binomial's, and so is the interval:
    Wilson, JASA 22 (1927) 209, which says something where no token differs, too.
    """
    pairs = [_agreed(one, other) for one, other in zip(reference, candidate, strict=True)]
    agreed, compared = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    if compared == 0:
        return Estimate(value=None, low=None, high=None, num_tokens=0)
    span = stats.binomtest(agreed, compared).proportion_ci(0.95, method="wilson")
    return Estimate(value=agreed / compared, low=float(span.low), high=float(span.high), num_tokens=compared)


def kl_divergence(reference: Sequence[Answer], candidate: Sequence[Answer]) -> Estimate:
    """Mean Kullback-Leibler divergence of the candidate's next token from the reference's, nats a token.

    A bound from below: servers list a few tokens, so what both list is told apart and the rest is lumped together, and
    that never adds divergence (Cover and Thomas, Elements of Information Theory, theorem 2.7.1, log sum inequality).
    The interval is a percentile bootstrap over prompts, whose tokens are not independent of one another.
    """
    by_prompt = []
    for one, other in zip(reference, candidate, strict=True):
        pairs = list(zip(one.logprobs, other.logprobs, strict=False))[: _agreed(one, other)[1]]
        values = [lumped_kl(p, q) for p, q in pairs]
        by_prompt.append([value for value in values if value is not None])
    return _bootstrapped(by_prompt)


def _bootstrapped(by_prompt: Sequence[Sequence[float]]) -> Estimate:
    """Mean over all values, prompts drawn again for its interval; always the same draws."""
    sums, counts = np.array([sum(values) for values in by_prompt]), np.array([len(values) for values in by_prompt])
    if counts.sum() == 0:
        return Estimate(value=None, low=None, high=None, num_tokens=0)
    drawn = np.random.default_rng(0).integers(len(sums), size=(NUM_RESAMPLES, len(sums)))
    tokens = counts[drawn].sum(axis=1)
    means = sums[drawn].sum(axis=1)[tokens > 0] / tokens[tokens > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(
        value=float(sums.sum() / counts.sum()), low=float(low), high=float(high), num_tokens=int(counts.sum())
    )


def listed_share(reference: Sequence[Answer], candidate: Sequence[Answer]) -> float | None:
    """Mean probability of the tokens that the divergence tells apart, by the reference; None where there are none."""
    masses = [
        sum(math.exp(p[token]) for token in p.keys() & q.keys())
        for one, other in zip(reference, candidate, strict=True)
        for p, q in list(zip(one.logprobs, other.logprobs, strict=False))[: _agreed(one, other)[1]]
    ]
    return sum(masses) / len(masses) if masses else None


def logprob_change(reference: Sequence[Answer], candidate: Sequence[Answer]) -> Estimate:
    """Mean absolute change of the log-probability of the greedy tokens on which both agree, nats.

    The interval is a percentile bootstrap over prompts.
    """
    by_prompt = []
    for one, other in zip(reference, candidate, strict=True):
        same = list(zip(one.tokens, one.logprobs, other.logprobs, strict=False))[: _agreed(one, other)[0]]
        by_prompt.append([abs(q[token] - p[token]) for token, p, q in same])
    return _bootstrapped(by_prompt)


def lumped_kl(p: Mapping[str, float], q: Mapping[str, float]) -> float | None:
    """Divergence of q from p over the tokens that both list and all others as one; None if they share none.

    Args:
        p: Log-probabilities of the reference's likeliest tokens, nats.
        q: Those of the candidate's.
    """
    shared = p.keys() & q.keys()
    if not shared:
        return None
    rest_p, rest_q = (max(SMALLEST, 1 - sum(math.exp(each[token]) for token in shared)) for each in (p, q))
    listed = sum(math.exp(p[token]) * (p[token] - q[token]) for token in sorted(shared))
    return max(0.0, listed + rest_p * math.log(rest_p / rest_q))


def _agreed(one: Answer, other: Answer) -> tuple[int, int]:
    """Tokens that agree, and tokens compared. By characters where a server does not tell its tokens."""
    if not (one.tokens and other.tokens):
        return _agreed_by_text(one, other)
    pairs = list(zip(one.tokens, other.tokens, strict=False))
    agreed = next((place for place, pair in enumerate(pairs) if pair[0] != pair[1]), len(pairs))
    # An answer that ends where the other goes on differs in its end-of-text token, which is not listed.
    return agreed, agreed + (agreed < len(pairs) or len(one.tokens) != len(other.tokens))


def _agreed_by_text(one: Answer, other: Answer) -> tuple[int, int]:
    if one.text == other.text:
        return one.num_tokens, one.num_tokens
    pairs = zip(one.text, other.text, strict=False)
    same = next((place for place, pair in enumerate(pairs) if pair[0] != pair[1]), min(len(one.text), len(other.text)))
    agreed = one.num_tokens * same // max(1, len(one.text), len(other.text))
    return agreed, agreed + 1
