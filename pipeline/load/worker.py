"""One process of the load client: keeps its share of the requests running and tells at any time how far they are.

Run by process.py, which sends a Job, then the time to start, and then asks; every question has one answer. The process
ends when told to, when the pipe closes, as it does when the parent dies, or when it fails, and then it says why.
"""

import asyncio
import gc
import math
import os
import resource
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from traceback import format_exception
from typing import Any, NoReturn

import uvloop

from pipeline.errors import LoadError
from pipeline.load.arrivals import Poisson, Schedule
from pipeline.load.connection import Connection, connect
from pipeline.load.counters import NUM_IN_FLIGHT, Counters
from pipeline.load.message import MessageWriter
from pipeline.load.protocol import ClientSample, RequestRecord
from pipeline.load.sequence import Sequence
from pipeline.load.tally import Tally

RETRY_PAUSE_S = 0.1
"""Pause of a slot after a failed request, so that a dead server is not hammered."""

SAMPLE_S = 0.05
"""How often a worker notes its CPU time and lag; timers count milliseconds, so a smaller lag means nothing."""

MAX_IDLE_S = 1.0
"""An open loop leaves alone a connection that lay idle for longer: servers close those unasked, some after 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one worker is to do.

    Attributes:
        url: Base address of the server.
        model: Served model name.
        sequence: The requests of all workers.
        worker: Number of this one, from 0.
        num_workers: How many there are.
        num_slots: Requests that this one keeps in flight; 0 in an open loop.
        arrivals: When the workers of an open loop send; None in a closed loop.
    """

    url: str
    model: str
    sequence: Sequence
    worker: int
    num_workers: int
    num_slots: int
    arrivals: Poisson | Schedule | None


class Worker:
    """The requests of one job, in a running event loop."""

    def __init__(self, job: Job, counters: Counters, pipe: Pipe, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the parent; send nothing yet."""
        self._job = job
        self._counters = counters
        self._own = counters.of(job.worker)
        self._pipe = pipe
        self._loop = loop
        self._writer = MessageWriter(job.url, job.model, job.sequence.vocab_size)
        self._records: list[RequestRecord] = []
        self._samples: list[ClientSample] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[Connection] = []
        loop.set_exception_handler(self._on_loop_error)
        loop.add_reader(pipe.fileno(), self._answer)
        os.set_blocking(pipe.fileno(), True)

    def _answer(self) -> None:
        """Do what the parent says; leave when it is gone."""
        try:
            question = self._pipe.recv()
            if question == "records":
                self._pipe.send(self._records)
            elif question == "samples":
                self._pipe.send(self._samples)
            elif question == "stop":
                self._pipe.send((self._records, self._samples))
                os._exit(0)  # nothing is counted after this; the kernel closes the connections
            else:
                self._start(question)
        except (EOFError, OSError):
            os._exit(1)

    def _start(self, start_ns: int) -> None:
        if self._job.arrivals is None:
            for _ in range(self._job.num_slots):
                self._spawn(self._slot())
        else:
            self._spawn(self._arrive(self._job.arrivals, start_ns))
        self._sample(time.monotonic_ns())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if (error := task.exception()) is not None:
            self._give_up(error)

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, OSError):  # that of a connection is its request's
            self._give_up(error)

    def _give_up(self, error: BaseException) -> NoReturn:
        failure = LoadError(f"the load client failed: {error!r}")
        failure.add_note("".join(format_exception(error)))
        with suppress(OSError):
            self._pipe.send(failure)
        os._exit(1)

    def _sample(self, due_ns: int) -> None:
        now_ns = time.monotonic_ns()
        self._samples.append(
            ClientSample(
                t_ns=now_ns, worker=self._job.worker, cpu_s=time.process_time(), lag_s=max(0, now_ns - due_ns) * 1e-9
            )
        )
        self._loop.call_later(SAMPLE_S, self._sample, now_ns + round(SAMPLE_S * 1e9))

    async def _slot(self) -> None:
        """Send one request after the other."""
        connection: Connection | None = None
        while True:
            if connection is None or connection.idle_since_ns is None:
                connection = await connect(self._job.url)
            with self._counters.next_index() as index:
                record, message = self._request(index)
                ended = connection.send(message, Tally(record, self._own))
            await self._conclude(record, ended)
            if record.error is not None:
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _arrive(self, arrivals: Poisson | Schedule, start_ns: int) -> None:
        """Send every request of ours when it is due, whatever has become of the others."""
        for index, at_s in enumerate(arrivals.times_s()):
            if index % self._job.num_workers == self._job.worker:
                due_ns = start_ns + round(at_s * 1e9)
                await asyncio.sleep(0)  # others have their turn even when we are late
                while (left_ns := due_ns - time.monotonic_ns()) > 0:  # noqa: ASYNC110  # the clock sets no event
                    await asyncio.sleep(math.ceil(left_ns * 1e-6) * 1e-3)  # timers of the loop count milliseconds
                self._spawn(self._arrival(index, due_ns))

    async def _arrival(self, index: int, due_ns: int) -> None:
        record, message = self._request(index, due_ns)
        connection = self._take_idle() or await connect(self._job.url)
        record.sent_ns = time.monotonic_ns()
        await self._conclude(record, connection.send(message, Tally(record, self._own)))
        if connection.idle_since_ns is not None:
            self._idle.append(connection)

    def _take_idle(self) -> Connection | None:
        """The connection that was idle for the shortest, closing those that were for long."""
        while self._idle:
            connection = self._idle.pop()
            since_ns = connection.idle_since_ns
            if since_ns is not None and time.monotonic_ns() - since_ns < MAX_IDLE_S * 1e9:
                return connection
            connection.close()
        return None

    def _request(self, index: int, due_ns: int | None = None) -> tuple[RequestRecord, bytes]:
        """A request that is under way from now on, and the bytes to send."""
        request = self._job.sequence.request(index)
        message = self._writer.message(request.prompt, request.osl_tokens)
        record = RequestRecord(
            index=index, isl_tokens=len(request.prompt), osl_tokens=request.osl_tokens, sent_ns=time.monotonic_ns(),
            due_ns=due_ns,
        )  # fmt: skip
        self._records.append(record)
        self._own[NUM_IN_FLIGHT] += 1
        return record, message

    async def _conclude(self, record: RequestRecord, ended: "asyncio.Future[None]") -> None:
        """Wait for the end of a request; one that failed is counted here, one that did not by its tally."""
        try:
            await ended
        except LoadError as error:
            record.end_ns, record.error = time.monotonic_ns(), str(error)
            self._counters.fail(self._job.worker, record.error, record.end_ns)


def main(pipe_descriptor: int, counters_descriptor: int) -> None:
    """Be a worker until the parent says stop, closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, ValueError):  # a connection each; what the system allows is what there is
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # a collection would hold up stamps, and a worker lives for one load
    with Pipe(pipe_descriptor) as pipe, suppress(EOFError, OSError):
        job = pipe.recv()
        loop = uvloop.new_event_loop()
        Worker(job, Counters(counters_descriptor, job.num_workers), pipe, loop)
        pipe.send("ready")
        loop.run_forever()
