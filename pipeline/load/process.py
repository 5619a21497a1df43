"""A worker process as its parent sees it."""

from contextlib import suppress
from typing import Any

from pipeline.child import start_child
from pipeline.errors import LoadError

ANSWER_S = 60.0
"""The records of hours under load are told in less; only a hang lasts longer."""


class WorkerProcess:
    """One worker; ends with `stop`, or with this process.

    Attributes:
        number: Of the worker, from 0.
    """

    def __init__(self, number: int, counters_descriptor: int) -> None:
        """Start it; it waits for its job."""
        self.number = number
        self._failure: LoadError | None = None
        self._name = f"load client worker {number}"
        self._process, self._pipe = start_child(
            "pipeline.load.worker",
            counters_descriptor,
            descriptors=(counters_descriptor,),
            environ={"OPENBLAS_NUM_THREADS": "1"},  # it would start a thread for every core
        )

    def tell(self, message: Any) -> None:
        """Send something; that the worker is gone shows when it is to answer."""
        with suppress(OSError):
            self._pipe.send(message)

    def answer(self) -> Any:
        """The next thing it says.

        Raises:
            LoadError: If it failed, ended, or says nothing; from then on always.
        """
        if self._failure is None:
            try:
                answer = self._pipe.recv() if self._pipe.poll(ANSWER_S) else None
            except (EOFError, OSError):
                self._process.kill()  # without a pipe it is as good as dead
                self._failure = LoadError(f"{self._name} ended with exit status {self._process.wait()}")
            else:
                if not isinstance(answer, LoadError | None):
                    return answer
                self._failure = answer or LoadError(f"{self._name} does not answer within {ANSWER_S:g} s")
        raise self._failure

    def check(self) -> None:
        """See that it is well.

        Raises:
            LoadError: If not.
        """
        if self._failure is not None or self._pipe.poll():  # unasked it only says why it failed
            self.answer()

    def stop(self) -> None:
        """End it, at once; the server sees its connections close."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
