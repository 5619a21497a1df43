"""Counts the output tokens of one streamed answer from the bytes of its server-sent events, without parsing JSON.

Tokens are read off the running usage that `continuous_usage_stats` puts into every event. A server that ignores that
option has the usage total, which comes last, spread evenly over the events before it; chunks never count as tokens in
the end. Text cannot be taken for usage, as JSON escapes the quotes in it.
"""

import re
from array import array
from collections.abc import MutableSequence

from pipeline.errors import LoadError
from pipeline.load.counters import LAST_EVENT_NS, NUM_COMPLETED, NUM_IN_FLIGHT, OUTPUT_TOKENS
from pipeline.load.protocol import RequestRecord

MAX_EVENT_BYTES = 1 << 18
"""A stream without an end of event in so many bytes is none of ours."""

_USAGE = b'"completion_tokens"'
_NUMBER = re.compile(rb"\s*:\s*(\d{1,9})")


class Tally:
    """Output tokens of one request."""

    __slots__ = ("_counters", "_num_uncounted", "_record", "_rest", "_t_ns", "_tokens", "is_done", "total")

    def __init__(self, record: RequestRecord, counters: MutableSequence[int]) -> None:
        """Start with nothing; the record's events grow as they come.

        Args:
            record: The request.
            counters: Of the worker, over all its requests; see counters.py.
        """
        self._record, self._counters = record, counters
        self._t_ns, self._tokens = array("q"), array("i")
        record.event_t_ns, record.event_tokens = self._t_ns, self._tokens
        self.total = 0
        self._num_uncounted = 0
        self._rest = b""
        self.is_done = False

    def feed(self, data: bytes, now_ns: int) -> None:
        """Count the events that end in `data`, which came at `now_ns` and may be cut off anywhere.

        Raises:
            LoadError: If this is no stream of the agreed form, or reports an error.
        """
        if not self._rest and data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n"):
            events = [data[:-2]]  # one event of one line, as nearly always
        else:
            *events, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
            if len(self._rest) > MAX_EVENT_BYTES:
                raise LoadError(f"malformed stream: no end of event in {MAX_EVENT_BYTES} bytes")
        for text in events:
            event = text if text.startswith(b"data:") else _data(text)
            at = event.rfind(_USAGE)
            if at >= 0 and (number := _NUMBER.match(event, at + len(_USAGE))):
                tokens = int(number[1])
                if self._num_uncounted:
                    self._spread(tokens)
                self._stamp(tokens, now_ns)
            elif event:
                self._uncounted(event, now_ns)

    def close(self) -> None:
        """The answer is over.

        Raises:
            LoadError: If it was not complete.
        """
        if not self.is_done:
            raise LoadError(f"the stream ended early, after {self.total} tokens and without [DONE]")
        if self._num_uncounted:
            raise LoadError("the server reports no usage, so its tokens cannot be counted")
        if self.total != self._record.osl_tokens:
            raise LoadError(f"{self._record.osl_tokens} tokens asked for, {self.total} received")
        self._record.end_ns = self._t_ns[-1]
        self._counters[NUM_COMPLETED] += 1
        self._counters[NUM_IN_FLIGHT] -= 1

    def _stamp(self, tokens: int, now_ns: int) -> None:
        """Note that `tokens` have now arrived in all; an event that brings none is not stamped.

        Raises:
            LoadError: If there were more before.
        """
        new = tokens - self.total
        if new > 0:
            self._t_ns.append(now_ns)
            self._tokens.append(tokens)
            self.total = tokens
            self._counters[OUTPUT_TOKENS] += new
            self._counters[LAST_EVENT_NS] = now_ns
        elif new < 0:
            raise LoadError(f"the running usage went backwards, from {self.total} to {tokens} tokens")

    def _uncounted(self, event: bytes, now_ns: int) -> None:
        """An event without usage: the end, an error, or text, which for now counts as one token.

        Raises:
            LoadError: If it is an error, or nothing we know.
        """
        if event[5:].strip() == b"[DONE]":
            self.is_done = True
            return
        if b'"error"' in event:
            raise LoadError(f"the server reports {event[5:200].decode(errors='replace').strip()}")
        if b'"choices"' not in event:
            raise LoadError(f"malformed stream event {event[:80]!r}")
        self._num_uncounted += 1
        self._record.num_uncounted = self._num_uncounted
        self._stamp(self.total + 1, now_ns)

    def _spread(self, tokens: int) -> None:
        """Share out the usage that is now known over the last events, which came without.

        Raises:
            LoadError: If there were more tokens before those events.
        """
        num_chunks, self._num_uncounted, self._record.num_uncounted = self._num_uncounted, 0, 0
        before = self.total - num_chunks
        if tokens < before:
            raise LoadError(f"the running usage went backwards, from {before} to {tokens} tokens")
        shares = [before + round((tokens - before) * (n + 1) / num_chunks) for n in range(num_chunks)]
        self._tokens[-num_chunks:] = array("i", shares)
        self._counters[OUTPUT_TOKENS] += tokens - self.total
        self.total = tokens


def _data(event: bytes) -> bytes:
    """The data of an event that does not begin with it: empty for comments and blank lines.

    Source: "Interpreting an event stream", WHATWG HTML section 9.2.6; fields other than data say nothing here.

    Raises:
        LoadError: If a line is of no field.
    """
    lines = [line for line in event.split(b"\n") if line and not line.startswith((b":", b"event:", b"id:", b"retry:"))]
    if not all(line.startswith(b"data:") for line in lines):
        raise LoadError(f"malformed stream event {event[:80]!r}")
    return b"\n".join(lines)
