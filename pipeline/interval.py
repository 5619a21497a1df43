"""How sure one window is of its tokens per joule: batch means of the log ratio, adjusted for what correlation is left.

Start-to-start variation is not in it. `python -m bench.coverage` says how often the interval holds the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

BASE_BLOCKS = (64, 32, 16, 8)
"""Powers of two, so that merging leaves no odd block; more than some 30 sharpen an interval by less than 3 %."""

MIN_BLOCK_S = 0.2
"""Two ticks of an energy counter that moves ten times a second: a block's energy is interpolated between ticks."""

MIN_BLOCKS = 8
"""Fewer say next to nothing of their own correlation, whose standard error is about 1 / sqrt(blocks)."""

MAX_AUTOCORRELATION = 0.2
"""Neighbouring blocks more alike than this, or more opposed, are merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The 95 % interval of a window's tokens per joule, value * exp(+-rel_ci95).

    Attributes:
        rel_ci95: Half-width of the interval of the log ratio.
        num_blocks: Blocks it rests on, after merging.
        autocorrelation: Their lag-1 autocorrelation, as estimated.
    """

    rel_ci95: float
    num_blocks: int
    autocorrelation: float


def num_base_blocks(window_s: float) -> int:
    """Equal blocks to divide a window into: 64, or as few as keeps them at MIN_BLOCK_S; at least one."""
    return next(
        (count for count in BASE_BLOCKS if count * MIN_BLOCK_S <= window_s), max(1, int(window_s / MIN_BLOCK_S))
    )


def block_energies_j(ticks: Sequence[tuple[int, float]], t0_ns: int, t1_ns: int, num_blocks: int) -> list[float]:
    """Energy per block of equal length, the counter interpolated between its ticks.

    Args:
        ticks: (t_ns, cumulative joules) in order of time, spanning the window.
        t0_ns: Start of the window.
        t1_ns: End of the window.
        num_blocks: Number of blocks.
    """
    since_t0_ns = [t_ns - t0_ns for t_ns, _ in ticks]
    at_edges_j = np.interp(np.linspace(0, t1_ns - t0_ns, num_blocks + 1), since_t0_ns, [joules for _, joules in ticks])
    return [float(energy_j) for energy_j in np.diff(at_edges_j)]


def relative_interval(tokens: Sequence[float], energies_j: Sequence[float]) -> Interval | None:
    """The interval of sum(tokens) / sum(energies_j) from equal blocks of one window; None where it is unknown.

    The log of the ratio deviates, to first order, by the mean of d = T / mean(T) - E / mean(E) over blocks. Neighbours
    are merged, two by two and the last three where they are odd in number, until |r| < 0.2, r being their lag-1
    autocorrelation; with fewer than 8 blocks left the interval is unknown. With n blocks left its half-width is
    t(0.975, n - 1) * sqrt(A * var(d) / n), where A = (1 + p) / (1 - p) makes up for the correlation that is left:
    p = (n * r + 1) / (n - 4), but at least 0 and at least q * (1 + q) / 2, q being p before the last merge.

    A is there because blocks pass the more easily the more r falls short by chance: without it the intervals of
    correlated series are too narrow. The formula for p undoes the bias of r, -(1 + 4p) / n; its second bound is what a
    first-order autoregression of lag-1 autocorrelation q has after a merge.
    Sources: batch means, Law, Simulation Modeling and Analysis, chapter 9; A, SBatch (Lada, Steiger and Wilson, Journal
    of Simulation 2, 2008); the bias, Kendall, and Marriott and Pope, both Biometrika 41 (1954).

    Args:
        tokens: Output tokens per block.
        energies_j: Joules of the same blocks.
    """
    total_tokens, total_j = sum(tokens), sum(energies_j)
    if total_tokens <= 0 or total_j <= 0:
        return None
    shares = np.asarray(tokens, dtype=np.float64) / total_tokens - np.asarray(energies_j, dtype=np.float64) / total_j
    least = 0.0
    while (count := len(shares)) >= MIN_BLOCKS:
        r = _autocorrelation(shares)
        p = min(0.99, max(0.0, (count * r + 1) / (count - 4)))
        if abs(r) < MAX_AUTOCORRELATION:
            p = max(p, least)
            variance = (1 + p) / (1 - p) * float(shares @ shares) * count / (count - 1)
            half_width = float(stats.t.ppf(0.975, count - 1)) * variance**0.5
            return Interval(rel_ci95=half_width, num_blocks=count, autocorrelation=r)
        least = p * (1 + p) / 2
        shares = np.add.reduceat(shares, np.arange(0, count - 1, 2))
    return None


def _autocorrelation(values: npt.NDArray[np.float64]) -> float:
    """Lag-1 autocorrelation of values whose mean is zero; 0 where they are, to rounding, all the same."""
    square = float(values @ values)
    return float(values[1:] @ values[:-1]) / square if square > 1e-24 else 0.0
