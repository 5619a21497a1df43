import dataclasses
from array import array
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.load.protocol import RequestRecord
from pipeline.percentile import percentile, percentile_bounds
from pipeline.steadiness import drift
from pipeline.window import LoadWindow, block_tokens, summarise, tokens_between
from pipeline.workload import OperatingPoint
from tests.builders import SECOND_NS, make_request

LATENCIES = tuple(
    field.name for field in dataclasses.fields(LoadWindow) if field.name.startswith(("ttft_", "tpot_", "itl_", "e2e_"))
)
FOUR = OperatingPoint(concurrency=4)
OPEN_LOOP = OperatingPoint(request_rate_per_s=2.0)


def window(
    records: Sequence[RequestRecord], t0_s: float = 0, t1_s: float = 10, block_s: float = 1, concurrency: int = 1
) -> LoadWindow:
    return summarise(
        records, round(t0_s * SECOND_NS), round(t1_s * SECOND_NS), block_s, OperatingPoint(concurrency=concurrency)
    )


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
    left, right, both = (summarise(records, t0, t1, 1e-8, FOUR) for t0, t1 in ((a, b), (b, c), (a, c)))
    for name in ("output_tokens", "input_tokens", "num_completed"):
        assert getattr(left, name) + getattr(right, name) == getattr(both, name)
    assert left.occupancy is not None
    assert right.occupancy is not None
    assert both.occupancy is not None
    busy_ns = left.occupancy * (b - a) + right.occupancy * (c - b)
    assert busy_ns == pytest.approx(both.occupancy * (c - a), abs=1e-6)


@given(st.lists(requests(), max_size=12), st.integers(0, 20), st.integers(1, 30), st.integers(1, 40))
def test_block_tokens_sum_to_the_total_of_a_plain_count(
    records: list[RequestRecord], t0_ns: int, length_ns: int, num_blocks: int
) -> None:
    t1_ns = t0_ns + length_ns
    found = summarise(records, t0_ns, t1_ns, length_ns * 1e-9 / num_blocks, FOUR)
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
    with_failed, without = (summarise(some, 0, 40, 1e-8, FOUR) for some in ([*good, *failed], good))
    assert with_failed == dataclasses.replace(without, num_failed=len(failed))


@given(st.lists(requests(), max_size=8))
def test_the_order_of_requests_does_not_matter(records: list[RequestRecord]) -> None:
    assert summarise(records, 3, 27, 1e-8, FOUR) == summarise(records[::-1], 3, 27, 1e-8, FOUR)


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


def test_the_drift_of_a_window_is_that_of_its_blocks() -> None:
    found = window([make_request(0, [(0.5, 10), (1.5, 30), (2.5, 60)])], t1_s=3)
    assert found.block_tokens == (10, 20, 30)
    assert found.drift == pytest.approx(drift([10, 20, 30]))
    assert found.drift is not None
    assert found.drift > 0


def test_an_open_loop_has_no_occupancy() -> None:
    records = [make_request(0, [(5, 3)])]
    assert summarise(records, 0, 10 * SECOND_NS, 1, OPEN_LOOP).occupancy is None
    assert summarise(records, 0, 10 * SECOND_NS, 1, FOUR).occupancy == pytest.approx(0.125)


def test_a_request_sent_late_has_waited_since_it_was_due() -> None:
    late = dataclasses.replace(paced(3, 0.5, 4), due_ns=SECOND_NS)
    found, as_sent = window([late]), window([paced(3, 0.5, 4)])
    assert [found.ttft_p50_s, as_sent.ttft_p50_s] == pytest.approx([2.5, 0.5])
    assert [found.e2e_p50_s, as_sent.e2e_p50_s] == pytest.approx([4, 2])
    assert found.tpot_p50_s == as_sent.tpot_p50_s
    assert found.itl_p50_s == as_sent.itl_p50_s


def test_the_time_between_events_is_shared_by_the_tokens_of_the_later_one() -> None:
    found = window([make_request(0, [(1, 9), (1.5, 10), (4.5, 13), (4.6, 14), (11, 15)])])
    # five tokens came in the window after the first event: 0.5 s, three times 1 s, 0.1 s
    assert found.itl_p50_s == pytest.approx(1)
    assert found.itl_p99_s == pytest.approx(1)
    assert window([make_request(0, [(1, 9), (1.5, 10), (4.5, 13)])], t1_s=2).itl_p99_s == pytest.approx(0.5)
    assert window([make_request(0, [(1, 9), (1.5, 10), (4.5, 13)])], t0_s=2).itl_p99_s == pytest.approx(1)


def test_an_event_without_tokens_does_not_shorten_the_wait_for_the_next() -> None:
    assert window([make_request(0, [(1, 1), (2, 1), (3, 2)])]).itl_p50_s == pytest.approx(2)


@given(st.lists(requests(), max_size=12), st.integers(0, 20), st.integers(1, 30))
def test_inter_token_latency_is_that_of_a_plain_loop(records: list[RequestRecord], t0_ns: int, length_ns: int) -> None:
    gaps_s: list[float] = []
    for record in records:
        events = list(zip(record.event_t_ns, record.event_tokens, strict=True))
        for (before_ns, before), (t_ns, tokens) in pairwise(events):
            if record.error is None and t0_ns <= t_ns < t0_ns + length_ns:
                gaps_s += [(t_ns - before_ns) * 1e-9 / (tokens - before)] * (tokens - before)
    found = summarise(records, t0_ns, t0_ns + length_ns, 1e-8, FOUR)
    assert found.itl_p50_s == percentile(gaps_s, 0.5)
    assert found.itl_p99_s == percentile(gaps_s, 0.99)


@given(st.lists(requests(), max_size=8))
def test_packed_events_say_the_same_as_lists(records: list[RequestRecord]) -> None:
    packed = [
        dataclasses.replace(r, event_t_ns=array("q", r.event_t_ns), event_tokens=array("q", r.event_tokens))
        for r in records
    ]
    assert summarise(packed, 3, 27, 1e-8, FOUR) == summarise(records, 3, 27, 1e-8, FOUR)


def test_bounds_are_those_of_the_requests_in_the_window() -> None:
    records = [paced(n / 100, 0.001 * (1 + n % 37), 4) for n in range(900)]
    found = window(records)
    low_s, high_s = percentile_bounds([(r.event_t_ns[0] - r.sent_ns) * 1e-9 for r in records], 0.99)
    assert (found.ttft_p99_low_s, found.ttft_p99_high_s) == (low_s, high_s)
    assert found.ttft_p99_s is not None
    assert low_s is not None
    assert high_s is not None
    assert low_s <= found.ttft_p99_s <= high_s
    assert [found.tpot_p99_low_s, found.tpot_p99_high_s] == pytest.approx([low_s, high_s])
    assert window(records[:298]).ttft_p99_high_s is None


@given(st.lists(requests(), max_size=12), st.integers(0, 20), st.integers(1, 30), st.integers(1, 40))
def test_blocks_of_any_number_tile_the_window(
    records: list[RequestRecord], t0_ns: int, length_ns: int, num_blocks: int
) -> None:
    t1_ns = t0_ns + length_ns
    blocks = block_tokens(records, t0_ns, t1_ns, num_blocks)
    assert blocks == summarise(records, t0_ns, t1_ns, length_ns * 1e-9 / num_blocks, FOUR).block_tokens
    good = [record for record in records if record.error is None]
    assert tokens_between(good, t0_ns, t1_ns) == sum(blocks)
    failed = [dataclasses.replace(record, error="broken") for record in good]
    assert tokens_between(failed, t0_ns, t1_ns) == sum(blocks)
    assert sum(block_tokens(failed, t0_ns, t1_ns, num_blocks)) == 0


def test_a_stream_that_has_died_counts_as_failed_and_not_as_load() -> None:
    alive = make_request(0, [(0.1 * n, n) for n in range(1, 400)], ended=False)
    dead = make_request(0, [(0.1 * n, n) for n in range(1, 50)], ended=False)
    queued = make_request(0, [], ended=False)
    point = OperatingPoint(concurrency=3)
    found = summarise([alive, dead, queued], 10 * SECOND_NS, 30 * SECOND_NS, 1.0, point)
    assert found.num_failed == 1
    assert found.occupancy == pytest.approx(2 / 3)
    assert found.output_tokens == 200
    early = summarise([alive, dead, queued], 1 * SECOND_NS, 10 * SECOND_NS, 1.0, point)
    assert early.num_failed == 0
    assert early.occupancy == pytest.approx(1)
