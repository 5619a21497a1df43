"""When an open loop sends: at times that nothing the server does can move.

An open loop starts from an empty server and fills it at its own rate: there is no first wave in mid-life, as how many
requests a server will hold is not known beforehand. The warm-up has to outlast that, a few request durations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

_STREAM = 1
"""Sets the draws of arrivals apart from those of requests, which are seeded by (seed, index)."""

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Poisson:
    """Exponential gaps: the same ones for every rate but for scale, so that loads differ in nothing else.

    Attributes:
        rate_per_s: Mean rate.
        seed: Of the gaps.
    """

    rate_per_s: float
    seed: int

    def times_s(self) -> Iterator[float]:
        """Seconds from the start to each request."""
        rng = np.random.default_rng([self.seed, 0, _STREAM])
        total = 0.0
        while True:
            for gap in rng.exponential(size=_BLOCK).tolist():
                total += gap
                yield total / self.rate_per_s


@dataclass(frozen=True, slots=True)
class Schedule:
    """Given times, counted from the first; when they are over they repeat, one mean gap after the last.

    Attributes:
        at_s: Seconds from the start, ascending, not all the same.
    """

    at_s: tuple[float, ...]

    @property
    def rate_per_s(self) -> float:
        """Mean rate: n times span n - 1 gaps."""
        return (len(self.at_s) - 1) / (self.at_s[-1] - self.at_s[0])

    def times_s(self) -> Iterator[float]:
        """Seconds from the start, which is the first of them, to each request."""
        period_s = len(self.at_s) / self.rate_per_s
        for cycle in count():
            for at_s in self.at_s:
                yield cycle * period_s + at_s - self.at_s[0]
