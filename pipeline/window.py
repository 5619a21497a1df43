"""What happened between t0 and t1: pure functions from request records to the numbers of one window.

Tokens count when they arrive in [t0, t1). Tokens of requests in flight at t1 count; those of failed requests do
not. Latencies are taken from requests whose defining event lies in the window. Percentiles are nearest rank.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from scipy import stats

MAX_EXCUSED_DRIFT = 0.25
"""Noise explains no larger one: with few blocks a curved ramp has a wide interval too."""

MIN_BLOCK_SHARE = 0.5
"""Kernels that compile under load, or a preempted batch, halve a block at least."""


class Streamed(Protocol):
    """What a window needs to know of a request; times on the monotonic clock, nanoseconds."""

    isl_tokens: int
    sent_ns: int
    event_t_ns: list[int]
    event_tokens: list[int]
    end_ns: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWindow:
    """The load side of one window; None where no request says anything.

    Attributes:
        block_tokens: Output tokens per block, in order; blocks are of equal length and tile the window.
        drift: Change of tokens/s over the window by a linear fit over the blocks / their mean.
        The rest are columns of `Row`.
    """

    output_tokens: int
    input_tokens: int
    num_completed: int
    num_failed: int
    occupancy: float
    block_tokens: tuple[int, ...]
    drift: float | None
    isl_mean_tokens: float | None
    osl_mean_tokens: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None


def summarise(records: Sequence[Streamed], t0_ns: int, t1_ns: int, block_s: float, concurrency: int) -> LoadWindow:
    """The load side of the window [t0_ns, t1_ns).

    Args:
        records: Every request that touches the window; running ones as far as they came.
        t0_ns: Start, inclusive.
        t1_ns: End, exclusive.
        block_s: Wanted block length; blocks are made to tile the window, at least one.
        concurrency: Requests the client meant to keep in flight.
    """
    num_blocks = max(1, round((t1_ns - t0_ns) * 1e-9 / block_s))
    edges = np.linspace(t0_ns, t1_ns, num_blocks + 1)
    good = [record for record in records if record.error is None]
    blocks = np.zeros(num_blocks, dtype=np.int64)
    for record in good:
        times = np.asarray(record.event_t_ns, dtype=np.float64)
        steps = np.diff(np.asarray(record.event_tokens, dtype=np.int64), prepend=0)
        blocks += np.histogram(times[times < t1_ns], edges, weights=steps[times < t1_ns])[0].astype(np.int64)
    started = [r for r in good if r.event_t_ns and t0_ns <= r.event_t_ns[0] < t1_ns]
    completed = [r for r in good if r.end_ns is not None and t0_ns <= r.end_ns < t1_ns]
    ttft_s = [(r.event_t_ns[0] - r.sent_ns) * 1e-9 for r in started]
    e2e_s = [(r.event_t_ns[-1] - r.sent_ns) * 1e-9 for r in completed]
    tpot_s = [tpot for r in completed if (tpot := _tpot_s(r)) is not None]
    return LoadWindow(
        output_tokens=int(blocks.sum()),
        input_tokens=sum(r.isl_tokens for r in started),
        num_completed=len(completed),
        num_failed=sum(r.error is not None and r.sent_ns < t1_ns and _last_ns(r) >= t0_ns for r in records),
        occupancy=sum(_overlap_ns(r, t0_ns, t1_ns) for r in good) / (t1_ns - t0_ns) / concurrency,
        block_tokens=tuple(int(n) for n in blocks),
        drift=drift([float(n) for n in blocks]),
        isl_mean_tokens=_mean([r.isl_tokens for r in completed]),
        osl_mean_tokens=_mean([r.event_tokens[-1] for r in completed]),
        ttft_p50_s=percentile(ttft_s, 0.5),
        ttft_p99_s=percentile(ttft_s, 0.99),
        tpot_p50_s=percentile(tpot_s, 0.5),
        tpot_p99_s=percentile(tpot_s, 0.99),
        e2e_p50_s=percentile(e2e_s, 0.5),
        e2e_p99_s=percentile(e2e_s, 0.99),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile: the smallest value that at least `share` of the values do not exceed; None of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def drift(blocks: Sequence[float]) -> float | None:
    """Change over the whole window by a least-squares line through equal blocks, relative to their mean.

    None with fewer than three blocks, or where nothing arrived.
    """
    if len(blocks) < 3 or not any(blocks):
        return None
    slope = statistics.linear_regression(range(len(blocks)), blocks).slope
    return slope * len(blocks) / statistics.fmean(blocks)


def is_steady(blocks: Sequence[float], tolerance: float) -> bool:
    """Whether throughput has neither a trend nor a stall; noise alone is no reason against it.

    A trend is a drift beyond the tolerance that a straight line's own 95 % interval cannot explain. A stall is a
    block with less than MIN_BLOCK_SHARE of the mean. Never steady with fewer than three blocks.
    """
    if (change := drift(blocks)) is None or min(blocks) < MIN_BLOCK_SHARE * statistics.fmean(blocks):
        return False
    fit = stats.linregress(range(len(blocks)), blocks)
    half_width = float(stats.t.ppf(0.975, len(blocks) - 2) * fit.stderr) * len(blocks) / statistics.fmean(blocks)
    return abs(change) <= max(tolerance, min(half_width, MAX_EXCUSED_DRIFT))


def relative_ci95(ratios: Sequence[float]) -> float | None:
    """Half-width of the 95 % t-interval of the mean of block ratios / that mean; None with fewer than three blocks.

    Blocks are taken as independent; start-to-start variation is not in it.
    """
    if len(ratios) < 3 or (mean := statistics.fmean(ratios)) <= 0:
        return None
    standard_error = statistics.stdev(ratios) / math.sqrt(len(ratios))
    return float(stats.t.ppf(0.975, len(ratios) - 1)) * standard_error / mean


def block_energies_j(ticks: Sequence[tuple[int, float]], t0_ns: int, t1_ns: int, num_blocks: int) -> list[float]:
    """Energy per block of equal length, the counter interpolated between its ticks.

    Args:
        ticks: (t_ns, cumulative joules) in order of time, spanning the window.
        t0_ns: Start of the window.
        t1_ns: End of the window.
        num_blocks: Number of blocks.
    """
    edges = np.linspace(t0_ns, t1_ns, num_blocks + 1)
    times, joules = zip(*ticks, strict=True)
    return [b - a for a, b in pairwise(np.interp(edges, times, joules).tolist())]


def _tpot_s(record: Streamed) -> float | None:
    """(last token - first token) / (tokens after the first event); None where they all came at once."""
    tokens = record.event_tokens[-1] - record.event_tokens[0]
    return (record.event_t_ns[-1] - record.event_t_ns[0]) * 1e-9 / tokens if tokens else None


def _last_ns(record: Streamed) -> int:
    """When the request ended, or when it was last heard of."""
    if record.end_ns is not None:
        return record.end_ns
    return record.event_t_ns[-1] if record.event_t_ns else record.sent_ns


def _overlap_ns(record: Streamed, t0_ns: int, t1_ns: int) -> int:
    end_ns = t1_ns if record.end_ns is None else min(record.end_ns, t1_ns)
    return max(0, end_ns - max(record.sent_ns, t0_ns))


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
