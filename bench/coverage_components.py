"""How often the intervals of variance components hold the truth: `python -m bench.coverage_components` prints JSON.

Normal effects are drawn for designs as `tpw repeatability` makes them, balanced and not; 0.95 is what the intervals
promise. Where the true component is 0 the two-sided interval covers more, for its lower end cannot miss.
"""

import json
from collections.abc import Sequence

import numpy as np

from pipeline.variance_components import components

DESIGNS = {
    "10 starts x 2 windows x 2 visits": ((2,) * 10,) * 2,
    "6 starts x 2 windows x 2 visits": ((2,) * 6,) * 2,
    "10 starts x 2 windows, 1 visit": ((2,) * 10,),
    "5, 3 and 2 starts of 1 to 4 windows": ((2, 2, 1, 2, 3), (2, 1, 4), (1, 2)),
}
"""Windows per start, by visit."""

SDS = ((0.01, 0.01, 0.003), (0.02, 0.003, 0.005), (0.01, 0.005, 0.01), (0.01, 0.0, 0.005))
"""True standard deviations of visits, starts and windows."""

LEVELS = ("visit", "start", "window")


def coverage(
    design: Sequence[Sequence[int]], sds: tuple[float, float, float], num_trials: int, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Share of trials in which a level's interval, and its upper bound, hold its true value; None where df is 0."""
    rng = np.random.default_rng(seed)
    visit_sd, start_sd, window_sd = sds
    held = {level: np.zeros(2) for level in LEVELS}
    for _ in range(num_trials):
        drawn = []
        for starts in design:
            visit = rng.normal(0, visit_sd)
            drawn.append([(visit + rng.normal(0, start_sd) + rng.normal(0, window_sd, n)).tolist() for n in starts])
        found = components(drawn)
        for level, sd in zip(LEVELS, sds, strict=True):
            part = getattr(found, level)
            held[level] += (part.low <= sd <= part.high, sd <= part.upper) if part.df else np.nan
    shares = {level: (count / num_trials).round(3).tolist() for level, count in held.items()}
    return {level: None if np.isnan(share[0]) else (share[0], share[1]) for level, share in shares.items()}


def main() -> None:
    """Print the coverage of every design at every set of standard deviations."""
    print(json.dumps({f"{name}; SDs {sds}": coverage(d, sds, 2000) for name, d in DESIGNS.items() for sds in SDS}))


if __name__ == "__main__":
    main()
