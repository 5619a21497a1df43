"""Where the level of a noisy series steps, and how sure that is.

Seeded intervals of the series (Kovács, Bühlmann, Li and Munk, Biometrika 110, 2023) are each split in two at every
place, and the two means compared by a t-statistic; values of one block (a card that ran again and again) only with
each other. The largest of them all, over a series without a step, has a distribution that is drawn (`NUM_DRAWS`, fixed
seed): what exceeds its quantile is a step, so that a series without one raises an alarm with the probability asked for,
however many places were looked at. The largest statistic is taken first, then of the intervals that do not hold it.
Values are taken to be normal and independent, with a spread that was estimated from others with `df` degrees of
freedom, or that is their own.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.variance_components import TAIL

Array = npt.NDArray[np.float64]

NUM_DRAWS = 4000
NUM_PARTS = 16
"""That they are drawn in: a year of nights has thousands of places to look at."""

DECAY = math.sqrt(2)
"""Ratio of the lengths of seeded intervals, layer by layer; as its authors recommend."""

MIN_DF = 12
"""Values beyond their levels from which a series tells its own noise well."""

POWER = 0.8
"""How often a step of the detectable size is found."""

MAX_LOG_RATIO = math.log(40)
"""Places whose log-likelihood is within this of the best may be where the step is, with 95 % confidence: with the
levels known, the likelihood ratio of a place to the true one is a martingale away from it, which exceeds 40 on either
side with a probability of at most 1/40 (Ville's inequality)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values in an order of positions; several may share one.

    Attributes:
        values: Logs.
        positions: Of each, from 0 on without a gap, ascending.
        blocks: What each is compared within.
        sd: Standard deviation of a value.
        df: Degrees of freedom of that; infinite where it is known.
        is_own: Whether it is what the values themselves leave beyond their largest step.
    """

    values: tuple[float, ...]
    positions: tuple[int, ...]
    blocks: tuple[Hashable, ...]
    sd: float
    df: float
    is_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the level.

    Attributes:
        position: The first of the new level, by the likeliest place.
        earliest: The first that may be of the new level.
        latest: The last that may be the first of it.
        log: Size, between the steps on either side.
        half_width: Of its 95 % t-interval.
    """

    position: int
    earliest: int
    latest: int
    log: float
    half_width: float


def steps(series: Series, alpha: float) -> list[Step]:
    """The steps that a series without any would show with probability `alpha`, in order."""
    design = _design(series)
    if design is None:
        return []
    critical = _critical(series, design, alpha)
    statistics = np.abs(design.weights @ np.array(series.values)) / (series.sd * design.norms)
    found: list[int] = []
    for index in np.argsort(-statistics):
        low, split, high = design.splits[index]
        if statistics[index] <= critical:
            break
        if not any(low < position < high for position in found):
            found.append(split)
    ends = [0, *sorted(found), series.positions[-1] + 1]
    between = zip(ends, ends[2:], strict=False)
    return [step for low, high in between if (step := _step(series, low, high)) is not None]


def p_value(series: Series) -> float:
    """How often a series without a step looks at least as much as if it had one; 1 where none could show."""
    design = _design(series)
    if design is None:
        return 1.0
    largest = float(np.max(np.abs(design.weights @ np.array(series.values)) / (series.sd * design.norms)))
    drawn = float(1 + np.sum(_drawn(series) >= largest)) / (NUM_DRAWS + 1)
    return min(1.0, drawn, 2 * len(design.splits) * float(stats.t.sf(largest, series.df)))  # Bonferroni, far out


def detectable(series: Series, alpha: float) -> float | None:
    """Smallest step at the last position that is found `POWER` of the time, as a log; None where none could be."""
    design = _design(series)
    if design is None:
        return None
    last = series.positions[-1]
    norms = [
        float(norm) for norm, (_, split, high) in zip(design.norms, design.splits, strict=True) if split == last < high
    ]
    return (_critical(series, design, alpha) + float(stats.norm.ppf(POWER))) * series.sd * min(norms) if norms else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Design:
    """Every comparison that a series allows.

    `splits` are (first position of the interval, first of its second part, end); `weights` has a line for each.
    """

    splits: tuple[tuple[int, int, int], ...]
    weights: Array
    norms: Array


def _design(series: Series) -> _Design | None:
    return _designed(series.positions, series.blocks)


@lru_cache(maxsize=64)  # cases of one suite share theirs
def _designed(positions: tuple[int, ...], blocks: tuple[Hashable, ...]) -> _Design | None:
    at = np.array(positions)
    codes = _codes(blocks)
    splits, lines = [], []
    for low, high in _intervals(positions[-1] + 1 if positions else 0):
        inside = np.flatnonzero((at >= low) & (at < high))
        for split in range(low + 1, high):
            side = (at[inside] >= split).astype(float)
            weights = _weights(side, codes[inside])
            if weights is not None:
                line = np.zeros(len(at))
                line[inside] = weights
                splits.append((low, split, high))
                lines.append(line)
    if not lines:
        return None
    weights = np.array(lines)
    return _Design(splits=tuple(splits), weights=weights, norms=np.linalg.norm(weights, axis=1))


def _codes(blocks: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    known = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    return np.array([known[block] for block in blocks], dtype=np.int64)


def _intervals(num: int) -> list[tuple[int, int]]:
    """Seeded intervals of 0 ... num, each of two positions at least."""
    found = dict.fromkeys([(0, num)] if num > 1 else [])
    length = num / DECAY
    while length >= 2:
        count = 2 * math.ceil(num / length) - 1
        shift = (num - length) / max(1, count - 1)
        for index in range(count):
            low, high = math.floor(index * shift), math.ceil(index * shift + length)
            found[low, min(num, high)] = None
        length /= DECAY
    found |= dict.fromkeys((low, low + 2) for low in range(num - 1))
    return list(found)


def _weights(side: Array, codes: npt.NDArray[np.int64]) -> Array | None:
    """Least squares for the second part less the first, with a level for each block; None where no block has both."""
    counts = np.bincount(codes)
    centred = side - (np.bincount(codes, weights=side) / np.maximum(counts, 1))[codes]
    squares = float(centred @ centred)
    return centred / squares if squares > 1e-9 else None


def _critical(series: Series, design: _Design, alpha: float) -> float:
    """What the largest statistic exceeds with probability `alpha`; far out by Bonferroni, which is on the safe side."""
    if alpha * NUM_DRAWS < 20:
        return float(stats.t.isf(alpha / 2 / len(design.splits), series.df))
    return float(np.quantile(_drawn(series), 1 - alpha))


def _drawn(series: Series) -> Array:
    """The largest statistic of series without a step, drawn."""
    largest, squares, uniform = _largest(series.positions, series.blocks)
    if series.is_own:
        df = len(series.positions) - len(set(series.blocks)) - 1
        return largest / np.sqrt((squares - largest**2) / df)
    if math.isinf(series.df):
        return largest
    return largest / np.sqrt(stats.chi2.ppf(uniform, series.df) / series.df)  # type: ignore[no-any-return]  # untyped


@lru_cache(maxsize=64)
def _largest(positions: tuple[int, ...], blocks: tuple[Hashable, ...]) -> tuple[Array, Array, Array]:
    """Of series of spread 1: the largest statistic, the sum of squares about the blocks, and a number to draw with."""
    design = _designed(positions, blocks)
    assert design is not None  # noqa: S101  # or nothing would be drawn
    chooser, scaled = np.random.default_rng(0), design.weights / design.norms[:, None]
    codes = _codes(blocks)
    centre = np.eye(len(codes)) - (codes[:, None] == codes) / np.bincount(codes)[codes]
    largest, squares = [], []
    for _ in range(NUM_PARTS):
        noise = chooser.standard_normal((len(positions), NUM_DRAWS // NUM_PARTS))
        largest.append(np.abs(scaled @ noise).max(axis=0))
        squares.append(((centre @ noise) ** 2).sum(axis=0))
    return np.concatenate(largest), np.concatenate(squares), chooser.random(NUM_DRAWS)


def _step(series: Series, low: int, high: int) -> Step | None:
    """The step between the neighbouring ones: where it may be, and how large it is."""
    at, values, codes = np.array(series.positions), np.array(series.values), _codes(series.blocks)
    inside = np.flatnonzero((at >= low) & (at < high))
    found = {}
    for split in range(low + 1, high):
        weights = _weights((at[inside] >= split).astype(float), codes[inside])
        if weights is not None:
            found[split] = (float(weights @ values[inside]), series.sd * float(np.linalg.norm(weights)))
    if not found:
        return None
    best = max(found, key=lambda split: abs(found[split][0]) / found[split][1])
    likelihood = {split: (log / error) ** 2 / 2 for split, (log, error) in found.items()}
    near_best = [split for split in found if likelihood[split] >= likelihood[best] - MAX_LOG_RATIO]
    log, error = found[best]
    return Step(
        position=best,
        earliest=min(near_best),
        latest=max(near_best),
        log=log,
        half_width=float(stats.t.isf(TAIL, series.df)) * error,
    )


def sharpened(series: Series, found: Sequence[Step]) -> Series | None:
    """The series with the noise that its own values leave beyond these steps and the largest that is left.

    That one is left out whether it is one or not, so that a step does not hide behind the noise that it makes itself;
    what that does to series without a step is drawn along. None where too little would be left to tell noise by.
    """
    design = _design(series)
    if design is None:
        return None
    codes, places = _codes(series.blocks), [step.position for step in found]
    levels = np.searchsorted(places, series.positions, side="right")
    model = np.hstack([np.eye(int(codes.max()) + 1)[codes], np.eye(len(found) + 1)[levels][:, 1:]])
    values = np.array(series.values)
    solved, _, rank, _ = np.linalg.lstsq(model, values, rcond=None)
    residuals = values - model @ solved
    left = [not any(low < place < high for place in places) for low, _, high in design.splits]
    largest = float(np.max(np.abs(design.weights @ residuals) / design.norms * left))
    df = len(values) - int(rank) - 1
    if df < MIN_DF:
        return None
    squares = max(0.0, float(residuals @ residuals) - largest**2)
    return replace(series, sd=math.sqrt(squares / df), df=df, is_own=True)


def spread_of(values: Sequence[float], blocks: Sequence[Hashable]) -> tuple[float, int]:
    """Standard deviation of a value by how far neighbours of a block differ, and how many pairs that rests on.

    1.4826 x the median of their absolute differences / root of 2: a few steps hardly move it.
    """
    last: dict[Hashable, float] = {}
    apart = []
    for value, block in zip(values, blocks, strict=True):
        if block in last:
            apart.append(abs(value - last[block]))
        last[block] = value
    return (1.4826 * float(np.median(apart)) / math.sqrt(2) if apart else 0.0), len(apart)
