"""Which of several configs is best, with confidence: Hsu's multiple comparison with the best.

J. C. Hsu, Multiple Comparisons (1996), chapter 4: simultaneous intervals for each mean minus the best of the others,
from the pooled spread within configs; a config whose interval ends below zero is not the best.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t

CONFIDENCE = 0.95

POWER = 0.8
"""How often a difference of the detectable size is found."""

NUM_DRAWS = 200_000
"""Of the distribution of the largest difference, with a fixed seed: its 95 % quantile is met to about 0.5 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One config among others.

    Attributes:
        name: Of the config.
        num: Values it was judged by.
        mean: Of them.
        low: Lower end of the interval of its mean minus the best of the others, at most 0.
        high: Upper end, at least 0; 0 where it is known not to be the best.
    """

    name: str
    num: int
    mean: float
    low: float
    high: float

    @property
    def may_be_best(self) -> bool:
        """Whether another is not known to be better."""
        return self.high > 0


def compare(values: Mapping[str, Sequence[float]]) -> list[Standing]:
    """Compare configs by independent values of each (logs, so that differences are ratios); the best mean first.

    Empty where there are fewer than two configs, or no spread can be told because none has two values.
    """
    df = sum(map(len, values.values())) - len(values)
    if len(values) < 2 or df < 1:
        return []
    means, sd = _pooled(values)
    quantile = _quantile(len(values) - 1, df)
    found = []
    for name, mean in means.items():
        differences = [
            (mean - other, quantile * sd * (1 / len(values[name]) + 1 / len(values[key])) ** 0.5)
            for key, other in means.items()
            if key != name
        ]
        low = min(difference - width for difference, width in differences)
        high = min(difference + width for difference, width in differences)
        found.append(Standing(name=name, num=len(values[name]), mean=mean, low=min(0.0, low), high=max(0.0, high)))
    return sorted(found, key=lambda each: -each.mean)


def difference(values: Mapping[str, Sequence[float]], one: str, other: str) -> tuple[float, float] | None:
    """Mean of one minus that of another, and the half-width of its 95 % interval by the spread pooled over all.

    None where no spread can be told.
    """
    df = sum(map(len, values.values())) - len(values)
    if df < 1:
        return None
    means, sd = _pooled(values)
    half = float(t.ppf((1 + CONFIDENCE) / 2, df)) * sd * (1 / len(values[one]) + 1 / len(values[other])) ** 0.5
    return means[one] - means[other], half


def half_width(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Half-width of the 95 % interval of each mean, by the spread pooled over all; empty where none can be told."""
    df = sum(map(len, values.values())) - len(values)
    if df < 1:
        return {}
    sd, critical = _pooled(values)[1], float(t.isf((1 - CONFIDENCE) / 2, df))
    return {name: critical * sd / len(each) ** 0.5 for name, each in values.items()}


def detectable(sd: float, num: int, df: int) -> float:
    """Smallest difference between two means of so many values each that shows, by a standard deviation with its df.

    Two-sided t-test at 5 %, found 80 times in 100 (noncentral t).
    """
    critical = float(t.isf((1 - CONFIDENCE) / 2, df))
    shift = float(brentq(lambda ncp: nct.sf(critical, df, ncp) - POWER, 0, 10 * critical))
    return float(shift * sd * math.sqrt(2 / num))


def detectable_among(values: Mapping[str, Sequence[float]]) -> float | None:
    """The same between the two configs of the fewest values, by the spread pooled over all; None without spread."""
    df = sum(map(len, values.values())) - len(values)
    return detectable(_pooled(values)[1], min(map(len, values.values())), df) if df >= 1 else None


def _pooled(values: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], float]:
    """Means, and the standard deviation within configs."""
    means = {name: fmean(each) for name, each in values.items()}
    squares = sum((value - means[name]) ** 2 for name, each in values.items() for value in each)
    return means, float((squares / (sum(map(len, values.values())) - len(values))) ** 0.5)


@lru_cache(maxsize=64)
def _quantile(num_others: int, df: int) -> float:
    """One-sided: of the largest of so many differences to one mean, in standard errors of a difference."""
    chooser = np.random.default_rng(0)
    own = chooser.standard_normal(NUM_DRAWS)
    others = chooser.standard_normal((num_others, NUM_DRAWS)).max(axis=0)
    spread = np.sqrt(chooser.chisquare(df, NUM_DRAWS) / df)
    return float(np.quantile((others - own) / np.sqrt(2) / spread, CONFIDENCE))
