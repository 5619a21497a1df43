import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from pipeline.errors import LoadError
from pipeline.load import client
from pipeline.load.client import ClosedLoop
from pipeline.load.protocol import RequestRecord
from pipeline.load.sequence import Request, request
from tests.load.sse_server import Fault, Script, SseServer, events
from tests.load.workloads import VOCAB_SIZE, workload
from tests.meter.waiting import wait_until

CONCURRENCY = 3

GOOD = {
    "running usage in every chunk": Script(),
    "running usage, several tokens per chunk": Script(tokens_per_chunk=4),
    "usage only at the end": Script(usage="final"),
    "usage only at the end, several tokens per chunk": Script(usage="final", tokens_per_chunk=4),
    "usage only at the end, empty chunks before": Script(usage="final", num_silent_chunks=2),
    "running usage, but not in the first chunk": Script(num_silent_chunks=1),
    "CRLF line ends": Script(line_end=b"\r\n"),
    "one byte at a time": Script(write="byte"),
    "CRLF, one byte at a time": Script(write="byte", line_end=b"\r\n"),
    "all events in one piece": Script(write="all"),
    "keep-alive comments between events": Script(comment=b": still here"),
    "surplus blank lines between events": Script(comment=b""),
}

BAD = {
    "no usage at all": (Script(usage="none"), "no usage"),
    "malformed event": (Script(fault=Fault.GARBAGE_EVENT), "malformed stream event.*502"),
    "connection dropped": (Script(fault=Fault.DROP), "."),
    "connection dropped before the first token": (Script(fault=Fault.DROP, fault_after_chunks=0), "."),
    "too many requests": (Script(status=429), "HTTP 429: .*no room"),
    "server error": (Script(status=500), "HTTP 500: .*no room"),
    "server error that is no text": (Script(status=500, error_body=b"\xff\xfe\x80"), "HTTP 500"),
    "end without [DONE]": (Script(fault=Fault.NO_DONE), r"without \[DONE\]"),
    "error event": (Script(fault=Fault.ERROR_EVENT), "cache is full"),
    "a token too many": (Script(surplus_tokens=1), r"(\d+) tokens asked for, (?!\1 )\d+ received"),
    "a token too few": (Script(surplus_tokens=-1), r"(\d+) tokens asked for, (?!\1 )\d+ received"),
    "a token too few, by its last usage": (
        Script(usage="final", surplus_tokens=-1),
        r"(\d+) tokens asked for, (?!\1 )\d+ received",
    ),
    "usage goes backwards": (Script(fault=Fault.USAGE_FALLS), "backwards"),
    "no stream": (Script(fault=Fault.NO_STREAM), r"without \[DONE\]"),
}


@pytest.fixture
def server() -> Iterator[SseServer]:
    with SseServer() as running:
        yield running


def closed_loop(server: SseServer, concurrency: int = CONCURRENCY) -> ClosedLoop:
    return ClosedLoop(server.url, "m", workload(), VOCAB_SIZE, concurrency)


def assert_consistent(load: ClosedLoop) -> list[RequestRecord]:
    """What holds for every load that has ended, however it went; returns the records."""
    state, records = load.snapshot(), load.records()
    assert state.output_tokens == sum(record.output_tokens for record in records)
    assert state.num_completed == sum(record.is_completed for record in records)
    assert state.num_failed == sum(record.error is not None for record in records)
    for record in records:
        times, tokens = record.event_t_ns, record.event_tokens
        assert len(times) == len(tokens)
        assert times == sorted(times)
        assert tokens == sorted(tokens)
        assert record.sent_ns <= min(times, default=record.sent_ns)
        assert not record.is_completed or record.end_ns == times[-1]
        assert record.error is None or record.end_ns is not None
    return records


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD.keys())
def test_good_answer_is_counted_token_by_token(server: SseServer, script: Script) -> None:
    server.script = script
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_completed >= 12 or load.snapshot().num_failed, "completions")
    records = assert_consistent(load)
    assert [record.error for record in records if record.error] == []
    assert load.snapshot().last_error is None
    completed = [record for record in records if record.is_completed]
    assert len(completed) >= 12
    assert all(record.output_tokens == record.osl_tokens for record in completed)
    if script.usage == "continuous" and script.write == "event" and script.tokens_per_chunk == 1:
        assert all(record.event_tokens == list(range(1, record.osl_tokens + 1)) for record in completed)


@pytest.mark.parametrize(("script", "error"), BAD.values(), ids=BAD.keys())
def test_bad_answer_is_a_failure_that_says_why(server: SseServer, script: Script, error: str) -> None:
    server.script = script
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
    records = assert_consistent(load)
    errors = [record.error for record in records if record.error is not None]
    assert all(re.search(error, text) for text in errors), errors
    assert load.snapshot().last_error in errors
    completed = [record for record in records if record.is_completed]
    assert all(script.fault and record.osl_tokens <= script.fault_after_chunks for record in completed)


def test_tokens_before_a_failure_stay_in_its_record(server: SseServer) -> None:
    server.script = Script(fault=Fault.DROP, fault_after_chunks=2)
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
    failed = [record for record in assert_consistent(load) if record.error is not None]
    assert {record.output_tokens for record in failed if record.osl_tokens > 2} == {2}


def test_no_server_is_a_failure_that_names_the_address() -> None:
    with SseServer() as gone:
        load = closed_loop(gone)
    with load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
    assert_consistent(load)
    error = load.snapshot().last_error
    assert error is not None
    assert gone.url.removeprefix("http://") in error


def test_load_goes_on_when_the_server_recovers(server: SseServer) -> None:
    server.script = Script(status=500)
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
        server.script = Script()
        wait_until(lambda: load.snapshot().num_completed >= 2 * CONCURRENCY, "completions after failures")
    assert_consistent(load)


@pytest.mark.parametrize("num_chunks", [None, 0, 2], ids=["no headers", "no chunk", "two chunks"])
def test_silent_server_is_no_failure_and_holds_nobody_up(server: SseServer, num_chunks: int | None) -> None:
    silent = Script(hold=True) if num_chunks is None else Script(fault=Fault.SILENCE, fault_after_chunks=num_chunks)
    server.script = silent
    with closed_loop(server) as load:
        began_ns = load.snapshot().last_event_ns
        wait_until(lambda: server.num_in_flight == CONCURRENCY, "requests in flight")
        wait_until(lambda: is_stuck(load, num_chunks or 0), "the tokens there are")
        last_ns = load.snapshot().last_event_ns
    assert load.snapshot().last_event_ns == last_ns
    assert (last_ns == began_ns) == (load.snapshot().output_tokens == 0)
    records = assert_consistent(load)
    assert [record.error for record in records if record.error] == []
    assert sum(record.end_ns is None for record in records) == CONCURRENCY
    wait_until(lambda: server.num_in_flight == 0, "the server sees that the client has left")


def is_stuck(load: ClosedLoop, num_chunks: int) -> bool:
    """Whether every request in flight has all the tokens it will ever get; shorter ones have ended."""
    running = [record for record in load.records() if record.end_ns is None]
    return len(running) == CONCURRENCY and all(
        record.output_tokens == num_chunks < record.osl_tokens for record in running
    )


def test_leaving_cancels_without_a_failure(server: SseServer) -> None:
    server.script = Script(interval_s=0.05)
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().output_tokens >= CONCURRENCY, "tokens")
    records = assert_consistent(load)
    assert any(record.end_ns is None for record in records), "nothing was in flight, so nothing was tested"
    assert all(record.error is None for record in records)
    wait_until(lambda: server.num_in_flight == 0, "the server sees that the client has left")


def test_leaving_at_once_does_not_hang(server: SseServer) -> None:
    for _ in range(20):
        load = closed_loop(server)
        leave = threading.Thread(target=enter_and_leave, args=(load,), daemon=True)
        leave.start()
        leave.join(20)
        assert not leave.is_alive(), "the client never left"
        assert_consistent(load)


def has_received(server: SseServer, num_requests: int) -> bool:
    return len(server.bodies) == num_requests


def enter_and_leave(load: ClosedLoop) -> None:
    with load:
        pass


def test_broken_framing_never_passes_for_an_answer(server: SseServer) -> None:
    """It may take the slot for good, as aiohttp 3.14 does not wake the reader of a body whose framing breaks."""
    server.script = Script(fault=Fault.BAD_CHUNK_SIZE)
    with closed_loop(server) as load:
        wait_until(lambda: len(server.bodies) >= CONCURRENCY and server.num_in_flight == 0, "the client hangs up")
    assert all(record.osl_tokens <= 2 for record in assert_consistent(load) if record.is_completed)


def test_concurrency_is_kept(server: SseServer) -> None:
    server.script = Script(hold=True)
    concurrency = 8
    with closed_loop(server, concurrency) as load:
        wait_until(lambda: server.num_in_flight == concurrency, "the first wave")
        for num_released in range(1, 25):
            server.release()
            wait_until(partial(has_received, server, concurrency + num_released), "the next request")
            wait_until(lambda: server.num_in_flight == concurrency, "a full house")
        assert server.max_in_flight == concurrency
    assert load.snapshot().num_completed == 24


def test_what_is_sent_is_the_seeded_sequence(server: SseServer) -> None:
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_completed >= 10, "completions")
    bodies = {tuple(body["prompt"]): body for body in server.bodies}
    records = load.records()
    assert [record.index for record in records] == list(range(len(records)))
    for record in records[: len(server.bodies) - CONCURRENCY]:
        wanted = request(workload(), VOCAB_SIZE, record.index, first_wave=record.index < CONCURRENCY)
        body = bodies[tuple(wanted.prompt)]
        assert (record.isl_tokens, record.osl_tokens) == (len(wanted.prompt), wanted.osl_tokens)
        assert body["max_tokens"] == body["min_tokens"] == wanted.osl_tokens
        assert body["ignore_eos"] is True
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
        assert body["model"] == "m"


def test_failure_of_the_client_itself_is_raised(server: SseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, first_wave: bool) -> Request:
        if not first_wave:
            raise ZeroDivisionError("a bug")
        return request(*args, first_wave=first_wave)

    monkeypatch.setattr(client, "request", broken)
    with closed_loop(server) as load:
        wait_until(lambda: failed(load), "a client that fails")
    with pytest.raises(LoadError, match="a bug") as raised:
        load.snapshot()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def failed(load: ClosedLoop) -> bool:
    try:
        load.snapshot()
    except LoadError:
        return True
    return False


def test_no_thread_is_left(server: SseServer) -> None:
    before = threading.active_count()
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_completed >= 1, "a completion")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


class Pieces:
    """Stands in for an aiohttp session whose one answer arrives in the given pieces."""

    status = 200

    def __init__(self, pieces: list[bytes]) -> None:
        self.content, self._pieces = self, pieces

    @asynccontextmanager
    async def post(self, *args: object, **kwargs: object) -> AsyncIterator["Pieces"]:
        yield self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


@pytest.mark.parametrize("script", [script for script in GOOD.values() if script.write == "event"], ids=repr)
def test_count_does_not_depend_on_where_the_stream_is_cut(script: Script) -> None:
    stream, osl_tokens = b"".join(events(script, 5)), 5

    def count(pieces: list[bytes]) -> list[int]:
        load = ClosedLoop("http://nowhere", "m", workload(), VOCAB_SIZE, 1)
        record = RequestRecord(index=0, isl_tokens=1, osl_tokens=osl_tokens, sent_ns=0)
        session: Any = Pieces(pieces)
        asyncio.run(load._stream(session, {}, record))
        assert load.snapshot().output_tokens == osl_tokens
        return record.event_tokens

    whole = count([stream])
    assert whole[-1] == osl_tokens
    assert count([bytes([byte]) for byte in stream]) == whole
    for cut in range(1, len(stream)):
        assert count([stream[:cut], stream[cut:]]) == whole
