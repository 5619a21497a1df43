"""Closed-loop streaming client: keeps `concurrency` completions in flight and stamps every token as it arrives.

It runs in a thread of its own. The hot path parses no JSON: output tokens are read off the running usage that
`continuous_usage_stats` puts into every chunk; a server that ignores that option has the usage total, which comes
last, spread evenly over its chunks. Times are taken once per socket read, on the monotonic clock.
"""

import asyncio
import contextlib
import copy
import re
import threading
import time
from typing import Self

import aiohttp

from pipeline.errors import LoadError
from pipeline.load.protocol import LoadSnapshot, RequestRecord
from pipeline.load.sequence import request
from pipeline.study import Workload

RETRY_PAUSE_S = 0.1
"""Pause of a slot after a failed request, so that a dead server is not hammered."""

_USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')


class ClosedLoop:
    """A fixed number of requests in flight against one OpenAI-compatible server."""

    def __init__(self, url: str, model: str, workload: Workload, vocab_size: int, concurrency: int) -> None:
        """Prepare; nothing is sent before `__enter__`.

        Args:
            url: Base address, e.g. http://127.0.0.1:8000.
            model: Served model name.
            workload: Lengths and seed of the request sequence.
            vocab_size: Prompts are token ids below this.
            concurrency: Requests in flight.
        """
        self._url = f"{url}/v1/completions"
        self._model = model
        self._workload = workload
        self._vocab_size = vocab_size
        self._concurrency = concurrency
        self._records: list[RequestRecord] = []
        self._num_sent = 0
        self._num_completed = 0
        self._num_failed = 0
        self._output_tokens = 0
        self._last_error: str | None = None
        self._last_event_ns = 0
        self._client_cpu_s = 0.0
        self._failure: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load-client", daemon=True)

    def __enter__(self) -> Self:
        """Start sending."""
        self._last_event_ns = time.monotonic_ns()
        self._thread.start()
        self._is_running.wait()  # from here on `__exit__` can reach the loop
        return self

    def __exit__(self, *exc: object) -> None:
        """Cancel what is in flight and wait for the thread."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has already ended
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def snapshot(self) -> LoadSnapshot:
        """Where the load stands now.

        Raises:
            LoadError: If the client itself has failed.
        """
        if self._failure is not None:
            raise LoadError(f"the load client failed: {self._failure!r}") from self._failure
        return LoadSnapshot(
            output_tokens=self._output_tokens,
            num_completed=self._num_completed,
            num_failed=self._num_failed,
            last_error=self._last_error,
            last_event_ns=self._last_event_ns,
            client_cpu_s=self._client_cpu_s,
        )

    def records(self) -> list[RequestRecord]:
        """Every request so far; event lists are copied, and of equal length even while the client runs."""
        copies = []
        for record in list(self._records):
            taken = copy.copy(record)
            taken.event_tokens = list(record.event_tokens)
            taken.event_t_ns = list(record.event_t_ns)[: len(taken.event_tokens)]
            taken.event_tokens = taken.event_tokens[: len(taken.event_t_ns)]
            copies.append(taken)
        return copies

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except BaseException as error:  # noqa: BLE001  # kept and raised from snapshot() in the caller's thread
            self._failure = error
        finally:
            self._is_running.set()

    async def _drive(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._is_running.set()
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            slots = [asyncio.create_task(self._slot(session)) for _ in range(self._concurrency)]
            stop = asyncio.create_task(self._stop.wait())
            await asyncio.wait([stop, *slots], return_when=asyncio.FIRST_COMPLETED)
            for task in slots:
                task.cancel()
            stop.cancel()
            results = await asyncio.gather(*slots, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _slot(self, session: aiohttp.ClientSession) -> None:
        first_wave = True
        while True:
            index = self._num_sent
            self._num_sent += 1
            wanted = request(self._workload, self._vocab_size, index, first_wave=first_wave)
            first_wave = False
            body = {
                "model": self._model,
                "prompt": wanted.prompt,
                "max_tokens": wanted.osl_tokens,
                "min_tokens": wanted.osl_tokens,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            }
            record = RequestRecord(
                index=index, isl_tokens=len(wanted.prompt), osl_tokens=wanted.osl_tokens, sent_ns=time.monotonic_ns()
            )
            self._records.append(record)
            try:
                await self._stream(session, body, record)
                self._num_completed += 1
            except (aiohttp.ClientError, OSError, LoadError, TimeoutError) as error:
                record.end_ns = time.monotonic_ns()
                record.error = self._last_error = f"{type(error).__name__}: {error}"
                self._num_failed += 1
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _stream(self, session: aiohttp.ClientSession, body: dict[str, object], record: RequestRecord) -> None:
        """Send one request and stamp its tokens.

        Raises:
            LoadError: If the answer is no stream of the agreed form, or ends without all its tokens.
        """
        async with session.post(self._url, json=body) as response:
            if response.status != 200:
                text = " ".join((await response.text(errors="replace")).split())
                raise LoadError(f"HTTP {response.status}: {text[:200]}")
            done, num_uncounted, buffer = False, 0, b""
            async for data in response.content.iter_any():
                now_ns = time.monotonic_ns()
                *events, buffer = (buffer + data).replace(b"\r\n", b"\n").split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        done = True
                    elif not event or event.startswith(b":"):
                        continue  # a blank line or a comment, which keeps the connection alive
                    elif (usage := _usage(event)) is None:
                        num_uncounted += 1
                        self._stamp(record, now_ns, record.output_tokens + 1)
                    else:
                        self._spread(record, num_uncounted, usage)
                        num_uncounted = 0
                        self._stamp(record, now_ns, usage)
                self._client_cpu_s = time.thread_time()
        if not done:
            raise LoadError(f"the stream ended early, after {record.output_tokens} tokens and without [DONE]")
        if num_uncounted:
            raise LoadError("the server reports no usage, so its tokens cannot be counted")
        if record.output_tokens != record.osl_tokens:
            raise LoadError(f"{record.osl_tokens} tokens asked for, {record.output_tokens} received")
        record.end_ns = record.event_t_ns[-1]

    def _stamp(self, record: RequestRecord, now_ns: int, tokens: int) -> None:
        """Note that `tokens` have now arrived in all; an event that brings none is not stamped.

        Raises:
            LoadError: If there were more before.
        """
        before = record.output_tokens
        if tokens == before:
            return
        if tokens < before:
            raise LoadError(f"the running usage went backwards, from {before} to {tokens} tokens")
        record.event_t_ns.append(now_ns)
        record.event_tokens.append(tokens)
        self._output_tokens += tokens - before
        self._last_event_ns = now_ns

    def _spread(self, record: RequestRecord, num_chunks: int, tokens: int) -> None:
        """Share out the usage that is now known over the last `num_chunks` events, which came without.

        Raises:
            LoadError: If there were more tokens before those events.
        """
        if num_chunks == 0:
            return
        counted = record.event_tokens[:-num_chunks]
        before = counted[-1] if counted else 0
        if tokens < before:
            raise LoadError(f"the running usage went backwards, from {before} to {tokens} tokens")
        shares = [before + round((tokens - before) * (n + 1) / num_chunks) for n in range(num_chunks)]
        self._output_tokens += tokens - record.output_tokens
        record.event_tokens = counted + shares


def _usage(event: bytes) -> int | None:
    """Output tokens so far by the event's usage, or None where it carries text but no usage.

    Raises:
        LoadError: If the event is not of the form `data: {...}`, or is an error.
    """
    if not event.startswith(b"data:"):
        raise LoadError(f"malformed stream event {event[:80]!r}")
    found = _USAGE.search(event)
    if found:
        return int(found[1])
    if b'"error"' in event:
        raise LoadError(f"the server reports {event[5:200].decode(errors='replace').strip()}")
    if b'"choices"' not in event:
        raise LoadError(f"malformed stream event {event[:80]!r}")
    return None
