"""One connection to the server, which carries one request at a time."""

import asyncio
import ssl
import time
from typing import cast
from urllib.parse import urlsplit

from pipeline.errors import LoadError
from pipeline.load.answer import Answer
from pipeline.load.tally import Tally

CONNECT_TIMEOUT_S = 10.0


class Connection(asyncio.Protocol):
    """From `connect`; stays open for the next request where the server lets it.

    Attributes:
        idle_since_ns: Since when it waits for a request; None while one is under way, or when it is closed.
    """

    def __init__(self) -> None:
        """Not connected."""
        self.idle_since_ns: int | None = None
        self._fault = LoadError("the connection is closed")
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._ended: asyncio.Future[None] | None = None

    def send(self, message: bytes, tally: Tally) -> "asyncio.Future[None]":
        """Send a request; the result comes when its answer has ended, or is a LoadError that says what went wrong."""
        self._answer, self._ended = Answer(tally), asyncio.get_running_loop().create_future()
        ended = self._ended
        if self._transport is None or self.idle_since_ns is None:
            self._end(self._fault)
        else:
            self.idle_since_ns = None
            self._transport.write(message)
        return ended

    def close(self, fault: LoadError | None = None) -> None:
        """Drop the connection; what is sent from now on fails, with `fault` if there is one."""
        self.idle_since_ns = None
        self._fault = fault or self._fault
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self.idle_since_ns = time.monotonic_ns()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio, after a read: the hot path."""
        now_ns = time.monotonic_ns()
        answer = self._answer
        try:
            if answer is None:
                self.close()  # nobody asked
            elif answer.feed(data, now_ns):
                self._end()
                if answer.may_follow:
                    self.idle_since_ns = now_ns
                else:
                    self.close()
        except LoadError as error:
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.close()
        if self._answer is not None:
            try:
                self._answer.cut_off(exc)
                self._end()
            except LoadError as error:
                self._end(error)

    def _end(self, error: LoadError | None = None) -> None:
        """End the request, and the connection with it if something went wrong: what comes next is anybody's guess."""
        ended, self._ended, self._answer = self._ended, None, None
        if error is not None:
            self.close()
        if ended is not None and error is not None:
            ended.set_exception(error)
        elif ended is not None:
            ended.set_result(None)


async def connect(url: str) -> Connection:
    """A connection to the server; one that could not be made says why in answer to what is sent on it."""
    parts = urlsplit(url)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if context else 80)
    connection = Connection()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, parts.hostname or "", port, ssl=context)
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {CONNECT_TIMEOUT_S:g} s"
        connection.close(LoadError(f"cannot connect to {parts.hostname}:{port}: {why}"))
    return connection
