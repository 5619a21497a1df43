"""What a load promises: timestamped token counts per request, on the monotonic clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """What became of one request.

    Attributes:
        index: Position in the request sequence.
        isl_tokens: Prompt length as sent.
        osl_tokens: Output length asked for.
        sent_ns: Monotonic clock when the request was sent.
        event_t_ns: Time of each stream event that carried output, nanoseconds.
        event_tokens: Output tokens received up to and including that event (cumulative).
        end_ns: When the stream ended or failed; None while it runs or when we cancelled it.
        error: What went wrong; None if nothing did.
        due_ns: When an open loop was to send it; None in a closed loop, which sends when it can.
        num_uncounted: Last events that came without usage and stand for a token each until a usage total comes.
    """

    index: int
    isl_tokens: int
    osl_tokens: int
    sent_ns: int
    event_t_ns: Sequence[int] = field(default_factory=list)
    event_tokens: Sequence[int] = field(default_factory=list)
    end_ns: int | None = None
    error: str | None = None
    due_ns: int | None = None
    num_uncounted: int = 0

    @property
    def is_completed(self) -> bool:
        """Whether it ended with all its tokens."""
        return self.end_ns is not None and self.error is None

    @property
    def output_tokens(self) -> int:
        """Output tokens received so far."""
        return self.event_tokens[-1] if self.event_tokens else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSnapshot:
    """Where a running load stands.

    Attributes:
        output_tokens: Output tokens received since the start, over all requests.
        num_completed: Requests that ended well.
        num_failed: Requests that failed.
        last_error: Text of the last failure.
        num_in_flight: Requests sent and not ended.
        last_event_ns: When output last arrived; the start of the load before the first.
    """

    output_tokens: int
    num_completed: int
    num_failed: int
    last_error: str | None
    num_in_flight: int
    last_event_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSample:
    """What one worker process of the client says of itself, several times a second.

    Attributes:
        t_ns: Monotonic clock.
        worker: Its number, from 0.
        cpu_s: CPU seconds it has used since it started.
        lag_s: How late its timer fired: stamps of events may be late by as much.
    """

    t_ns: int
    worker: int
    cpu_s: float
    lag_s: float


class Load(Protocol):
    """Requests kept running from `__enter__` to `__exit__`."""

    def __enter__(self) -> Self:
        """Start sending."""
        ...

    def __exit__(self, *exc: object) -> None:
        """Stop: requests in flight are cancelled, which is no failure."""
        ...

    def snapshot(self) -> LoadSnapshot:
        """Where the load stands now. Non-blocking."""
        ...

    def records(self) -> list[RequestRecord]:
        """Every request so far, in the order sent; running ones as far as they have come."""
        ...

    def client_samples(self) -> list[ClientSample]:
        """What the client says of itself so far, in order of time."""
        ...
