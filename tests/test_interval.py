import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from bench.coverage import measure
from pipeline.interval import (
    MAX_AUTOCORRELATION,
    MIN_BLOCK_S,
    MIN_BLOCKS,
    Interval,
    block_energies_j,
    num_base_blocks,
    relative_interval,
)

BLOCKS = st.lists(st.tuples(st.integers(0, 1000), st.floats(1, 100)), min_size=1, max_size=70)


def known(found: Interval | None) -> Interval:
    assert found is not None
    return found


def unzipped(blocks: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [tokens for tokens, _ in blocks], [energy_j for _, energy_j in blocks]


def white(count: int, seed: int) -> tuple[list[float], list[float]]:
    """Blocks of 100 tokens and 50 J with 5 % and 1 % of independent noise."""
    rng = np.random.default_rng(seed)
    return (100 + 5 * rng.standard_normal(count)).tolist(), (50 + 0.5 * rng.standard_normal(count)).tolist()


def autocorrelation(values: list[float]) -> float:
    mean = statistics.fmean(values)
    return sum((a - mean) * (b - mean) for a, b in pairwise(values)) / sum((a - mean) ** 2 for a in values)


def test_the_interval_of_uncorrelated_blocks_is_the_one_of_the_textbook() -> None:
    tokens = [101.0, 102.0, 100.0, 105.0, 105.0, 97.0, 101.0, 101.0]
    found = known(relative_interval(tokens, [10.0] * 8))
    assert found.autocorrelation == pytest.approx(autocorrelation(tokens))
    assert -MAX_AUTOCORRELATION < found.autocorrelation < -1 / 8  # nothing to adjust for
    t_975_df7 = 2.3646243
    assert found.rel_ci95 == pytest.approx(
        t_975_df7 * statistics.stdev(tokens) / statistics.fmean(tokens) / math.sqrt(8)
    )
    assert found.num_blocks == 8


def test_what_correlation_is_left_widens_the_interval() -> None:
    tokens = [101.0, 105, 105, 102, 95, 97, 103, 100, 105, 102, 104, 95, 98, 102, 101, 99]
    found = known(relative_interval(tokens, [1.0] * 16))
    assert found.num_blocks == 16
    assert found.autocorrelation == pytest.approx(autocorrelation(tokens))
    assert 0 < found.autocorrelation < MAX_AUTOCORRELATION
    p = (16 * found.autocorrelation + 1) / 12
    plain = stats.t.ppf(0.975, 15) * statistics.stdev(tokens) / statistics.fmean(tokens) / 4
    assert found.rel_ci95 == pytest.approx(plain * math.sqrt((1 + p) / (1 - p)))


def test_alike_neighbours_are_merged_remembered_and_none_is_lost() -> None:
    tokens = [105.0, 105, 100, 100, 103, 103, 103, 103, 100, 100, 99, 99, 102, 102, 95, 95, 101]
    found = known(relative_interval(tokens, [1.0] * 17))
    q = (17 * autocorrelation(tokens) + 1) / 13
    merged = [sum(tokens[n : n + 2]) / sum(tokens) - 2 / 17 for n in range(0, 14, 2)]
    merged.append(sum(tokens[14:]) / sum(tokens) - 3 / 17)
    assert found.num_blocks == 8
    assert found.autocorrelation == pytest.approx(autocorrelation(merged))
    p = q * (1 + q) / 2
    plain = stats.t.ppf(0.975, 7) * statistics.stdev(merged) * math.sqrt(8)
    assert found.rel_ci95 == pytest.approx(plain * math.sqrt((1 + p) / (1 - p)))


@given(BLOCKS)
def test_an_interval_rests_on_enough_blocks_that_are_not_alike(blocks: list[tuple[int, float]]) -> None:
    found = relative_interval(*unzipped(blocks))
    if found:
        assert MIN_BLOCKS <= found.num_blocks <= len(blocks)
        assert abs(found.autocorrelation) < MAX_AUTOCORRELATION
        assert 0 <= found.rel_ci95 < math.inf


@given(BLOCKS, st.integers(-8, 8), st.integers(-8, 8))
def test_units_do_not_matter(blocks: list[tuple[int, float]], tokens_power: int, energies_power: int) -> None:
    tokens, energies_j = unzipped(blocks)
    scaled = [2.0**tokens_power * n for n in tokens], [2.0**energies_power * value for value in energies_j]
    assert relative_interval(*scaled) == relative_interval(tokens, energies_j)


@given(st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_no_factor_matters(seed: int, factor: float) -> None:
    tokens, energies_j = white(64, seed)
    found = relative_interval(tokens, energies_j)
    scaled = relative_interval(tokens, [factor * value for value in energies_j])
    assert (found is None) is (scaled is None)
    if found and scaled:
        assert scaled.num_blocks == found.num_blocks
        assert scaled.rel_ci95 == pytest.approx(found.rel_ci95)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 100)), min_size=8, max_size=15))
def test_the_direction_of_time_does_not_matter(blocks: list[tuple[int, int]]) -> None:
    tokens, energies_j = unzipped([(n, float(value)) for n, value in blocks])
    found, reversed_ = relative_interval(tokens, energies_j), relative_interval(tokens[::-1], energies_j[::-1])
    assume(found is not None)
    assert known(reversed_).rel_ci95 == pytest.approx(known(found).rel_ci95, abs=1e-9)


@given(st.lists(st.floats(1, 100), min_size=8, max_size=70), st.floats(0.01, 100))
def test_tokens_in_proportion_to_energy_leave_no_doubt(energies_j: list[float], per_joule: float) -> None:
    assert known(relative_interval([per_joule * value for value in energies_j], energies_j)).rel_ci95 < 1e-9


@pytest.mark.parametrize(
    ("tokens", "energies_j"),
    [
        ([], []),
        ([100.0] * 7, [50.0] * 7),
        ([0.0] * 64, [50.0] * 64),
        ([100.0] * 64, [0.0] * 64),
        ([float(n) for n in range(64)], [50.0] * 64),
        ([90.0, 110.0] * 4, [50.0] * 8),
    ],
)
def test_an_interval_is_unknown_without_counts_without_blocks_or_with_alike_ones(
    tokens: list[float], energies_j: list[float]
) -> None:
    assert relative_interval(tokens, energies_j) is None


@pytest.mark.parametrize(
    ("series", "window_s", "least", "most"),
    [("white", 20, 0.91, 0.99), ("ar(0.6)", 60, 0.92, 1.0), ("sawtooth", 60, 0.93, 1.0)],
)
def test_the_whole_procedure_holds_the_truth_as_often_as_it_says(
    series: str, window_s: int, least: float, most: float
) -> None:
    found = measure(series, window_s, repeats=300)
    assert isinstance(found["coverage"], float)
    assert least < found["coverage"] <= most
    assert found == measure(series, window_s, repeats=300)


@given(st.floats(0.01, 2000))
def test_base_blocks_are_no_shorter_than_two_ticks_and_merge_evenly(window_s: float) -> None:
    count = num_base_blocks(window_s)
    assert 1 <= count <= 64
    assert count * MIN_BLOCK_S <= window_s or count == 1
    if count >= MIN_BLOCKS:
        assert count in {8, 16, 32, 64}
        assert count == 64 or 2 * count * MIN_BLOCK_S > window_s


@pytest.mark.parametrize(
    ("window_s", "count"), [(300, 64), (20, 64), (12.8, 64), (12, 32), (2.4, 8), (1.5, 7), (0.1, 1)]
)
def test_how_many_base_blocks_a_plan_gets(window_s: float, count: int) -> None:
    assert num_base_blocks(window_s) == count


@given(
    st.lists(st.tuples(st.integers(1, 100), st.floats(0, 50)), min_size=2, max_size=30),
    st.integers(1, 10),
    st.floats(0, 0.4),
    st.floats(0.6, 1),
)
def test_block_energies_are_positive_and_sum_to_the_counter(
    gaps: list[tuple[int, float]], num_blocks: int, start: float, end: float
) -> None:
    ticks, t_ns, energy_j = [], 0, 1e9
    for gap_ns, joules in gaps:
        ticks.append((t_ns, energy_j))
        t_ns, energy_j = t_ns + gap_ns, energy_j + joules
    ticks.append((t_ns, energy_j))
    blocks = block_energies_j(ticks, 0, t_ns, num_blocks)
    assert len(blocks) == num_blocks
    assert min(blocks) >= 0
    assert sum(blocks) == pytest.approx(energy_j - 1e9, abs=1e-4)
    t0_ns, t1_ns = round(start * t_ns), round(end * t_ns)
    inside = block_energies_j(ticks, t0_ns, t1_ns, num_blocks)
    (whole,) = block_energies_j(ticks, t0_ns, t1_ns, 1)
    assert sum(inside) == pytest.approx(whole, abs=1e-4)


def test_block_energies_interpolate_between_ticks() -> None:
    assert block_energies_j([(0, 5.0), (10, 25.0), (20, 25.0)], 0, 20, 4) == pytest.approx([10, 10, 0, 0])


def test_block_energies_are_exact_however_long_the_machine_has_run() -> None:
    t0_ns = 200 * 86_400 * 1_000_000_000 + 1
    ticks = [(t0_ns + 3 * n, 1e9 + n) for n in range(9)]
    assert block_energies_j(ticks, t0_ns, t0_ns + 24, 8) == pytest.approx([1.0] * 8)
