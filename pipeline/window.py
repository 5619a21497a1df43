"""What happened between t0 and t1: pure functions from request records to the load side of one window.

Tokens count when they arrive in [t0, t1). Tokens of requests in flight at t1 count; those of failed requests do
not. Latencies are taken from requests whose defining event lies in the window. Percentiles are nearest rank. Where
an open loop was to send a request at a given time its latencies count from then, sent late or not: a client that
waits for a slow server must not hide the waiting (coordinated omission).
"""

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.percentile import percentile, percentile_bounds
from pipeline.steadiness import drift
from pipeline.workload import OperatingPoint

STALLED_S = 10.0
"""A stream that brings nothing for so long is dead: it counts as failed, and no longer as a request in flight. The
slowest decode step or chunked prefill takes a second or two."""


class Streamed(Protocol):
    """What a window needs to know of a request; times on the monotonic clock, nanoseconds."""

    isl_tokens: int
    sent_ns: int
    due_ns: int | None
    event_t_ns: Sequence[int]
    event_tokens: Sequence[int]
    end_ns: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWindow:
    """The load side of one window; None where no request says anything.

    Attributes:
        occupancy: Mean requests in flight / concurrency; None in an open loop.
        block_tokens: Output tokens per block, in order; blocks are of equal length and tile the window.
        drift: Change of tokens/s over the window by a linear fit over the blocks / their mean.
        itl_p50_s: Inter-token latency: time since the request's previous event / tokens that the event brought. Each
            token counts once, so an event of four counts four times; those of a request's first event are in TTFT.
        The rest are columns of `Row`.
    """

    output_tokens: int
    input_tokens: int
    num_completed: int
    num_failed: int
    occupancy: float | None
    block_tokens: tuple[int, ...]
    drift: float | None
    isl_mean_tokens: float | None
    osl_mean_tokens: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    ttft_p99_low_s: float | None
    ttft_p99_high_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    tpot_p99_low_s: float | None
    tpot_p99_high_s: float | None
    itl_p50_s: float | None
    itl_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None


def summarise(records: Sequence[Streamed], t0_ns: int, t1_ns: int, block_s: float, point: OperatingPoint) -> LoadWindow:
    """The load side of the window [t0_ns, t1_ns).

    Args:
        records: Every request that touches the window; running ones as far as they came.
        t0_ns: Start, inclusive.
        t1_ns: End, exclusive.
        block_s: Wanted block length; blocks are made to tile the window, at least one.
        point: The load.
    """
    good = _good(records, t1_ns)
    events = _Events.of(good)
    blocks = events.per_block(t0_ns, t1_ns, max(1, round((t1_ns - t0_ns) * 1e-9 / block_s)))
    started = [r for r in good if len(r.event_t_ns) and t0_ns <= r.event_t_ns[0] < t1_ns]
    completed = [r for r in good if r.end_ns is not None and t0_ns <= r.end_ns < t1_ns]
    ttft_s = [(r.event_t_ns[0] - _asked_ns(r)) * 1e-9 for r in started]
    e2e_s = [(r.event_t_ns[-1] - _asked_ns(r)) * 1e-9 for r in completed]
    tpot_s = [tpot for r in completed if (tpot := _tpot_s(r)) is not None]
    itl_s = events.token_gaps_s(t0_ns, t1_ns)
    ttft_low_s, ttft_high_s = percentile_bounds(ttft_s, 0.99)
    tpot_low_s, tpot_high_s = percentile_bounds(tpot_s, 0.99)
    return LoadWindow(
        output_tokens=sum(blocks),
        input_tokens=sum(r.isl_tokens for r in started),
        num_completed=len(completed),
        num_failed=sum(r.error is not None and r.sent_ns < t1_ns and _last_ns(r) >= t0_ns for r in records)
        + sum(_is_stalled(r, t1_ns) for r in records),
        occupancy=None if point.concurrency is None
        else sum(_overlap_ns(r, t0_ns, t1_ns) for r in good) / (t1_ns - t0_ns) / point.concurrency,
        block_tokens=blocks,
        drift=drift(blocks),
        isl_mean_tokens=_mean([r.isl_tokens for r in completed]),
        osl_mean_tokens=_mean([r.event_tokens[-1] for r in completed]),
        ttft_p50_s=percentile(ttft_s, 0.5),
        ttft_p99_s=percentile(ttft_s, 0.99),
        ttft_p99_low_s=ttft_low_s,
        ttft_p99_high_s=ttft_high_s,
        tpot_p50_s=percentile(tpot_s, 0.5),
        tpot_p99_s=percentile(tpot_s, 0.99),
        tpot_p99_low_s=tpot_low_s,
        tpot_p99_high_s=tpot_high_s,
        itl_p50_s=percentile(itl_s, 0.5),
        itl_p99_s=percentile(itl_s, 0.99),
        e2e_p50_s=percentile(e2e_s, 0.5),
        e2e_p99_s=percentile(e2e_s, 0.99),
    )  # fmt: skip


def block_tokens(records: Sequence[Streamed], t0_ns: int, t1_ns: int, num_blocks: int) -> tuple[int, ...]:
    """Output tokens per block of equal length; those of failed requests do not count."""
    return _Events.of(_good(records, t1_ns)).per_block(t0_ns, t1_ns, num_blocks)


def tokens_between(records: Sequence[Streamed], t0_ns: int, t1_ns: int) -> int:
    """Output tokens that arrived in [t0_ns, t1_ns), failed requests included: what an engine counts as well."""
    return _Events.of(records).per_block(t0_ns, t1_ns, 1)[0]


@dataclass(frozen=True, slots=True)
class _Events:
    """The stream events of many requests that brought tokens, one request after the other.

    Attributes:
        t_ns: When each arrived.
        tokens: Tokens it brought.
        gap_ns: Time since the event before it of the same request; negative for a request's first.
    """

    t_ns: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    gap_ns: npt.NDArray[np.int64]

    @classmethod
    def of(cls, records: Sequence[Streamed]) -> "_Events":
        """Gather the events of some requests."""
        streams = [record for record in records if len(record.event_t_ns)]
        if not streams:
            nothing = np.empty(0, dtype=np.int64)
            return cls(nothing, nothing, nothing)
        t_ns = np.concatenate([np.array(record.event_t_ns, dtype=np.int64) for record in streams])
        tokens = np.concatenate([np.array(record.event_tokens, dtype=np.int64) for record in streams])
        owner = np.repeat(np.arange(len(streams)), [len(record.event_t_ns) for record in streams])
        is_first = np.diff(owner, prepend=-1) > 0
        tokens = np.diff(tokens, prepend=0) * ~is_first + tokens * is_first
        if not tokens.all():
            some = tokens > 0
            t_ns, tokens, owner = t_ns[some], tokens[some], owner[some]
            is_first = np.diff(owner, prepend=-1) > 0
        return cls(t_ns, tokens, np.where(is_first, -1, np.diff(t_ns, prepend=0)))

    def per_block(self, t0_ns: int, t1_ns: int, num_blocks: int) -> tuple[int, ...]:
        """Tokens per equal block of [t0_ns, t1_ns)."""
        inside = (self.t_ns >= t0_ns) & (self.t_ns < t1_ns)
        block = (self.t_ns[inside] - t0_ns) * num_blocks // (t1_ns - t0_ns)
        return tuple(int(n) for n in np.bincount(block, self.tokens[inside], num_blocks))

    def token_gaps_s(self, t0_ns: int, t1_ns: int) -> npt.NDArray[np.float64]:
        """Inter-token latency of every token that arrived in [t0_ns, t1_ns) after its request's first event."""
        later = (self.t_ns >= t0_ns) & (self.t_ns < t1_ns) & (self.gap_ns >= 0)
        return np.repeat(self.gap_ns[later] * 1e-9 / self.tokens[later], self.tokens[later])


def _good(records: Sequence[Streamed], t1_ns: int) -> list[Streamed]:
    return [record for record in records if record.error is None and not _is_stalled(record, t1_ns)]


def _is_stalled(record: Streamed, t1_ns: int) -> bool:
    """Whether a stream had begun, and brought nothing in the last STALLED_S before t1 though it was not over."""
    num_before = bisect_left(record.event_t_ns, t1_ns)
    if record.error is not None or num_before == 0 or (record.end_ns is not None and record.end_ns < t1_ns):
        return False
    return t1_ns - record.event_t_ns[num_before - 1] > STALLED_S * 1e9


def _asked_ns(record: Streamed) -> int:
    """When its user wanted it answered."""
    return record.sent_ns if record.due_ns is None else record.due_ns


def _tpot_s(record: Streamed) -> float | None:
    """(last token - first token) / (tokens after the first event); None where they all came at once."""
    tokens = record.event_tokens[-1] - record.event_tokens[0]
    return (record.event_t_ns[-1] - record.event_t_ns[0]) * 1e-9 / tokens if tokens else None


def _last_ns(record: Streamed) -> int:
    """When the request ended, or when it was last heard of."""
    if record.end_ns is not None:
        return record.end_ns
    return record.event_t_ns[-1] if len(record.event_t_ns) else record.sent_ns


def _overlap_ns(record: Streamed, t0_ns: int, t1_ns: int) -> int:
    end_ns = t1_ns if record.end_ns is None else min(record.end_ns, t1_ns)
    return max(0, end_ns - max(record.sent_ns, t0_ns))


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
