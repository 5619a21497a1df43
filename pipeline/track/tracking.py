"""What `tpw track` finds, as values: printed, and written as JSON with this schema (docs/track.md)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.columns import column

SCHEMA_VERSION = 1
"""Of the JSON. Keys are only added within a version."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Tokens per joule after / before."""

    ratio: float = column("after / before")
    low: float | None = column("lower end of the 95 % interval; null for modelled rows, whose error is no noise")
    high: float | None = column("its upper end")
    is_across_cards: bool = column("whether the interval holds what cards of one type differ by")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseFound:
    """One config at one load on both sides."""

    case_id: str = column("identity of the case, under the model's present name")
    label: str = column("what tells its config from the others")
    config_hash: str = column("identity of the config")
    load: str = column("concurrency, or requests/s")
    before_output_tokens_per_joule: float = column("geometric mean over starts")
    after_output_tokens_per_joule: float = column("the same after")
    num_starts_before: int = column("engine starts")
    num_starts_after: int = column("the same after")
    gain: Ratio = column("frozen-config gain: the same config and load")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MissingFound:
    """One case that one side lacks."""

    case_id: str = column("identity of the case")
    label: str = column("its config")
    load: str = column("its load")
    side: str = column("before or after: the side that lacks it")
    reason: str = column("why, as far as it is known")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UnlikeFound:
    """One case that was measured under conditions that are not compared."""

    case_id: str = column("identity of the case")
    label: str = column("its config")
    load: str = column("its load")
    differs: Mapping[str, tuple[str, ...]] = column("values by condition")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BestFound:
    """The best config and load under the SLO on one side."""

    case_id: str = column("identity of the case")
    label: str = column("its config")
    config: Mapping[str, Any] = column("the config, keyed by conf path")
    config_hash: str = column("its identity")
    load: str = column("its load")
    output_tokens_per_joule: float = column("geometric mean over starts")
    num_starts: int = column("engine starts")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FactorFound:
    """One factor of the total."""

    factor: str = column("hardware, power state, driver, engine, or config and load")
    gain: Ratio | None = column("with those before it as after, those behind it as before; null where not measured")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InteractionFound:
    """What two factors gain together beyond the product of each alone."""

    factors: tuple[str, ...] = column("the two")
    gain: Ratio | None = column("the ratio of ratios, all other factors as before; null where not measured")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CornerFound:
    """The case of before or after under a mixture of what was and is."""

    changed: tuple[str, ...] = column("factors as after; the others are as before")
    output_tokens_per_joule: float | None = column("geometric mean over starts; null where not measured")
    num_starts: int = column("engine starts")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttributionFound:
    """Where the gain from best to best comes from; the ratios multiply up to the total."""

    total: Ratio = column("of all factors, by plain means over starts")
    factors: tuple[FactorFound, ...] = column("those that differ, in the order in which they are changed")
    interactions: tuple[InteractionFound, ...] = column("by pair")
    corners: tuple[CornerFound, ...] = column("every mixture of the factors")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFound:
    """Versions of the software beneath a config."""

    engine: str = column("serving engine")
    engine_version: str | None = column("as its own runtime reports it")
    driver_version: str | None = column("device driver")
    image: str | None = column("container image by digest; null outside a container")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFound:
    """A step of the level of a series."""

    ratio: float = column("level after / before")
    low: float = column("lower end of the 95 % interval")
    high: float = column("its upper end")
    remaining_ratio: float = column("level at the newest release / before the step")
    last_good: ReleaseFound = column("the last release of the old level, 95 % sure")
    first_bad: ReleaseFound = column("the first release of the new level, 95 % sure")
    likeliest: ReleaseFound = column("the first release of the new level, most likely")
    changed: tuple[str, ...] = column("what differs between last_good and first_bad")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFound:
    """One case over releases, or all of a group together."""

    case_id: str | None = column("identity of the case; null for all together")
    label: str = column("its config, or overall")
    load: str | None = column("its load; null for all together")
    num_releases: int = column("releases it was measured with")
    num_visits: int = column("values of the series: starts of one release, one set of cards and one boot make one")
    is_within_cards: bool = column("whether each set of cards is compared with itself only")
    noise_sd: float = column("relative standard deviation of a value")
    noise_basis: str = column("where that comes from")
    detectable: float | None = column("smallest relative drop at the newest release that shows; null if none can")
    changes: tuple[ChangeFound, ...] = column("steps, oldest first")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GroupFound:
    """Starts that may be compared: everything that is no config, load or release is the same."""

    conditions: Mapping[str, Any] = column("what all of them share")
    before: str = column("the side before")
    after: str = column("the side after")
    start_spread: str = column("how far starts differ on one set of cards, and where that comes from")
    card_spread: str = column("how far sets of cards differ, and where that comes from")
    cases: tuple[CaseFound, ...] = column("every case on both sides")
    frozen: Ratio | None = column("mean gain of these cases, each as much as another; null without one")
    missing: tuple[MissingFound, ...] = column("cases that one side lacks")
    best_before: BestFound | None = column("under the SLO; null where nothing meets it")
    best_after: BestFound | None = column("the same after")
    retuned: Ratio | None = column("best against best; null without one of them")
    attribution: AttributionFound | None = column("of best against best; null where no factor differs")
    series: tuple[SeriesFound, ...] = column("over the releases; none where the sides differ in more than releases")
    notes: tuple[str, ...] = column("what its reader should know")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BrokenFound:
    """A config that ran once and whose last start left no valid row."""

    label: str = column("its config")
    config_hash: str = column("its identity")
    study_id: str = column("study of that start")
    status: str = column("how it ended")
    reason: str = column("what went wrong, in words")
    release: ReleaseFound = column("what it was started on, as far as it is known")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RegressionFound:
    """A drop that is asked for and has not come back."""

    label: str = column("config of the case, or overall")
    load: str | None = column("its load; null for all together")
    change: ChangeFound = column("the step")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """What changed, from which rows, and how sure that is."""

    schema_version: int = column("of this JSON", default=SCHEMA_VERSION)
    tool_version: str = column("version of this package")
    studies: tuple[str, ...] = column("whose rows were read")
    num_rows: int = column("valid rows that were read")
    num_copies: int = column("rows that were there twice, and count once")
    rejected: Mapping[str, str] = column("rows and failed starts that were left out, and why, by id")
    told: tuple[str, ...] = column("conditions that the sides were said to differ in")
    slo: Mapping[str, Any] = column("its name, and what it owes, by the keys of conf/slo")
    false_alarm_rate: float = column("probability that any series without a step shows one, each time this is asked")
    groups: tuple[GroupFound, ...] = column("starts that may be compared, group by group")
    unlike: tuple[UnlikeFound, ...] = column("cases that were compared nowhere, for their conditions differ")
    num_single: int = column("groups with one release only, which are not shown")
    broken: tuple[BrokenFound, ...] = column("configs that ran once and whose last start failed")
    unmeasured: tuple[BrokenFound, ...] = column("configs that ran once and whose last start has no valid window")
    regression_threshold: float | None = column("smallest drop asked for; null where none was")
    regressions: tuple[RegressionFound, ...] = column("drops of that size that have not come back")

    @property
    def is_regressed(self) -> bool:
        """Whether what was asked for is there: such a drop, or a config that no longer runs."""
        return self.regression_threshold is not None and bool(self.regressions or self.broken)
