import dataclasses
import math
import statistics
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.load.protocol import RequestRecord
from pipeline.window import (
    LoadWindow,
    block_energies_j,
    drift,
    is_steady,
    percentile,
    relative_ci95,
    summarise,
)
from tests.builders import SECOND_NS, make_request

LATENCIES = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "e2e_p50_s", "e2e_p99_s")


def window(
    records: Sequence[RequestRecord], t0_s: float = 0, t1_s: float = 10, block_s: float = 1, concurrency: int = 1
) -> LoadWindow:
    return summarise(records, round(t0_s * SECOND_NS), round(t1_s * SECOND_NS), block_s, concurrency)


def paced(
    sent_s: float, gap_s: float, num_tokens: int, *, ended: bool = True, error: str | None = None
) -> RequestRecord:
    """A request that gets one token every `gap_s`."""
    return make_request(
        sent_s, [(sent_s + gap_s * (n + 1), n + 1) for n in range(num_tokens)], ended=ended, error=error
    )


@st.composite
def requests(draw: st.DrawFn) -> RequestRecord:
    """Any request whose life may touch [0, 30) ns: on so short a clock events fall on edges."""
    times = sorted(draw(st.lists(st.integers(0, 30), max_size=8)))
    steps = draw(st.lists(st.integers(1, 5), min_size=len(times), max_size=len(times)))
    failed = draw(st.booleans())
    return RequestRecord(
        index=0,
        isl_tokens=draw(st.integers(1, 50)),
        osl_tokens=10,
        sent_ns=draw(st.integers(0, times[0] if times else 30)),
        event_t_ns=times,
        event_tokens=[sum(steps[: n + 1]) for n in range(len(steps))],
        end_ns=times[-1] if times and not failed and draw(st.booleans()) else None,
        error="broken" if failed else None,
    )


UPTIMES_NS = (0, 200 * 86_400 * SECOND_NS)
"""Just booted, and so long ago that a double no longer tells neighbouring nanoseconds apart."""


@given(
    st.lists(requests(), max_size=12),
    st.lists(st.integers(0, 30), min_size=3, max_size=3, unique=True),
    st.sampled_from(UPTIMES_NS),
)
def test_what_is_counted_adds_up_over_adjacent_windows(
    records: list[RequestRecord], cuts: list[int], uptime_ns: int
) -> None:
    for record in records:
        record.sent_ns += uptime_ns
        record.event_t_ns = [t_ns + uptime_ns for t_ns in record.event_t_ns]
        record.end_ns = None if record.end_ns is None else record.end_ns + uptime_ns
    a, b, c = (uptime_ns + t_ns for t_ns in sorted(cuts))
    left, right, both = (summarise(records, t0, t1, 1e-8, 4) for t0, t1 in ((a, b), (b, c), (a, c)))
    for name in ("output_tokens", "input_tokens", "num_completed"):
        assert getattr(left, name) + getattr(right, name) == getattr(both, name)
    busy_ns = left.occupancy * (b - a) + right.occupancy * (c - b)
    assert busy_ns == pytest.approx(both.occupancy * (c - a), abs=1e-6)


@given(st.lists(requests(), max_size=12), st.integers(0, 20), st.integers(1, 30), st.integers(1, 40))
def test_block_tokens_sum_to_the_total_of_a_plain_count(
    records: list[RequestRecord], t0_ns: int, length_ns: int, num_blocks: int
) -> None:
    t1_ns = t0_ns + length_ns
    found = summarise(records, t0_ns, t1_ns, length_ns * 1e-9 / num_blocks, 4)
    expected = 0
    for record in records:
        before = 0
        for t_ns, tokens in zip(record.event_t_ns, record.event_tokens, strict=True):
            expected += (tokens - before) * (record.error is None and t0_ns <= t_ns < t1_ns)
            before = tokens
    assert found.output_tokens == sum(found.block_tokens) == expected
    assert len(found.block_tokens) == num_blocks
    assert all(tokens >= 0 for tokens in found.block_tokens)


@given(st.lists(requests(), max_size=8))
def test_failed_requests_contribute_nothing_but_their_number(records: list[RequestRecord]) -> None:
    failed = [dataclasses.replace(record, error="broken", end_ns=None) for record in records]
    good = [record for record in records if record.error is None]
    with_failed, without = (summarise(some, 0, 40, 1e-8, 4) for some in ([*good, *failed], good))
    assert with_failed == dataclasses.replace(without, num_failed=len(failed))


@given(st.lists(requests(), max_size=8))
def test_the_order_of_requests_does_not_matter(records: list[RequestRecord]) -> None:
    assert summarise(records, 3, 27, 1e-8, 4) == summarise(records[::-1], 3, 27, 1e-8, 4)


def test_edges_open_at_t0_and_close_before_t1() -> None:
    found = window([make_request(0, [(2, 1), (3, 3), (5, 7)])], t0_s=2, t1_s=5)
    assert found.output_tokens == 3
    assert found.input_tokens == 100
    assert found.num_completed == 0


def test_tokens_of_requests_in_flight_at_the_end_count() -> None:
    found = window([paced(8, 0.5, 20, ended=False)], t1_s=10)
    assert found.output_tokens == 3
    assert found.num_completed == 0
    assert found.osl_mean_tokens is None


def test_only_what_arrived_inside_counts_of_a_request_that_began_before() -> None:
    found = window([paced(-5, 0.5, 20)], t0_s=0, t1_s=10)
    assert found.output_tokens == 11
    assert found.input_tokens == 0
    assert found.ttft_p50_s is None
    assert found.e2e_p50_s == pytest.approx(10)


@pytest.mark.parametrize(
    ("sent_s", "last_s", "failed_s", "counted"),
    [
        (1, None, None, 1),
        (1, 2, None, 1),
        (-2, -1, None, 0),
        (-2, None, 5, 1),
        (-2, -1, 5, 1),
        (-2, -1, -0.5, 0),
        (11, None, 12, 0),
    ],
)
def test_a_failure_counts_in_the_window_it_falls_into(
    sent_s: float, last_s: float | None, failed_s: float | None, counted: int
) -> None:
    request = make_request(sent_s, [] if last_s is None else [(last_s, 3)], error="broken")
    request.end_ns = None if failed_s is None else round(failed_s * SECOND_NS)
    assert window([request]).num_failed == counted


def test_latencies_are_what_a_stopwatch_would_say() -> None:
    found = window([paced(1, 0.25, 9), paced(2, 0.5, 5)])
    assert found.ttft_p50_s == pytest.approx(0.25)
    assert found.ttft_p99_s == pytest.approx(0.5)
    assert found.tpot_p50_s == pytest.approx(0.25)
    assert found.tpot_p99_s == pytest.approx(0.5)
    assert found.e2e_p50_s == pytest.approx(2.25)
    assert found.e2e_p99_s == pytest.approx(2.5)
    assert found.isl_mean_tokens == 100
    assert found.osl_mean_tokens == 7


def test_tpot_leaves_out_tokens_that_came_with_the_first_event() -> None:
    assert window([make_request(0, [(1, 4), (3, 8)])]).tpot_p50_s == pytest.approx(0.5)


def test_a_request_whose_tokens_came_at_once_has_no_tpot() -> None:
    found = window([make_request(0, [(1, 8)])])
    assert found.tpot_p50_s is None
    assert found.e2e_p50_s == pytest.approx(1)


@pytest.mark.parametrize("records", [[], [make_request(1, [], ended=False)], [make_request(20, [(21, 3)])]])
def test_where_no_request_says_anything_the_answer_is_none_and_not_zero(records: list[RequestRecord]) -> None:
    found = window(records)
    assert found.output_tokens == 0
    assert found.block_tokens == (0,) * 10
    for name in (*LATENCIES, "drift", "isl_mean_tokens", "osl_mean_tokens"):
        assert getattr(found, name) is None, name


def test_occupancy_is_the_mean_number_in_flight_over_what_was_asked() -> None:
    always = make_request(-1, [(20, 1)])
    half = make_request(5, [(15, 1)])
    running = make_request(7.5, [], ended=False)
    before, after = make_request(-5, [(-1, 1)]), make_request(10, [(12, 1)])
    assert window([always]).occupancy == pytest.approx(1)
    assert window([always, half, before, after], concurrency=2).occupancy == pytest.approx(0.75)
    assert window([running], concurrency=1).occupancy == pytest.approx(0.25)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.fractions(Fraction(1, 100), 1, max_denominator=100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int], share: Fraction) -> None:
    found = percentile([float(value) for value in values], float(share))
    enough = (v for v in sorted(values) if sum(other <= v for other in values) >= share * len(values))
    assert found == next(enough)


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(99, 100)])
def test_the_ranks_in_use_are_exact_for_every_sample_size(share: Fraction) -> None:
    for count in range(1, 2000):
        assert percentile(range(count), float(share)) == math.ceil(share * count) - 1


def test_no_values_have_no_percentile() -> None:
    assert percentile([], 0.5) is None


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=20))
def test_drift_changes_sign_with_time(blocks: list[float]) -> None:
    forth, back = drift(blocks), drift(blocks[::-1])
    assert forth is not None
    assert back is not None
    assert forth == pytest.approx(-back, abs=1e-9)


@given(st.floats(1, 100), st.integers(3, 30), st.floats(-0.5, 0.5))
def test_drift_of_a_straight_line_is_its_change_over_the_mean(mean: float, count: int, change: float) -> None:
    blocks = [mean * (1 + change * ((n + 0.5) / count - 0.5)) for n in range(count)]
    assert drift(blocks) == pytest.approx(change, abs=1e-9)


@pytest.mark.parametrize("blocks", [[], [1.0], [1.0, 2.0], [0.0, 0.0, 0.0]])
def test_drift_of_too_little_is_none(blocks: list[float]) -> None:
    assert drift(blocks) is None


def test_the_drift_of_a_window_is_that_of_its_blocks() -> None:
    found = window([make_request(0, [(0.5, 10), (1.5, 30), (2.5, 60)])], t1_s=3)
    assert found.block_tokens == (10, 20, 30)
    assert found.drift == pytest.approx(drift([10, 20, 30]))
    assert found.drift is not None
    assert found.drift > 0


@pytest.mark.parametrize(
    ("blocks", "steady"),
    [
        ([], False),
        ([5], False),
        ([5, 5], False),
        ([0, 0, 0], False),
        ([5, 5, 5], True),
        ([10, 11, 10, 9, 10, 11, 9, 10], True),
        ([80, 85, 91, 94, 101, 104, 110, 115], False),
        ([115, 110, 104, 101, 94, 91, 85, 80], False),
        ([10, 10, 10, 4, 10, 10, 10, 10], False),
        ([10, 10, 10, 6, 10, 10, 10, 10], True),
        ([10, 10, 10, 10, 10, 10, 10, 0], False),
        ([30, 8, 22, 11, 28, 12, 25, 14], False),
        ([20, 13, 19, 12, 20, 14, 12, 17], True),
        ([54, 48, 40, 34, 30], False),
        ([6, 10, 10, 10, 10], False),
    ],
)
def test_steady_is_without_trend_and_without_stall_whatever_the_noise(blocks: list[float], steady: bool) -> None:
    assert is_steady(blocks, 0.05) is steady


@given(st.floats(1, 1000), st.integers(4, 30), st.floats(-0.6, 0.6), st.floats(0.01, 0.5))
def test_a_straight_line_is_steady_exactly_within_the_tolerance(
    mean: float, count: int, change: float, tolerance: float
) -> None:
    assume(abs(abs(change) - tolerance) > 1e-6)
    blocks = [mean * (1 + change * ((n + 0.5) / count - 0.5)) for n in range(count)]
    assert is_steady(blocks, tolerance) is (abs(change) < tolerance)


@given(st.lists(st.integers(1, 100), min_size=3, max_size=20), st.integers(2, 50))
def test_steadiness_does_not_depend_on_the_unit_or_the_direction_of_time(blocks: list[int], factor: int) -> None:
    found = is_steady(blocks, 0.05)
    assert is_steady([factor * n for n in blocks], 0.05) is found
    assert is_steady(blocks[::-1], 0.05) is found


def test_the_interval_is_the_one_of_the_textbook() -> None:
    ratios = [1.0, 1.1, 0.9, 1.05, 0.95]
    t_975_df4 = 2.7764451
    expected = t_975_df4 * statistics.stdev(ratios) / math.sqrt(5) / 1.0
    assert relative_ci95(ratios) == pytest.approx(expected)


@pytest.mark.parametrize("ratios", [[], [1.0], [1.0, 1.1], [0.0, 0.0, 0.0]])
def test_an_interval_of_too_little_is_none(ratios: list[float]) -> None:
    assert relative_ci95(ratios) is None


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
