import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.load.counters import (
    LAST_EVENT_NS,
    NUM_COMPLETED,
    NUM_FAILED,
    NUM_IN_FLIGHT,
    OUTPUT_TOKENS,
    Counters,
)

NUM_WORKERS = 3


@pytest.fixture
def pair() -> Iterator[tuple[Counters, Counters]]:
    """A parent's and a worker's view of the same page."""
    with tempfile.TemporaryFile() as file:
        yield Counters(file.fileno(), NUM_WORKERS), Counters(file.fileno(), NUM_WORKERS)


def test_nothing_has_happened_at_first(pair: tuple[Counters, Counters]) -> None:
    state = pair[0].snapshot()
    assert (state.output_tokens, state.num_completed, state.num_failed, state.num_in_flight) == (0, 0, 0, 0)
    assert state.last_error is None


def test_parent_sees_the_sum_over_the_workers(pair: tuple[Counters, Counters]) -> None:
    parent, theirs = pair
    for worker in range(NUM_WORKERS):
        for place, value in ((OUTPUT_TOKENS, 2**40), (NUM_COMPLETED, 10), (NUM_IN_FLIGHT, 1), (LAST_EVENT_NS, worker)):
            theirs.of(worker)[place] += value
    state = parent.snapshot()
    assert (state.output_tokens, state.num_completed) == (NUM_WORKERS * 2**40, 10 * NUM_WORKERS)
    assert (state.num_in_flight, state.last_event_ns) == (NUM_WORKERS, NUM_WORKERS - 1)


@given(
    failures=st.lists(
        st.tuples(st.integers(0, NUM_WORKERS - 1), st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
        min_size=1,
    )
)
def test_last_error_is_the_latest_of_all_workers_whole_or_cut(failures: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryFile() as file:
        counters = Counters(file.fileno(), NUM_WORKERS)
        for now_ns, (worker, text) in enumerate(failures, start=1):
            counters.fail(worker, text, now_ns)
            assert counters.snapshot().last_error == text
        assert counters.snapshot().num_failed == len(failures)


def test_long_error_is_cut_and_harms_nobody(pair: tuple[Counters, Counters]) -> None:
    parent, theirs = pair
    for number in range(4):
        theirs.fail(0, "\N{EURO SIGN}" * 10_000, number)
    assert set(parent.snapshot().last_error or "") == {"\N{EURO SIGN}"}
    assert parent.snapshot().num_failed == theirs.of(0)[NUM_FAILED] == 4
    assert not any(theirs.of(1))


def test_indices_go_up_one_by_one_whoever_asks(pair: tuple[Counters, Counters]) -> None:
    taken = []
    for counters in [*pair, *pair]:
        with counters.next_index() as index:
            taken.append(index)
    assert taken == [0, 1, 2, 3]
