"""The read loop: one thread per device, so several GPUs are read in parallel.

A read waits in the driver, where ctypes has released the interpreter lock.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import MeterError
from pipeline.meter.source import ReadOnce, Sink, Source

_LOG = logging.getLogger(__name__)

STALLED_S = 5.0
"""A device whose read has not come back for this long has stopped answering: fifty refreshes of a 100 ms sensor."""


@contextmanager
def sampled_in_threads(source: Source, period_s: float, sink: Sink) -> Iterator[None]:
    """Sample every device of `source` in this process while the context lasts.

    The first reading of each device is taken in the caller's thread. A device whose read fails is read no more.
    At the end, a read that hangs in the driver is logged and left behind.

    Args:
        source: What to read.
        period_s: From one read to the next, seconds; a missed read is skipped, not made up for in a burst.
        sink: Gets every observation, and the error that ended a device's readings.

    Raises:
        MeterError: If a first reading fails.
    """
    stop = threading.Event()
    with source.open() as devices:
        for device, read_once in devices.items():
            sink(device, read_once())
        threads = [
            threading.Thread(
                target=_read_on, args=(device, read_once, period_s, stop, sink), name=f"meter-{device}", daemon=True
            )
            for device, read_once in devices.items()
        ]
        try:
            for thread in threads:
                thread.start()
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(STALLED_S)
                if thread.is_alive():
                    _LOG.warning("%s: a read does not return; its thread is left behind", thread.name)


def _read_on(device: str, read_once: ReadOnce, period_s: float, stop: threading.Event, sink: Sink) -> None:
    """Read one device until `stop`; the last word to the sink is the error, if it was one that ended it."""
    try:
        _read_until(stop, device, read_once, round(period_s * 1e9), sink)
    except MeterError as error:
        sink(device, error)
    except Exception as error:
        sink(device, MeterError(f"{device}: {error!r}"))
        raise


def _read_until(stop: threading.Event, device: str, read_once: ReadOnce, period_ns: int, sink: Sink) -> None:
    due_ns = time.monotonic_ns()
    while True:
        now_ns = time.monotonic_ns()
        due_ns = max(due_ns + period_ns, now_ns)
        if stop.wait((due_ns - now_ns) / 1e9):
            return
        sink(device, read_once())
