"""How far answers are apart: bounds that hold, and tokens compared only where the text before them is the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.answers import Answer
from pipeline.quality.compare import kl_divergence, listed_share, logprob_change, lumped_kl, token_agreement


def answer(tokens: str, logprob: float = -0.1) -> Answer:
    return Answer(
        text=tokens, prompt_tokens=1, num_tokens=len(tokens), tokens=tuple(tokens),
        logprobs=tuple({token: logprob} for token in tokens),
    )  # fmt: skip


def text_only(text: str) -> Answer:
    return Answer(text=text, prompt_tokens=1, num_tokens=len(text))


def test_nothing_after_the_first_difference_counts() -> None:
    found = token_agreement([answer("abcd"), answer("abcd")], [answer("abcd"), answer("axcd")])
    assert (found.value, found.num_tokens) == (5 / 6, 6)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 5 / 6 < found.high < 1


def test_an_answer_that_ends_sooner_differs_where_it_ends() -> None:
    assert token_agreement([answer("abcd")], [answer("ab")]).value == 2 / 3


def test_equal_answers_leave_a_doubt_that_shrinks_with_their_number() -> None:
    lows = [token_agreement([answer("ab")] * n, [answer("ab")] * n).low or 0 for n in (1, 10, 100)]
    assert lows == sorted(lows)
    assert 0.3 < lows[0] < 0.5
    assert lows[-1] < 1


def test_without_tokens_the_text_is_compared_by_its_characters() -> None:
    found = token_agreement([text_only("abcdefgh")], [text_only("abcdxxxx")])
    assert (found.value, found.num_tokens) == (4 / 5, 5)
    assert token_agreement([text_only("ab")], [text_only("ab")]).value == 1
    assert kl_divergence([text_only("ab")], [text_only("ab")]).value is None


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 12))
def test_lumping_never_adds_divergence(seed: int, size: int, listed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size))
    full = float(np.sum(p * np.log(p / q)))
    tops = [
        {str(token): math.log(dist[token]) for token in np.argsort(-dist)[:listed] if dist[token] > 0}
        for dist in (p, q)
    ]
    found = lumped_kl(*tops)
    if found is not None:
        assert 0 <= found <= full + 1e-6
    if listed >= size:
        assert found == pytest.approx(full, abs=1e-6)


def test_the_divergence_of_equal_answers_is_none_and_that_of_others_has_an_interval() -> None:
    same = kl_divergence([answer("abc")] * 5, [answer("abc")] * 5)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    other = [answer("abc", logprob) for logprob in (-0.2, -0.3, -0.4, -0.5, -0.6)]
    found = kl_divergence([answer("abc")] * 5, other)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high
    change = logprob_change([answer("abc")] * 5, other)
    assert change.value == pytest.approx(0.3)
    assert listed_share([answer("abc")], [answer("abc")]) == pytest.approx(math.exp(-0.1))
