"""Which of several candidates is best, how sure that is, and which of a tie to take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean

from pipeline.choose.candidate import Candidate, Point
from pipeline.choose.fleet import Fleet
from pipeline.multiple_comparison import compare, detectable_among, difference
from pipeline.search.finalists import MARGIN

ASSUMED = f"assumed: single starts of one config differ by up to {100 * MARGIN:g} % (docs/measurement.md)"
"""Where the rows tell no spread between starts."""

SINGLE_LOG = math.sqrt(2) * MARGIN
"""Half-width of the 95 % interval of the log-ratio of two single starts: MARGIN is two standard deviations of each."""


ALIKE = 0.02
"""Costs and numbers of devices that differ by less are no reason to take one config and not another."""

FEWEST = "takes the fewest devices for the same tokens/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A candidate that meets the SLO, at its best load.

    Attributes:
        fleet: For the demand, if there is one.
        log_values: What it is ranked by, log tokens per joule by start: at that load, or over the day of the demand (at
            least, see fleet.py: no config wins by loads that were not measured). A start moves the whole ladder of a
            config (score.py), so starts differ alike in both.
    """

    candidate: Candidate
    best: Point
    fleet: Fleet | None

    @property
    def log_values(self) -> tuple[float, ...]:
        """See above."""
        if self.fleet is None:
            return self.best.log_scores
        shift = math.log(self.fleet.min_output_tokens_per_joule) - fmean(self.best.log_scores)
        return tuple(value + shift for value in self.best.log_scores)

    @property
    def value(self) -> float:
        """Mean of `log_values`."""
        return fmean(self.log_values)

    @property
    def key(self) -> str:
        """Identity."""
        return self.candidate.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Tokens per joule of one / those of another, with a 95 % interval."""

    ratio: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Contenders that may be compared, the best mean first.

    Attributes:
        ranked: Those with fresh starts, where these compare several or the best; else all.
        nominated: Those without fresh starts that look as good as the best with them.
        beaten: The rest: without fresh starts, and below that even so.
        tied: Of `ranked`, those of which none is known to be better.
        is_told: Whether the starts themselves tell the spread; else MARGIN does.
        detectable: Smallest relative difference that shows.
    """

    ranked: tuple[Contender, ...]
    nominated: tuple[Contender, ...]
    beaten: tuple[Contender, ...]
    tied: tuple[Contender, ...]
    is_told: bool
    detectable: float

    @property
    def _values(self) -> Mapping[str, Sequence[float]]:
        return {each.key: each.log_values for each in self.ranked}

    @property
    def is_alone(self) -> bool:
        """Whether there is nothing to compare with."""
        return len(self.ranked) + len(self.nominated) + len(self.beaten) == 1

    @property
    def is_firm(self) -> bool:
        """Whether fresh starts call one config the best, of those too that even a screening shows below."""
        return len(self.tied) == 1 and self.is_told and not self.nominated and not self.is_alone

    @property
    def basis(self) -> str:
        """Where tie set, detectable difference and intervals come from."""
        if not self.is_told:
            return ASSUMED
        said = f"{sum(map(len, self._values.values()))} fresh starts"
        if len(self.ranked) == 1:
            return f"the spread of {said}"
        return f"multiple comparison with the best (Hsu), {said} of {len(self.ranked)} configs"

    def ratio(self, one: Contender, other: Contender) -> Ratio:
        """One against another, both ranked."""
        found = difference(self._values, one.key, other.key) if self.is_told else None
        middle, half = found or (one.value - other.value, SINGLE_LOG)
        basis = ASSUMED if found is None else "95 % t-interval, spread pooled over the fresh starts"
        return Ratio(ratio=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half), basis=basis)

    def take(self) -> tuple[Contender, str]:
        """The one of the tie to serve with, and why.

        Only among those within MARGIN of the best mean, however little the starts can tell. Of these the cheapest,
        where prices are declared; of equals the one with the fewest devices for the same tokens; then the one that sets
        the fewest keys; then the one with the most tokens per joule.
        """
        if len(self.ranked) == 1:
            return self.ranked[0], "the only config" if self.is_alone else "the only config with fresh starts"
        if len(self.tied) == 1:
            return self.tied[0], "no other config is known or likely to be as good"
        near, why = [each for each in self.tied if each.value >= self.tied[0].value + math.log(1 - MARGIN)], list[str]()
        if len(near) == 1:
            return near[0], f"the others lie more than {100 * MARGIN:g} % below it, though within the noise"
        for of, tolerance, said in (
            (_usd, ALIKE, "cheapest"),
            (_devices, ALIKE, FEWEST),
            (_keys, 0.0, "sets fewest keys"),
        ):
            kept = [each for each in near if of(each) <= min(map(of, near)) * (1 + tolerance)]
            why += [said] if len(kept) < len(near) else []
            near = kept
        return near[0], " and ".join(why) or "alike in cost, devices and keys set, it has the most tokens per joule"


def _usd(contender: Contender) -> float:
    """Of a million tokens; 0 where no price is declared."""
    return (contender.fleet.usd_per_million_output_tokens or 0.0) if contender.fleet else 0.0


def _devices(contender: Contender) -> float:
    """Of the fleet; without a demand, for a token per second at the best load."""
    num_gpus = contender.candidate.num_gpus
    return contender.fleet.devices if contender.fleet else num_gpus / contender.best.output_tokens_per_s


def _keys(contender: Contender) -> float:
    """That the config sets and does not leave to the engine."""
    return len(contender.candidate.config.requested())


def rank(contenders: Sequence[Contender]) -> Ranking:
    """Rank contenders, of which there is one at least.

    Where some have fresh starts the others only nominate; but where only one was started afresh, say as an anchor, and
    another looks better by more than single starts differ, there were no finals, and all are one screening.
    """
    ordered = sorted(contenders, key=attrgetter("value"), reverse=True)
    fresh = [each for each in ordered if each.candidate.is_fresh]
    if len(fresh) == 1 and fresh[0].value < ordered[0].value - SINGLE_LOG:
        fresh = []
    ranked = fresh or ordered
    values = {each.key: each.log_values for each in ranked}
    may_be_best = {each.name for each in compare(values) if each.may_be_best} if fresh else set[str]()
    apart = detectable_among(values) if fresh else None
    best = ranked[0].value
    others = [each for each in ordered if each not in ranked]
    return Ranking(
        ranked=tuple(ranked),
        nominated=tuple(each for each in others if each.value >= best + math.log(1 - MARGIN)),
        beaten=tuple(each for each in others if each.value < best + math.log(1 - MARGIN)),
        tied=tuple(
            each for each in ranked if (each.key in may_be_best if may_be_best else each.value >= best - SINGLE_LOG)
        ),
        is_told=apart is not None,
        detectable=math.expm1(SINGLE_LOG if apart is None else apart),
    )
