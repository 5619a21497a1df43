"""A stand-in completions server that answers well or badly on demand: raw asyncio in a thread of its own, loopback.

Every request is answered by the same `Script`, which a test may exchange while the server runs.
"""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self


class Fault(StrEnum):
    """What goes wrong in an answer, after `fault_after_chunks` of its chunks where that applies."""

    BAD_CHUNK_SIZE = "HTTP framing that is none"
    DROP = "the connection breaks"
    ERROR_EVENT = "an error event, then a regular end"
    GARBAGE_EVENT = "an event that is none"
    NO_DONE = "a regular end without [DONE]"
    NO_STREAM = "one JSON object instead of a stream"
    SILENCE = "nothing more comes, the connection stays"
    USAGE_FALLS = "the running usage goes backwards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How to answer.

    Attributes:
        usage: Running usage in every chunk, the total in one last event, or none at all.
        surplus_tokens: Added to the last reported usage.
        num_silent_chunks: Chunks without text or usage that open the stream.
        closes: Whether each answer ends its connection.
        hold: Whether each answer waits for `SseServer.release`.
        status: HTTP status; with any but 200, `error_body` is all there is.
    """

    usage: Literal["continuous", "final", "none"] = "continuous"
    tokens_per_chunk: int = 1
    surplus_tokens: int = 0
    num_silent_chunks: int = 0
    line_end: bytes = b"\n"
    comment: bytes | None = None
    write: Literal["event", "byte", "all"] = "event"
    interval_s: float = 0.0
    hold: bool = False
    closes: bool = False
    fault: Fault | None = None
    fault_after_chunks: int = 2
    status: int = 200
    error_body: bytes = b'{"error": {"message": "no room"}}'


def events(script: Script, osl_tokens: int) -> Iterator[bytes]:
    """The server-sent events that answer a request for `osl_tokens` tokens."""
    end = script.line_end * 2
    for _ in range(script.num_silent_chunks):
        yield b"data: " + _chunk(usage_tokens=None) + end
    sent_tokens = num_chunks = 0
    while sent_tokens < osl_tokens:
        if script.comment is not None:
            yield script.comment + end
        if script.fault is not None and num_chunks == script.fault_after_chunks:
            yield from _faulty(script, sent_tokens, end)
        sent_tokens = min(sent_tokens + script.tokens_per_chunk, osl_tokens)
        num_chunks += 1
        total = sent_tokens + (script.surplus_tokens if sent_tokens == osl_tokens else 0)
        yield b"data: " + _chunk(usage_tokens=total if script.usage == "continuous" else None) + end
    if script.usage != "none":
        usage = {"prompt_tokens": 1, "completion_tokens": osl_tokens + script.surplus_tokens}
        yield b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + end
    if script.fault is not Fault.NO_DONE:
        yield b"data: [DONE]" + end


def _faulty(script: Script, sent_tokens: int, end: bytes) -> Iterator[bytes]:
    match script.fault:
        case Fault.ERROR_EVENT:
            yield b'data: {"error": {"message": "cache is full", "code": 500}}' + end
        case Fault.GARBAGE_EVENT:
            yield b"<html>502 Bad Gateway</html>" + end
        case Fault.USAGE_FALLS:
            yield b"data: " + _chunk(usage_tokens=sent_tokens - 1) + end
        case Fault.BAD_CHUNK_SIZE | Fault.DROP | Fault.SILENCE:
            yield script.fault.encode()  # acted upon where the answer is written
        case _:
            pass


def _chunk(usage_tokens: int | None) -> bytes:
    """One chunk; its text quotes the fields that a careless client would look for."""
    text = ' "completion_tokens": 999, "error": data: [DONE]\n\n'
    chunk: dict[str, Any] = {"object": "text_completion", "choices": [{"text": text, "index": 0}], "usage": None}
    if usage_tokens is not None:
        chunk["usage"] = {"prompt_tokens": 1, "completion_tokens": usage_tokens, "completion_tokens_details": {}}
    return json.dumps(chunk).encode()


class Reader(asyncio.StreamReader):
    """A stream that tells at once when the client has left, even while nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.client_left = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.client_left.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.client_left.set()


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Wait until the connection is closed; that the client closed it first is what we expect."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        try:
            yield
        finally:
            writer.close()
            await writer.wait_closed()


class SseServer:
    """Serves POST /v1/completions on a free port between `__enter__` and `__exit__`.

    Attributes:
        script: How requests that arrive from now on are answered.
        bodies: Every request body, in order of arrival.
        num_in_flight: Requests that have arrived and whose answer has neither ended nor been left by the client.
        max_in_flight: Most there were.
        num_connections: Connections accepted.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.bodies: list[dict[str, Any]] = []
        self.num_in_flight = 0
        self.max_in_flight = 0
        self.num_connections = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._gate = asyncio.Semaphore(0)
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="sse-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(20), "the stand-in server did not start"
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def release(self, num_answers: int = 1) -> None:
        """Let so many held answers go."""
        for _ in range(num_answers):
            self._loop.call_soon_threadsafe(self._gate.release)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        server = await self._loop.create_server(self._protocol, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        self._listening.set()
        await self._stop.wait()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:  # again for those just being accepted
            for writer in self._connections.values():
                writer.transport.abort()
            await asyncio.wait(tasks)
        server.close()  # last, as Python 3.11 leaks a connection that it accepts while it closes

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        reader = Reader()

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.ensure_future(self._serve(reader, writer))
            self._connections[connection] = writer
            connection.add_done_callback(self._connections.pop)

        return asyncio.StreamReaderProtocol(reader, accept)

    async def _serve(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        async with _closing(writer):
            while True:  # until the client leaves
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                assert length, head
                self.bodies.append(json.loads(await reader.readexactly(int(length[1]))))
                self.num_in_flight += 1
                self.max_in_flight = max(self.max_in_flight, self.num_in_flight)
                left = asyncio.ensure_future(reader.client_left.wait())
                answer = asyncio.ensure_future(self._answer(self.bodies[-1], writer))
                try:
                    await asyncio.wait([left, answer], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self.num_in_flight -= 1
                    left.cancel()
                    answer.cancel()
                    results = await asyncio.gather(left, answer, return_exceptions=True)
                if not isinstance(results[1], str):
                    return

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> str:
        """Answer one request.

        Raises:
            ConnectionError: If the connection is to be broken, or the client broke it.
        """
        script = self.script
        if script.hold:
            await self._gate.acquire()
        if script.status != 200 or script.fault is Fault.NO_STREAM:
            head = f"HTTP/1.1 {script.status} Said So\r\nContent-Type: application/json; charset=utf-8\r\n"
            writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(script.error_body) + script.error_body)
            await writer.drain()
            return "refused"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")
        writer.write(b"Connection: close\r\n\r\n" if script.closes else b"\r\n")
        parts = list(events(script, body["max_tokens"]))
        if script.write == "all":
            parts = [b"".join(parts)]
        for part in parts:
            if part == Fault.DROP.encode():
                await writer.drain()
                raise ConnectionAbortedError
            if part == Fault.SILENCE.encode():
                await asyncio.Event().wait()
            if part == Fault.BAD_CHUNK_SIZE.encode():
                writer.write(b"not a size\r\n")
            pieces = [bytes([byte]) for byte in part] if script.write == "byte" else [part]
            for piece in pieces:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(script.interval_s)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        if script.closes:
            raise ConnectionAbortedError
        return "done"
