"""What becomes of the bytes of one answer, wherever they are cut."""

import dataclasses
import re
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import LoadError
from pipeline.load.answer import Answer
from pipeline.load.counters import LAST_EVENT_NS, NUM_COMPLETED, OUTPUT_TOKENS
from pipeline.load.protocol import RequestRecord
from pipeline.load.tally import MAX_EVENT_BYTES, Tally
from tests.load.sse_server import Fault, Script, events

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
OSL_TOKENS = 5

SCRIPTS = [
    Script(),
    Script(tokens_per_chunk=2),
    Script(usage="final"),
    Script(usage="final", tokens_per_chunk=2),
    Script(usage="final", num_silent_chunks=2),
    Script(num_silent_chunks=1),
    Script(line_end=b"\r\n"),
    Script(comment=b": still here"),
    Script(comment=b"event: message\nid: 7\nretry: 5"),
    Script(comment=b""),
    Script(usage="none"),
    Script(surplus_tokens=1),
    Script(fault=Fault.GARBAGE_EVENT),
    Script(fault=Fault.ERROR_EVENT),
    Script(fault=Fault.USAGE_FALLS),
    Script(fault=Fault.NO_DONE),
]


@dataclasses.dataclass
class Outcome:
    """What an answer came to."""

    tokens: list[int]
    times_ns: list[int]
    error: str | None
    is_over: bool
    counters: list[int]


def outcome(pieces: list[bytes], osl_tokens: int = OSL_TOKENS, *, cut_off: bool = False) -> Outcome:
    """Feed an answer piece by piece, at times 1, 2, 3 ..."""
    record = RequestRecord(index=0, isl_tokens=1, osl_tokens=osl_tokens, sent_ns=0)
    counters = array("q", [0] * 8)
    answer = Answer(Tally(record, counters))
    error, is_over = None, False
    try:
        for now_ns, piece in enumerate(pieces, start=1):
            is_over = answer.feed(piece, now_ns)
        if cut_off:
            answer.cut_off(None)
    except LoadError as failure:
        error = str(failure)
    assert counters[OUTPUT_TOKENS] == record.output_tokens
    assert counters[LAST_EVENT_NS] == (record.event_t_ns[-1] if record.event_t_ns else 0)
    assert counters[NUM_COMPLETED] == (record.end_ns is not None)
    return Outcome(list(record.event_tokens), list(record.event_t_ns), error, is_over, list(counters))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces, none of them empty."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def chunked(pieces: list[bytes]) -> bytes:
    """One HTTP answer with a chunk for each piece."""
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


CUTS = st.lists(st.integers(0, 10**6), max_size=40)


@pytest.mark.parametrize("script", SCRIPTS, ids=repr)
@given(chunk_cuts=CUTS, segment_cuts=CUTS)
def test_count_does_not_depend_on_where_the_stream_is_cut(
    script: Script, chunk_cuts: list[int], segment_cuts: list[int]
) -> None:
    stream = b"".join(events(script, OSL_TOKENS))
    whole = outcome([chunked([stream])])
    parts = outcome(split(chunked(split(stream, chunk_cuts)), segment_cuts))
    assert (parts.tokens, parts.error) == (whole.tokens, whole.error)
    assert parts.is_over == (parts.error is None)
    assert parts.times_ns == sorted(parts.times_ns)


@pytest.mark.parametrize("script", SCRIPTS, ids=repr)
def test_count_is_the_same_byte_by_byte(script: Script) -> None:
    stream = b"".join(events(script, OSL_TOKENS))
    whole = outcome([chunked([stream])])
    parts = outcome([bytes([byte]) for byte in chunked([bytes([byte]) for byte in stream])])
    assert (parts.tokens, parts.error) == (whole.tokens, whole.error)


def test_each_event_has_the_time_of_the_read_that_ended_it() -> None:
    first, second, *rest = events(Script(), OSL_TOKENS)
    pieces = [HEAD, b"%x\r\n" % len(first) + first[:-1], first[-1:] + b"\r\n"]
    pieces += [b"%x\r\n" % len(second) + second + b"\r\n", chunked(rest).removeprefix(HEAD)]
    assert outcome(pieces).times_ns == [3, 4, 5, 5, 5]


def test_text_is_not_taken_for_usage() -> None:
    text = rb'"completion_tokens": 999, \"error\" data: [DONE]'.replace(b'"', rb"\"")
    event = b'data: {"choices": [{"text": "%b"}], "usage": {"completion_tokens": 1}}\n\n' % text
    assert outcome([chunked([event, b"data: [DONE]\n\n"])], 1).error is None


@pytest.mark.parametrize(
    "usage",
    [
        b'{"prompt_tokens":9,"completion_tokens":1}',
        b'{ "completion_tokens" : 1 }',
        b'{"completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 10}',
    ],
)
def test_usage_is_found_however_it_is_written(usage: bytes) -> None:
    event = b'data:{"choices":[{"text":"x"}],"usage":%b}\n\n' % usage
    result = outcome([chunked([event, b'data: {"choices": [], "usage": %b}\n\n' % usage, b"data: [DONE]\n\n"])], 1)
    assert (result.tokens, result.error) == ([1], None)


def test_data_may_come_after_other_fields_and_over_lines() -> None:
    event = b': ping\nevent: message\ndata: {"choices": [],\ndata: "usage": {"completion_tokens": 1}}\n\n'
    assert outcome([chunked([event, b"data: [DONE]\n\n"])], 1).tokens == [1]


def test_usage_of_null_is_none() -> None:
    silent = b'data: {"choices": [{}], "usage": {"completion_tokens": null}}\n\n'
    total = b'data: {"choices": [], "usage": {"completion_tokens": 4}}\n\n'
    assert outcome([chunked([silent, silent, total, b"data: [DONE]\n\n"])], 4).tokens == [2, 4]


def test_absurd_usage_is_a_failure_of_the_request() -> None:
    event = b'data: {"choices": [], "usage": {"completion_tokens": 123456789012345678901234567890}}\n\n'
    assert "received" in str(outcome([chunked([event, b"data: [DONE]\n\n"])]).error)


def test_event_without_end_does_not_fill_the_memory() -> None:
    piece = b"x" * 1000
    head = HEAD + b"%x\r\n" % (2 * MAX_EVENT_BYTES)
    result = outcome([head, *[piece] * (2 * MAX_EVENT_BYTES // len(piece))])
    assert "no end of event" in str(result.error)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
        (HEAD + b"no size\r\n", "not HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nx",
            "not HTTP|HTTP 101",
        ),
        (b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\ngo\n  away", "HTTP 503: go away$"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n" + b"x" * 9999, "HTTP 500: x{200}$"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", r"without \[DONE\]"),
    ],
)
def test_other_answers_are_failures_that_say_what_came(data: bytes, error: str) -> None:
    result = outcome([data])
    assert result.error is not None
    assert re.search(error, result.error)


@pytest.mark.parametrize(("num_events", "error"), [(3, "broke after 3 tokens: closed by the server"), (7, None)])
def test_end_of_the_connection_ends_an_answer_that_says_not_how_long_it_is(num_events: int, error: str | None) -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    result = outcome([head, *list(events(Script(), OSL_TOKENS))[:num_events]], cut_off=True)
    assert result.error is None if error is None else error in str(result.error)


def test_refusal_that_ends_with_the_connection_says_why() -> None:
    assert outcome([b"HTTP/1.0 502 Bad\r\n\r\nupstream is gone"], cut_off=True).error == "HTTP 502: upstream is gone"


def test_whether_the_connection_may_be_used_again_is_the_servers_word() -> None:
    stream = b"".join(events(Script(), OSL_TOKENS))
    for head, may_follow in ((HEAD, True), (HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False)):
        record = RequestRecord(index=0, isl_tokens=1, osl_tokens=OSL_TOKENS, sent_ns=0)
        answer = Answer(Tally(record, array("q", [0] * 8)))
        assert answer.feed(chunked([stream]).replace(HEAD, head), 1)
        assert answer.may_follow is may_follow
