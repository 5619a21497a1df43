import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.load.sequence import VOCAB_RANGE, Request, request
from pipeline.study import Workload
from tests.load.workloads import VOCAB_SIZE, workload

LENGTHS = st.integers(min_value=2, max_value=300)
RATIOS = st.floats(min_value=0.01, max_value=1.0)
SEEDS = st.integers(min_value=0, max_value=2**31)
INDICES = st.integers(min_value=0, max_value=10**6)


@given(seed=SEEDS, index=INDICES, first_wave=st.booleans())
def test_request_is_the_same_whenever_it_is_drawn(seed: int, index: int, first_wave: bool) -> None:
    wanted = workload(isl_tokens=20, osl_tokens=20, seed=seed)
    first = request(wanted, VOCAB_SIZE, index, first_wave=first_wave)
    request(wanted, VOCAB_SIZE, index + 1, first_wave=first_wave)
    assert request(wanted, VOCAB_SIZE, index, first_wave=first_wave) == first
    assert first.index == index


def test_requests_do_not_depend_on_the_order_they_are_drawn_in() -> None:
    forwards = [request(workload(), VOCAB_SIZE, index, first_wave=False) for index in range(50)]
    backwards = [request(workload(), VOCAB_SIZE, index, first_wave=False) for index in reversed(range(50))]
    assert forwards == backwards[::-1]


def test_requests_and_seeds_differ() -> None:
    prompts = {
        tuple(request(workload(seed=seed), VOCAB_SIZE, index, first_wave=False).prompt)
        for seed in range(10)
        for index in range(10)
    }
    assert len(prompts) == 100, "prompts that repeat would be served from a prefix cache"


@given(isl=LENGTHS, osl=LENGTHS, ratio=RATIOS, index=INDICES)
def test_lengths_stay_in_range(isl: int, osl: int, ratio: float, index: int) -> None:
    drawn = request(workload(isl, osl, ratio), VOCAB_SIZE, index, first_wave=False)
    assert max(1, round(ratio * isl)) <= len(drawn.prompt) <= isl
    assert max(1, round(ratio * osl)) <= drawn.osl_tokens <= osl
    assert drawn.age_tokens == 0


def test_length_range_is_inclusive_at_both_ends_and_level() -> None:
    wanted = workload(isl_tokens=10, osl_tokens=10, length_ratio_min=0.8)
    drawn = [request(wanted, VOCAB_SIZE, index, first_wave=False) for index in range(3000)]
    for lengths in ([len(r.prompt) for r in drawn], [r.osl_tokens for r in drawn]):
        values, counts = np.unique(lengths, return_counts=True)
        assert values.tolist() == [8, 9, 10]
        assert counts == pytest.approx([1000, 1000, 1000], abs=5 * np.sqrt(3000 * 2 / 9))


def test_lengths_of_prompt_and_output_are_independent() -> None:
    drawn = [request(workload(200, 200, 0.2), VOCAB_SIZE, index, first_wave=False) for index in range(2000)]
    correlation = np.corrcoef([len(r.prompt) for r in drawn], [r.osl_tokens for r in drawn])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(2000)


@given(isl=LENGTHS, osl=LENGTHS, ratio=RATIOS, index=INDICES, vocab_size=st.integers(500, 200_000))
def test_prompts_avoid_both_ends_of_the_vocabulary(
    isl: int, osl: int, ratio: float, index: int, vocab_size: int
) -> None:
    drawn = request(workload(isl, osl, ratio), vocab_size, index, first_wave=True)
    assert all(type(token) is int for token in drawn.prompt), "json knows no numpy integers"
    assert min(drawn.prompt) >= round(VOCAB_RANGE[0] * vocab_size) > 0
    assert max(drawn.prompt) < round(VOCAB_RANGE[1] * vocab_size) < vocab_size


@given(isl=LENGTHS, osl=LENGTHS, ratio=RATIOS, index=INDICES)
def test_first_wave_moves_tokens_from_the_output_to_the_prompt(isl: int, osl: int, ratio: float, index: int) -> None:
    wanted = workload(isl, osl, ratio)
    drawn = request(wanted, VOCAB_SIZE, index, first_wave=True)
    assert drawn.osl_tokens >= 1
    assert drawn.age_tokens >= 0
    assert max(1, round(ratio * isl)) <= len(drawn.prompt) - drawn.age_tokens <= isl
    assert max(1, round(ratio * osl)) <= drawn.osl_tokens + drawn.age_tokens <= osl
    assert len(drawn.prompt) + drawn.osl_tokens <= wanted.max_seq_len_tokens


def test_first_wave_sees_long_requests_more_often() -> None:
    wanted = workload(osl_tokens=100, length_ratio_min=0.2)
    drawn = [request(wanted, VOCAB_SIZE, index, first_wave=True) for index in range(5000)]
    lengths = np.arange(20, 101)
    expected = (lengths**2).sum() / lengths.sum()
    observed = [r.osl_tokens + r.age_tokens for r in drawn]
    assert np.mean(observed) == pytest.approx(expected, abs=5 * np.std(observed) / np.sqrt(5000))


def test_load_is_stationary_from_the_first_token() -> None:
    """Mean age and rate of completions of many slots, one token per step, are level from the start.

    Without the first wave's ages all slots would start at age 0 and finish together.
    """
    wanted, num_slots, num_steps = workload(isl_tokens=2, osl_tokens=40, length_ratio_min=0.5), 3000, 80
    drawn = [request(wanted, VOCAB_SIZE, slot, first_wave=True) for slot in range(num_slots)]
    ages = np.array([r.age_tokens for r in drawn])
    left = np.array([r.osl_tokens for r in drawn])
    sent, mean_ages, num_completed = num_slots, [], []
    for _ in range(num_steps):
        mean_ages.append(ages.mean())
        ages, left = ages + 1, left - 1
        (done,) = np.nonzero(left == 0)
        for slot in done:
            ages[slot], left[slot] = 0, _next(wanted, sent).osl_tokens
            sent += 1
        num_completed.append(len(done))
    lengths = np.arange(20, 41)
    mean_age = (lengths * (lengths - 1) / 2).sum() / lengths.sum()
    rate = num_slots / lengths.mean()
    assert mean_ages == pytest.approx([mean_age] * num_steps, abs=5 * 40 / np.sqrt(12 * num_slots))
    assert num_completed == pytest.approx([rate] * num_steps, abs=5 * np.sqrt(rate))


def _next(wanted: Workload, index: int) -> Request:
    return request(wanted, VOCAB_SIZE, index, first_wave=False)
