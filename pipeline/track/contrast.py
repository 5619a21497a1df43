"""A difference of log tokens per joule between starts, and how sure it is across starts and across cards.

A start moves all loads that were measured on it, and a card all starts that ran on it; so weights are added up within
a start and within a card before they are squared. Where both sides ran on the same cards what a card adds cancels.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.variance_components import TAIL

Array = npt.NDArray[np.float64]

CARDS_TO_STARTS = 9.0
"""Variance of cards / of starts that the weights are made for, as it was measured (docs/measurement.md: 2.9 % and less
than 1 % SD). Fixed: weights that follow an estimate with a few degrees of freedom make intervals too short."""

NEGLIGIBLE = 1e-9
"""Squared weight of cards that is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One component of spread.

    Attributes:
        sd: Relative standard deviation.
        df: Degrees of freedom that it was estimated with; infinite where it is an upper bound.
        basis: Where it comes from.
    """

    sd: float
    df: float
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference of logs.

    Attributes:
        log: Estimate.
        half_width: Of its 95 % t-interval.
        is_across_cards: Whether what cards differ by is in it.
    """

    log: float
    half_width: float
    is_across_cards: bool

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Value, lower and upper end."""
        return math.exp(self.log), math.exp(self.log - self.half_width), math.exp(self.log + self.half_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One start at one case, with the weight that it has in a difference."""

    log: float
    start: Hashable
    card: Hashable
    weight: float = 0.0


def difference(values: Sequence[Value], start: Spread, card: Spread) -> Difference:
    """The weighted sum of values, whose weights add up to 0."""
    own = start.sd**2 * _squares(values, [value.start for value in values])
    shared = _squares(values, [value.card for value in values])
    of_cards = card.sd**2 * shared if shared > NEGLIGIBLE else 0.0
    variance, df = together((own, start.df), (of_cards, card.df))
    return Difference(
        log=math.fsum(value.weight * value.log for value in values),
        half_width=float(stats.t.isf(TAIL, df)) * math.sqrt(variance),
        is_across_cards=of_cards > 0,
    )


def after_less_before(before: Sequence[Value], after: Sequence[Value]) -> list[Value]:
    """The same values with the weights of generalised least squares for the difference of two levels.

    Cards that ran on both sides count most, as they should: each is compared with itself.
    """
    values = [*before, *after]
    cards = {key: number for number, key in enumerate(dict.fromkeys(value.card for value in values))}
    of = np.array([cards[value.card] for value in values])
    counts = np.bincount(of)
    shrink = CARDS_TO_STARTS / (1 + CARDS_TO_STARTS * counts)  # inverse of I + ratio Z Z', Z the cards, by Woodbury
    design = np.column_stack([np.ones(len(values)), np.repeat([0.0, 1.0], [len(before), len(after)])])
    sums = np.array([np.bincount(of, weights=column) for column in design.T]).T
    weighed = design - (shrink[:, None] * sums)[of]
    weights = np.linalg.solve(design.T @ weighed, weighed.T)[1]
    return [
        Value(log=value.log, start=value.start, card=value.card, weight=float(weight))
        for value, weight in zip(values, weights, strict=True)
    ]


def together(*parts: tuple[float, float]) -> tuple[float, float]:
    """The sum of variances, each with its df, and the df of Satterthwaite (Biometrics Bull. 2, 1946)."""
    variance = math.fsum(part for part, _ in parts)
    spread = math.fsum(part**2 / df for part, df in parts)
    return variance, variance**2 / spread if spread else math.inf


def _squares(values: Sequence[Value], keys: Sequence[Hashable]) -> float:
    """Sum of squares of the weights added up by key."""
    sums: dict[Hashable, float] = {}
    for key, value in zip(keys, values, strict=True):
        sums[key] = sums.get(key, 0.0) + value.weight
    return math.fsum(weight**2 for weight in sums.values())
