"""Sampling in a process of its own: nothing that keeps this interpreter busy makes a reading late.

The child runs the same read loop (threads.py) and sends what it reads in batches over a pipe. The monotonic clock is
one for all processes of a machine (CLOCK_MONOTONIC, clock_gettime(2)), so its times need no conversion.
"""

import logging
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection

from pipeline.child import start_child
from pipeline.errors import MeterError
from pipeline.meter.source import Observation, Sink, Source
from pipeline.meter.threads import STALLED_S, sampled_in_threads

_LOG = logging.getLogger(__name__)

BATCH_S = 0.05
"""How old an observation is at most when it is sent; with a 20 ms period a reading is less than 100 ms old."""

START_S = 60.0
"""The driver takes seconds to wake eight GPUs without persistence mode; only a hang takes this long."""

_Batch = list[tuple[str, Observation | MeterError]]


@contextmanager
def sampled_in_process(source: Source, period_s: float, sink: Sink) -> Iterator[None]:
    """Sample every device of `source` in a child process while the context lasts.

    The child never outlives the context or this process, and Ctrl-C does not reach it. If it dies, the readings of all
    devices end with an error.

    Args:
        source: What to read; pickled.
        period_s: From one read to the next, seconds.
        sink: Gets every observation, and the error that ended a device's readings; called in a thread of this process.

    Raises:
        MeterError: If a first reading fails, or none comes.
    """
    with _child() as (child, pipe):
        with suppress(OSError):
            pipe.send((source, period_s))
        devices = _receive_first(child, pipe, sink)
        stopping = threading.Event()

        def forward() -> None:
            with suppress(EOFError, OSError):
                while True:
                    _pass_on(pipe.recv(), sink)
            if not stopping.is_set():
                for device in devices:
                    sink(device, MeterError(f"{device}: the sampling process ended ({_status(child)})"))

        receiver = threading.Thread(target=forward, name="meter-receiver", daemon=True)
        receiver.start()
        try:
            yield
        finally:
            stopping.set()
            _stop(child, pipe)
            receiver.join(STALLED_S)


@contextmanager
def _child() -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """A child and our end of the pipe to it; neither is left."""
    child, ours = start_child("pipeline.meter.process", os.getpid())
    with ours:
        try:
            yield child, ours
        finally:
            child.kill()
            child.wait()


def _receive_first(child: subprocess.Popen[bytes], pipe: Connection, sink: Sink) -> set[str]:
    """Pass on the first reading of every device; returns the devices.

    Raises:
        MeterError: If there is none.
    """
    try:
        if not pipe.poll(START_S):
            raise MeterError(f"the first reading did not come within {START_S:g} s; see whether nvidia-smi hangs too")
        first = pipe.recv()
    except (EOFError, OSError) as error:
        raise MeterError(f"the sampling process ended before its first reading ({_status(child)})") from error
    if isinstance(first, MeterError):
        raise first
    _pass_on(first, sink)
    return {device for device, _ in first}


def _pass_on(batch: _Batch, sink: Sink) -> None:
    for device, seen in batch:
        sink(device, seen)


def _stop(child: subprocess.Popen[bytes], pipe: Connection) -> None:
    """Let the child send what it still has, and end."""
    with suppress(OSError):
        pipe.send(None)
    try:
        child.wait(STALLED_S)
    except subprocess.TimeoutExpired:
        _LOG.warning("the sampling process does not end, so a read hangs in the driver; it is killed")
        child.kill()


def _status(child: subprocess.Popen[bytes]) -> str:
    try:
        return f"exit status {child.wait(STALLED_S)}"
    except subprocess.TimeoutExpired:
        return "still running, its pipe is closed"


def main(descriptor: int, parent_pid: int) -> None:
    """Be the child: sample until the parent says stop, closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pending: deque[tuple[str, Observation | MeterError]] = deque()

    def batch() -> _Batch:
        return [pending.popleft() for _ in range(len(pending))]

    with Connection(descriptor) as pipe, suppress(EOFError, ConnectionError):
        source, period_s = pipe.recv()
        with ExitStack() as sampling:
            try:
                sampling.enter_context(
                    sampled_in_threads(source, period_s, lambda device, seen: pending.append((device, seen)))
                )
            except MeterError as error:
                pipe.send(error)
                return
            pipe.send(batch())
            while os.getppid() == parent_pid and not pipe.poll(BATCH_S):
                pipe.send(batch())
        pipe.send(batch())
