"""How often the 95 % interval of a window holds the truth: `python -m bench.coverage` prints a table, then JSON.

Tokens and energy are simulated at 100 ms, the energy counter is read with jitter in time and noise in value, and each
window goes through the procedure as a whole: base blocks, merging, unknown, doubled once when wide. Coverage is that of
the intervals that are known; its own standard error is 0.7 points at 95 %.

The noise of every series is that of tokens per joule over one second. At 5 % it is what windows of llama-3.1-8b on an
H100 show (3 % half-width after 12 s); `quiet` has 1 %.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import signal

from pipeline.interval import Interval, block_energies_j, num_base_blocks, relative_interval
from pipeline.study import Plan
from pipeline.window_length import must_extend

Series = npt.NDArray[np.float64]

TICK_S = 0.1
TICK_JITTER_S = 0.003
"""Standard deviation; an H100's ticks are 96 to 104 ms apart (10th and 90th percentile)."""

READING_NOISE_S = 0.001
"""Of a counter's value, as time at mean power."""

WINDOWS_S = (20, 60, 120, 300)
POWER_W, TOKENS_PER_S = 650.0, 5000.0
SHARED_NOISE = 0.01
"""Over one tick, of tokens and energy alike: it leaves their ratio as it is."""

ENERGY_SHARE = 0.3
"""Noise of the energy / noise of the tokens."""

MAX_REL_CI95 = 0.01
PLAN = Plan(
    name="bench", warmup_s=0, warmup_max_s=1, window_s=1, block_s=1, gates="enforce", steady_tolerance=0.03,
    max_error_rate=0.001, max_reading_disagreement=0.02, hang_s=1, max_rel_ci95=MAX_REL_CI95,
)  # fmt: skip


def white(rng: np.random.Generator, shape: tuple[int, int]) -> Series:
    """Independent from tick to tick; standard deviation 1 over one second, as of every series here."""
    return rng.standard_normal(shape) / math.sqrt(TICK_S)


def autoregressive(phi: float) -> Callable[[np.random.Generator, tuple[int, int]], Series]:
    """Series that remember `phi` of themselves after one second."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Series:
        step, ticks = phi**TICK_S, round(1 / TICK_S)
        drawn = rng.standard_normal(shape)
        drawn[:, 0] /= math.sqrt(1 - step**2)  # stationary from the first tick on
        lags = np.arange(1, ticks)
        variance = (ticks + 2 * np.sum((ticks - lags) * step**lags)) / ticks**2 / (1 - step**2)
        filtered: Series = signal.lfilter([1], [1, -step], drawn, axis=1)
        return filtered / math.sqrt(variance)

    return draw


def regulated(rng: np.random.Generator, shape: tuple[int, int]) -> Series:
    """What one tick has too much the next lacks in part, as where a closed loop holds the number of requests."""
    drawn = white(rng, (shape[0], shape[1] + 1))
    return np.asarray((drawn[:, 1:] - 0.4 * drawn[:, :-1]) / math.sqrt(0.6**2 + 2 * 0.4 * TICK_S))


def sawtooth(rng: np.random.Generator, shape: tuple[int, int]) -> Series:
    """Requests half in phase, over noise: rises for about 13 s and falls at once; the period wanders."""
    period_s = 13 * (1 + 0.1 * rng.standard_normal((shape[0], 1)))
    turns = np.arange(shape[1]) * TICK_S / period_s + rng.random((shape[0], 1))
    turns += np.cumsum(rng.standard_normal(shape), axis=1) * 0.01
    return np.asarray((turns % 1 - 0.5) * 3 + 0.5 * white(rng, shape))


SERIES = {
    "quiet": (white, 0.01),
    "white": (white, 0.05),
    "regulated": (regulated, 0.05),
    "ar(0.3)": (autoregressive(0.3), 0.05),
    "ar(0.6)": (autoregressive(0.6), 0.05),
    "ar(0.9)": (autoregressive(0.9), 0.05),
    "sawtooth": (sawtooth, 0.05),
}


def interval(tokens: Series, ticks: list[tuple[int, float]], window_s: int) -> tuple[Interval | None, float]:
    """The interval of the first `window_s` of one series, and the log of its ratio over the true one."""
    ticks = ticks[: round(window_s / TICK_S) + 1]
    t0_ns, t1_ns = ticks[0][0], ticks[-1][0]
    num_blocks = num_base_blocks(window_s)
    edges = np.linspace(t0_ns, t1_ns, num_blocks + 1) * 1e-9 / TICK_S
    block_tokens = np.diff(np.interp(edges, np.arange(len(tokens) + 1), np.concatenate([[0], np.cumsum(tokens)])))
    energies_j = block_energies_j(ticks, t0_ns, t1_ns, num_blocks)
    ratio = block_tokens.sum() / sum(energies_j) / (TOKENS_PER_S / POWER_W)
    return relative_interval(block_tokens.tolist(), energies_j), float(np.log(ratio))


def measure(name: str, window_s: int, repeats: int) -> dict[str, float | str | None]:
    """Put `repeats` windows of one series through the procedure."""
    draw, noise = SERIES[name]
    rng = np.random.default_rng([list(SERIES).index(name), window_s])
    shape = (repeats, round(2 * window_s / TICK_S) + 3)
    shared = SHARED_NOISE * rng.standard_normal(shape)
    share = noise / math.sqrt(1 + ENERGY_SHARE**2)
    tokens = TOKENS_PER_S * TICK_S * (1 + shared + share * draw(rng, shape))
    energies_j = POWER_W * TICK_S * (1 + shared + share * ENERGY_SHARE * draw(rng, shape))
    position = np.arange(1, shape[1] - 1) + TICK_JITTER_S / TICK_S * rng.standard_normal((repeats, shape[1] - 2))
    read_noise_j = POWER_W * READING_NOISE_S * rng.standard_normal(position.shape)
    grid = np.arange(shape[1] + 1)
    found, is_extended, errors = [], [], []
    for n in range(repeats):
        read_j = np.interp(position[n], grid, np.concatenate([[0], np.cumsum(energies_j[n])])) + read_noise_j[n]
        ticks = list(zip((position[n] * TICK_S * 1e9).astype(np.int64).tolist(), read_j.tolist(), strict=True))
        known, error = interval(tokens[n], ticks, window_s)
        is_extended.append(must_extend(known, PLAN))
        if is_extended[-1]:
            known, error = interval(tokens[n], ticks, 2 * window_s)
        found.append(known)
        errors.append(error)
    half_widths = [known.rel_ci95 for known in found if known]
    holds = [abs(error) <= known.rel_ci95 for known, error in zip(found, errors, strict=True) if known]
    return {
        "series": name,
        "window_s": window_s,
        "coverage": round(statistics.fmean(holds), 3) if holds else None,
        "share_unknown": round(1 - len(holds) / repeats, 3),
        "share_extended": round(statistics.fmean(is_extended), 3),
        "median_rel_ci95": round(statistics.median(half_widths), 5) if half_widths else None,
    }


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    results = [measure(name, window_s, repeats) for name in SERIES for window_s in WINDOWS_S]
    print(f"{'series':10} {'window s':>8} {'coverage':>8} {'unknown':>8} {'doubled':>8} {'half-width':>10}")
    for r in results:
        print(
            f"{r['series']:10} {r['window_s']:8} {r['coverage']!s:>8} {r['share_unknown']:8} {r['share_extended']:8} "
            f"{r['median_rel_ci95']!s:>10}"
        )
    print(json.dumps({"repeats": repeats, "max_rel_ci95": MAX_REL_CI95, "results": results}))


if __name__ == "__main__":
    main()
