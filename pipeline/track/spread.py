"""How far starts of one case differ on one set of cards, and how far cards of one type differ, by their rows."""

import math
from collections.abc import Sequence
from operator import attrgetter
from statistics import fmean

from pipeline.grouping import grouped
from pipeline.score import MIN_NOISE
from pipeline.search.finalists import MARGIN
from pipeline.track.contrast import Spread
from pipeline.track.starts import Start
from pipeline.variance_components import components

ASSUMED_START = Spread(
    sd=MARGIN / 2, df=math.inf, basis=f"assumed: starts differ by {50 * MARGIN:g} % SD at most (docs/measurement.md)"
)
"""Where no case was started twice on one release and one set of cards."""

ASSUMED_CARD = Spread(sd=0.029, df=2, basis="assumed as between three H100s, SD 2.9 % (docs/measurement.md)")
"""Where no case ran on three sets of cards with one release: two say next to nothing of how far cards differ."""


def start_spread(starts: Sequence[Start]) -> Spread:
    """Of the mean of a start's windows; never below what its windows alone would make it differ by."""
    cells = [cell for cell in grouped(starts, _cell).values() if len(cell) > 1]
    num = sum(len(cell) - 1 for cell in cells)
    if not num:
        return ASSUMED_START
    squares = math.fsum(_squares([start.log for start in cell]) for cell in cells)
    floor = MIN_NOISE / math.sqrt(fmean(len(start.rows) for cell in cells for start in cell))
    # All loads of a start move together: what counts is how many starts there are, not how many loads.
    engines = grouped(
        (start for cell in cells for start in cell), lambda start: (start.row.config_hash, *_cell(start)[1:])
    )
    df = sum(len({start.row.trial_id for start in own}) - 1 for own in engines.values())
    sd = math.sqrt(squares / num)
    return Spread(
        sd=max(floor, sd),
        df=df,
        basis=f"{df + len(engines)} starts, {df} df: SD {100 * sd:.2g} %"
        + (f", taken as {100 * floor:.2g} %, what windows differ by" if sd < floor else ""),
    )


def card_spread(starts: Sequence[Start]) -> Spread:
    """Between sets of cards of one type, by the case that ran on the most of them with one release."""
    found = []
    for cell in grouped(starts, lambda start: (start.key, start.release)).values():
        visits = [[[start.log] for start in own] for own in grouped(cell, attrgetter("cards")).values()]
        card = components(visits).visit
        if card.df >= ASSUMED_CARD.df and card.sd is not None:
            found.append((card.df, card.sd))
    if not found:
        return ASSUMED_CARD
    df, sd = max(found)
    return Spread(sd=sd, df=df, basis=f"{df + 1} sets of cards, {df} df: SD {100 * sd:.2g} %")


def _cell(start: Start) -> tuple[object, ...]:
    """Starts that nothing known tells apart."""
    return (start.case, start.problem, start.release, start.cards)


def _squares(values: Sequence[float]) -> float:
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values)
