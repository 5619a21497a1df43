"""Where the workers of a client stand, in a page of memory that they share with the parent.

A worker writes its own counters with plain stores of eight aligned bytes, which no reader sees half done; the parent
reads them whenever it likes and costs the workers nothing.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager

from pipeline.load.protocol import LoadSnapshot

OUTPUT_TOKENS, LAST_EVENT_NS, NUM_COMPLETED, NUM_FAILED, NUM_IN_FLIGHT, LAST_FAILURE_NS = range(6)
"""Places of a worker's counters, 8 bytes each."""

_BLOCK_BYTES = 1024
_WORDS = _BLOCK_BYTES // 8
_TEXTS_AT = 64
"""Where a worker's block has its last two failures: one is there to be read while the other is written."""

_TEXT_BYTES = (_BLOCK_BYTES - _TEXTS_AT) // 2


class Counters:
    """The shared page: one block for all, then one for each worker."""

    def __init__(self, descriptor: int, num_workers: int) -> None:
        """Map the file, which is made as long as it needs to be."""
        self._descriptor = descriptor
        self._num_workers = num_workers
        os.ftruncate(descriptor, _BLOCK_BYTES * (num_workers + 1))
        self._bytes = mmap.mmap(descriptor, _BLOCK_BYTES * (num_workers + 1))
        self._words = memoryview(self._bytes).cast("q")

    def of(self, worker: int) -> MutableSequence[int]:
        """The counters of one worker."""
        return self._words[_WORDS * (worker + 1) : _WORDS * (worker + 2)]  # type: ignore[return-value]

    @contextmanager
    def next_index(self) -> Iterator[int]:
        """The next place in the request sequence, which no other worker gets; they wait until the context ends.

        The lock is one that the kernel takes back from a worker that dies.
        """
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield self._words[0]
            self._words[0] += 1
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def fail(self, worker: int, text: str, now_ns: int) -> None:
        """A request that was under way has failed: count it and keep why."""
        counters = self.of(worker)
        number = counters[NUM_FAILED] + 1
        self._bytes[self._text(worker, number)] = text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")
        counters[LAST_FAILURE_NS] = now_ns
        counters[NUM_FAILED] = number
        counters[NUM_IN_FLIGHT] -= 1

    def snapshot(self) -> LoadSnapshot:
        """Sums over the workers."""
        blocks = [self.of(worker) for worker in range(self._num_workers)]
        last_failed = max(range(self._num_workers), key=lambda worker: blocks[worker][LAST_FAILURE_NS])
        return LoadSnapshot(
            output_tokens=sum(block[OUTPUT_TOKENS] for block in blocks),
            num_completed=sum(block[NUM_COMPLETED] for block in blocks),
            num_failed=sum(block[NUM_FAILED] for block in blocks),
            last_error=self._last_error(last_failed),
            num_in_flight=sum(block[NUM_IN_FLIGHT] for block in blocks),
            last_event_ns=max(block[LAST_EVENT_NS] for block in blocks),
        )

    def _last_error(self, worker: int) -> str | None:
        counters = self.of(worker)
        while number := counters[NUM_FAILED]:
            text = self._bytes[self._text(worker, number)]
            if counters[NUM_FAILED] == number:  # else it may have been overwritten meanwhile
                return text.rstrip(b"\0").decode(errors="ignore")
        return None

    @staticmethod
    def _text(worker: int, number: int) -> slice:
        start = _BLOCK_BYTES * (worker + 1) + _TEXTS_AT + _TEXT_BYTES * (number % 2)
        return slice(start, start + _TEXT_BYTES)
