"""Whether a series of equal blocks stands still: trend and stall count against it, noise does not."""

import statistics
from collections.abc import Sequence

from scipy import stats

MAX_EXCUSED_DRIFT = 0.25
"""Noise explains no larger one: with few blocks a curved ramp has a wide interval too."""

MIN_BLOCK_SHARE = 0.5
"""Kernels that compile under load, or a preempted batch, halve a block at least."""


def drift(blocks: Sequence[float]) -> float | None:
    """Change over the whole window by a least-squares line through equal blocks, relative to their mean.

    Of tokens per block it is that of throughput, of joules per block that of power. None with fewer than three
    blocks, or where all are zero.
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
