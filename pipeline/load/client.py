"""The streaming load client: keeps the requests of one operating point running and stamps every token as it arrives.

It runs in processes of its own (worker.py), so that nothing this one does delays a stamp; here are only the counters
that they share and the questions put to them. Times are those of the socket reads, on the monotonic clock.
"""

import dataclasses
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from pipeline.errors import ConfigError, LoadError
from pipeline.lengths import read_lengths
from pipeline.load.arrivals import Poisson, Schedule
from pipeline.load.counters import LAST_EVENT_NS, Counters
from pipeline.load.process import WorkerProcess
from pipeline.load.protocol import ClientSample, LoadSnapshot, RequestRecord
from pipeline.load.sequence import Sequence
from pipeline.load.worker import Job
from pipeline.workload import OperatingPoint, Workload

STREAMS_PER_WORKER = 128
"""At 60 tokens/s each they take a tenth of a core (`make bench-load`), which leaves stamps undelayed."""

TOKENS_PER_S_PER_WORKER = STREAMS_PER_WORKER * 60
"""The same for an open loop, which has no number of streams."""


class LoadClient:
    """One operating point of a workload against one OpenAI-compatible server; satisfies the Load protocol."""

    def __init__(
        self,
        url: str,
        model: str,
        workload: Workload,
        vocab_size: int,
        point: OperatingPoint,
        num_workers: int | None = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        """Prepare; nothing runs before `__enter__`.

        Args:
            url: Base address, e.g. http://127.0.0.1:8000.
            model: Served model name.
            workload: Lengths, arrival and seed of the request sequence.
            vocab_size: Prompts are token ids below this.
            point: The concurrency of a closed loop, or the request rate of an open one.
            num_workers: Processes that share the work; by default as many as it takes, of a quarter of the cores.
            max_prompt_tokens: Longest prompt that the engine takes; those of the first wave are cut to it.

        Raises:
            ConfigError: If workload and operating point do not fit each other, or the file of lengths cannot be read.
        """
        num_slots, arrivals, sequence = _load(workload, vocab_size, point, max_prompt_tokens)
        if num_workers is None:
            tokens_per_s = arrivals.rate_per_s * sequence.osl_tokens if arrivals is not None else 0.0
            wanted = math.ceil(max(num_slots / STREAMS_PER_WORKER, tokens_per_s / TOKENS_PER_S_PER_WORKER))
            num_workers = max(1, min(wanted, (os.cpu_count() or 1) // 4))
        self._jobs = [
            Job(
                url=url, model=model, sequence=sequence, worker=worker, num_workers=num_workers, arrivals=arrivals,
                num_slots=num_slots // num_workers + (worker < num_slots % num_workers),
            )
            for worker in range(num_workers)
        ]  # fmt: skip
        self._workers: list[WorkerProcess] = []
        self._counters: Counters | None = None
        self._records: list[RequestRecord] = []
        self._samples: list[ClientSample] = []
        self._failure: LoadError | None = None

    def __enter__(self) -> Self:
        """Start sending.

        Raises:
            LoadError: If a worker does not start.
        """
        try:
            with tempfile.TemporaryFile() as file:
                self._counters = Counters(file.fileno(), len(self._jobs))
                for number in range(len(self._jobs)):
                    self._workers.append(WorkerProcess(number, file.fileno()))
            for worker, job in zip(self._workers, self._jobs, strict=True):
                worker.tell(job)
            for worker in self._workers:
                worker.answer()
        except BaseException:
            self._stop()
            raise
        start_ns = time.monotonic_ns()
        for worker in self._workers:
            self._counters.of(worker.number)[LAST_EVENT_NS] = start_ns
            worker.tell(start_ns)
        return self

    def __exit__(self, *exc: object) -> None:
        """Cancel what is in flight and end the workers; after an error, without their last word.

        An interrupt may have come between a question and its answer, which would be taken for that to the next.
        """
        if exc and exc[0] is not None:
            self._stop()
            return
        try:
            final = self._ask("stop")
            self._records = [record for records, _ in final for record in records]
            self._samples = [sample for _, samples in final for sample in samples]
        except LoadError as error:
            self._failure = error
        finally:
            self._stop()

    def snapshot(self) -> LoadSnapshot:
        """Where the load stands now.

        Raises:
            LoadError: If the client itself has failed, or was never started.
        """
        self._check()
        if self._counters is None:
            raise LoadError("the load was not started")
        return self._counters.snapshot()

    def records(self) -> list[RequestRecord]:
        """Every request so far, in the order sent; running ones as far as they have come. They are the caller's own.

        Raises:
            LoadError: If the client itself has failed.
        """
        self._check()
        if self._workers:
            records = [record for part in self._ask("records") for record in part]
        else:
            records = [
                dataclasses.replace(r, event_t_ns=r.event_t_ns[:], event_tokens=r.event_tokens[:])
                for r in self._records
            ]
        return sorted(records, key=lambda record: (record.sent_ns, record.index))

    def client_samples(self) -> list[ClientSample]:
        """What the workers say of themselves so far, in order of time.

        Raises:
            LoadError: If the client itself has failed.
        """
        self._check()
        samples = [sample for part in self._ask("samples") for sample in part] if self._workers else self._samples
        return sorted(samples, key=lambda sample: sample.t_ns)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        for worker in self._workers:
            worker.check()

    def _ask(self, question: str) -> list[Any]:
        """Ask all workers, who answer at the same time.

        Raises:
            LoadError: If one does not answer.
        """
        for worker in self._workers:
            worker.tell(question)
        return [worker.answer() for worker in self._workers]

    def _stop(self) -> None:
        while self._workers:
            self._workers.pop().stop()


def _load(
    workload: Workload, vocab_size: int, point: OperatingPoint, max_prompt_tokens: int | None
) -> tuple[int, Poisson | Schedule | None, Sequence]:
    """Slots of a closed loop, arrivals of an open one, and the requests of either.

    Raises:
        ConfigError: If workload and operating point do not fit each other, or the file of lengths cannot be read.
    """
    lengths = read_lengths(Path(workload.lengths_file)) if workload.lengths_file is not None else None
    num_slots = 0
    arrivals: Poisson | Schedule | None = None
    match workload.arrival, point.concurrency, point.request_rate_per_s, lengths and lengths.at_s:
        case "closed", int(concurrency), None, _:
            num_slots = concurrency
        case "poisson", None, float(rate_per_s), _:
            arrivals = Poisson(rate_per_s, workload.seed)
        case "schedule", None, None, tuple(at_s):
            arrivals = Schedule(at_s)
        case _:
            raise ConfigError(f"workload.arrival={workload.arrival}: cannot send {point}")
    sequence = Sequence(
        seed=workload.seed,
        vocab_size=vocab_size,
        isl_tokens=workload.isl_tokens,
        osl_tokens=workload.osl_tokens,
        length_ratio_min=workload.length_ratio_min,
        pairs=lengths.pairs if lengths else None,
        is_in_line_order=workload.arrival == "schedule",
        shared_prefix_tokens=workload.shared_prefix_tokens,
        num_first_wave=num_slots,
        max_prompt_tokens=max_prompt_tokens,
    )
    return num_slots, arrivals, sequence
