import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.load.sequence import VOCAB_RANGE, Request, Sequence
from tests.load.workloads import sequence

LENGTHS = st.integers(min_value=2, max_value=300)
RATIOS = st.floats(min_value=0.01, max_value=1.0)
SEEDS = st.integers(min_value=0, max_value=2**31)
INDICES = st.integers(min_value=0, max_value=10**6)
PAIRS = st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=20).map(tuple)

EVER = 10**7
"""All requests of a test are in a first wave of this size."""


def of_pairs(pairs: tuple[tuple[int, int], ...], **other: Any) -> Sequence:
    longest = max(isl for isl, _ in pairs), max(osl for _, osl in pairs)
    return dataclasses.replace(sequence(*longest), pairs=pairs, **other)


def values(request: Request) -> tuple[int, list[int], int, int]:
    return request.index, request.prompt.tolist(), request.osl_tokens, request.age_tokens


@given(seed=SEEDS, index=INDICES, num_first_wave=st.sampled_from([0, EVER]))
def test_request_is_the_same_whenever_and_wherever_it_is_drawn(seed: int, index: int, num_first_wave: int) -> None:
    wanted = sequence(20, 20, seed=seed, num_first_wave=num_first_wave)
    first = values(wanted.request(index))
    wanted.request(index + 1)
    assert values(wanted.request(index)) == first
    assert values(pickle.loads(pickle.dumps(wanted)).request(index)) == first  # noqa: S301
    assert first[0] == index


def test_requests_do_not_depend_on_the_order_they_are_drawn_in() -> None:
    forwards = [values(sequence().request(index)) for index in range(50)]
    backwards = [values(sequence().request(index)) for index in reversed(range(50))]
    assert forwards == backwards[::-1]


def test_requests_and_seeds_differ() -> None:
    prompts = {tuple(sequence(seed=seed).request(index).prompt.tolist()) for seed in range(10) for index in range(10)}
    assert len(prompts) == 100, "prompts that repeat would be served from a prefix cache"


@given(isl=LENGTHS, osl=LENGTHS, ratio=RATIOS, index=INDICES)
def test_lengths_stay_in_range(isl: int, osl: int, ratio: float, index: int) -> None:
    drawn = sequence(isl, osl, ratio).request(index)
    assert max(1, round(ratio * isl)) <= len(drawn.prompt) <= isl
    assert max(1, round(ratio * osl)) <= drawn.osl_tokens <= osl
    assert drawn.age_tokens == 0


def test_length_range_is_inclusive_at_both_ends_and_level() -> None:
    drawn = [sequence(10, 10, 0.8).request(index) for index in range(3000)]
    for lengths in ([len(r.prompt) for r in drawn], [r.osl_tokens for r in drawn]):
        found, counts = np.unique(lengths, return_counts=True)
        assert found.tolist() == [8, 9, 10]
        assert counts == pytest.approx([1000, 1000, 1000], abs=5 * np.sqrt(3000 * 2 / 9))


def test_lengths_of_prompt_and_output_are_independent() -> None:
    drawn = [sequence(200, 200, 0.2).request(index) for index in range(2000)]
    correlation = np.corrcoef([len(r.prompt) for r in drawn], [r.osl_tokens for r in drawn])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(2000)


@given(isl=LENGTHS, osl=LENGTHS, ratio=RATIOS, index=INDICES, vocab_size=st.integers(500, 200_000))
def test_prompts_avoid_both_ends_of_the_vocabulary(
    isl: int, osl: int, ratio: float, index: int, vocab_size: int
) -> None:
    drawn = sequence(isl, osl, ratio, vocab_size=vocab_size, num_first_wave=EVER).request(index)
    assert drawn.prompt.min() >= round(VOCAB_RANGE[0] * vocab_size) > 0
    assert drawn.prompt.max() < round(VOCAB_RANGE[1] * vocab_size) < vocab_size


@given(isl=LENGTHS, osl=LENGTHS, ratio=RATIOS, index=INDICES)
def test_first_wave_moves_tokens_from_the_output_to_the_prompt(isl: int, osl: int, ratio: float, index: int) -> None:
    drawn = sequence(isl, osl, ratio, num_first_wave=EVER).request(index)
    assert drawn.osl_tokens >= 1
    assert drawn.age_tokens >= 0
    assert max(1, round(ratio * isl)) <= len(drawn.prompt) - drawn.age_tokens <= isl
    assert max(1, round(ratio * osl)) <= drawn.osl_tokens + drawn.age_tokens <= osl
    assert len(drawn.prompt) + drawn.osl_tokens <= isl + osl, "the longest context that the engine was started for"


def test_only_the_first_wave_has_an_age() -> None:
    ages = [sequence(osl_tokens=100, num_first_wave=20).request(index).age_tokens for index in range(60)]
    assert sum(age > 0 for age in ages[:20]) > 10
    assert not any(ages[20:])


def test_first_wave_sees_long_requests_more_often() -> None:
    wanted = sequence(osl_tokens=100, length_ratio_min=0.2, num_first_wave=EVER)
    drawn = [wanted.request(index) for index in range(5000)]
    lengths = np.arange(20, 101)
    expected = (lengths**2).sum() / lengths.sum()
    observed = [r.osl_tokens + r.age_tokens for r in drawn]
    assert np.mean(observed) == pytest.approx(expected, abs=5 * np.std(observed) / np.sqrt(5000))


@given(pairs=PAIRS, index=INDICES, num_first_wave=st.sampled_from([0, EVER]))
def test_lengths_of_a_file_come_in_its_pairs(
    pairs: tuple[tuple[int, int], ...], index: int, num_first_wave: int
) -> None:
    drawn = of_pairs(pairs, num_first_wave=num_first_wave).request(index)
    assert (len(drawn.prompt) - drawn.age_tokens, drawn.osl_tokens + drawn.age_tokens) in pairs
    assert drawn.osl_tokens >= 1


@given(pairs=PAIRS, index=INDICES)
def test_a_schedule_takes_the_lines_of_its_file_in_order_and_starts_over(
    pairs: tuple[tuple[int, int], ...], index: int
) -> None:
    drawn = of_pairs(pairs, is_in_line_order=True).request(index)
    assert (len(drawn.prompt), drawn.osl_tokens) == pairs[index % len(pairs)]


def test_lines_of_a_file_are_equally_likely_and_in_the_first_wave_as_likely_as_they_are_long() -> None:
    pairs, num_drawn = ((1, 10), (2, 20), (3, 70)), 3000
    for num_first_wave, weights in ((0, np.ones(3) / 3), (EVER, np.array([0.1, 0.2, 0.7]))):
        drawn = [of_pairs(pairs, num_first_wave=num_first_wave).request(index) for index in range(num_drawn)]
        counts = np.bincount([len(r.prompt) - r.age_tokens for r in drawn], minlength=4)[1:]
        assert np.all(abs(counts - num_drawn * weights) < 5 * np.sqrt(num_drawn * weights * (1 - weights)))


@given(isl=LENGTHS, prefix=LENGTHS, seed=SEEDS, index=INDICES)
def test_prompts_share_their_prefix_and_the_rest_is_what_it_is_without(
    isl: int, prefix: int, seed: int, index: int
) -> None:
    alone = sequence(isl, 6, 1.0, seed=seed)
    sharing = dataclasses.replace(alone, shared_prefix_tokens=prefix)
    first, second = sharing.request(index).prompt.tolist(), sharing.request(index + 1).prompt.tolist()
    assert first[:prefix] == second[:prefix]
    assert first[prefix:] == alone.request(index).prompt.tolist()[prefix:]


def test_shared_prefixes_of_two_seeds_differ() -> None:
    prompts = [sequence(50, 6, 1.0, seed=seed, shared_prefix_tokens=50).request(0).prompt for seed in (1, 2)]
    assert np.mean(prompts[0] == prompts[1]) < 0.5


@pytest.mark.parametrize("pairs", [None, ((2, 10), (2, 30), (2, 50))], ids=["uniform", "pairs"])
def test_load_is_stationary_from_the_first_token(pairs: tuple[tuple[int, int], ...] | None) -> None:
    """Mean age and rate of completions of many slots, one token per step, are level from the start.

    Without the first wave's ages all slots would start at age 0 and finish together.
    """
    num_slots, num_steps = 3000, 80
    lengths = np.arange(20, 41) if pairs is None else np.array([osl for _, osl in pairs])
    wanted = sequence(2, int(lengths.max()), 0.5, pairs=pairs, num_first_wave=num_slots)
    drawn = [wanted.request(slot) for slot in range(num_slots)]
    ages = np.array([r.age_tokens for r in drawn])
    left = np.array([r.osl_tokens for r in drawn])
    sent, mean_ages, num_completed = num_slots, [], []
    for _ in range(num_steps):
        mean_ages.append(ages.mean())
        ages, left = ages + 1, left - 1
        (done,) = np.nonzero(left == 0)
        for slot in done:
            ages[slot], left[slot] = 0, wanted.request(sent).osl_tokens
            sent += 1
        num_completed.append(len(done))
    mean_age = (lengths * (lengths - 1) / 2).sum() / lengths.sum()
    rate = num_slots / lengths.mean()
    assert mean_ages == pytest.approx([mean_age] * num_steps, abs=5 * lengths.max() / np.sqrt(12 * num_slots))
    assert num_completed == pytest.approx([rate] * num_steps, abs=5 * np.sqrt(rate))


@given(index=st.integers(0, 40), limit=st.integers(30, 80))
def test_only_prompts_of_the_first_wave_are_cut_and_nothing_else_changes(index: int, limit: int) -> None:
    wave = {"isl_tokens": 30, "osl_tokens": 60, "num_first_wave": 20}
    whole = sequence(**wave).request(index)
    cut = sequence(**wave, max_prompt_tokens=limit).request(index)
    assert cut.prompt.tolist() == whole.prompt.tolist()[:limit]
    assert (cut.osl_tokens, cut.age_tokens) == (whole.osl_tokens, whole.age_tokens)
