"""A decision as values: what `tpw choose` prints, and writes as JSON with this schema (docs/choose.md)."""

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pipeline.choose.candidate import Candidate
from pipeline.choose.explain import Explanation
from pipeline.choose.fleet import Fleet
from pipeline.columns import column
from pipeline.errors import StoreError
from pipeline.record import Trial
from pipeline.vocabulary import Met

SCHEMA_VERSION = 1
"""Of the JSON. Keys are only added within a version."""


class Basis(StrEnum):
    """What a figure rests on."""

    FRESH = "fresh_starts"
    SCREENING = "screening"


class LimitedBy(StrEnum):
    """What ends the ladder of a config at its best load."""

    SLO = "slo"
    EFFICIENCY = "efficiency"
    RANGE = "range"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One config at its best load under the SLO."""

    label: str = column("what tells it from the others")
    engine: str = column("serving engine")
    config: Mapping[str, Any] = column("the config, keyed by conf path; what is not set is the engine's default")
    config_hash: str = column("its identity")
    rendered_hash: str = column("hash of the files, argv and environment that were started")
    study_id: str = column("study of its last start that counts")
    trial_ids: tuple[str, ...] = column("the starts that its figures rest on, the last one last")
    row_ids: tuple[str, ...] = column("their windows at this load")
    basis: Basis = column("fresh_starts, or screening: one start, which nominates and does not decide")
    num_starts: int = column("independent starts")
    num_devices: int = column("GPUs of one replica; of a CPU, machines")
    load: str = column("concurrency, or requests/s, of the best load")
    output_tokens_per_joule: float = column("there: geometric mean over starts, each read off its smooth curve")
    rel_ci95: float | None = column(
        "half-width of its 95 % interval / value, by the pooled spread of starts, else null"
    )
    output_tokens_per_s: float = column("there, of one replica")
    power_w: float = column("there, of one replica, within the boundary")
    output_tokens_per_s_per_user: float | None = column("there: 1 / median TPOT")
    latencies_s: Mapping[str, float | None] = column("there: the worst window's percentiles")
    slo_met: Met | None = column("yes, no or undecided by 95 % bounds; null where nothing is owed")
    fleet_output_tokens_per_joule: float | None = column(
        "over the day of the demand, at least (min_output_tokens_per_joule of the fleet); null without a demand"
    )
    usd_per_million_output_tokens: float | None = column("of the fleet; null without a demand or prices")
    warnings: tuple[str, ...] = column("of its windows there")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The winner against another config or load, as winner / other."""

    other: Choice = column("the other")
    ratio: float = column("of what was decided by: tokens per joule, over the day where a demand is given")
    low: float = column("lower end of the 95 % interval of the ratio")
    high: float = column("its upper end")
    interval_basis: str = column("where the interval comes from")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One load of a config under the SLO that no other beats in both tokens per joule and tokens/s per user."""

    label: str = column("the config")
    config_hash: str = column("its identity")
    load: str = column("the load")
    output_tokens_per_joule: float = column("there")
    output_tokens_per_s_per_user: float = column("there")
    basis: Basis = column("fresh_starts or screening")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputPick:
    """The config and load with the most tokens/s per device under the SLO, and how the winner differs: winner / it."""

    label: str = column("the config")
    config_hash: str = column("its identity")
    load: str = column("the load")
    is_same: bool = column("whether it is the winner at its best load")
    output_tokens_per_joule: float = column("there")
    output_tokens_per_s_per_device: float = column("there")
    power_w_per_device: float = column("there")
    tokens_per_joule_ratio: float = column("winner / it")
    tokens_per_s_per_device_ratio: float = column("winner / it")
    power_per_device_ratio: float = column("winner / it")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What keeps the winner from a heavier load, and what the next measured one would gain."""

    limited_by: LimitedBy = column(
        "slo; efficiency: the next load gains nothing; range: there is no heavier valid load"
    )
    next_load: str | None = column("the next heavier measured load; null where there is none")
    binding: str | None = column("column of the bound that it breaks most")
    bound_s: float | None = column("that bound")
    needed_s: float | None = column("what it would have to be; null also where no row knows")
    tokens_per_joule_ratio: float | None = column("tokens per joule at the next load / at the best")
    tokens_per_s_ratio: float | None = column("tokens/s likewise")
    text: str = column("the same in a sentence")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was chosen, from which rows, why, and how sure that is."""

    schema_version: int = column("of this JSON", default=SCHEMA_VERSION)
    tool_version: str = column("version of this package")
    studies: tuple[str, ...] = column("whose rows were compared")
    num_rows: int = column("valid rows that were compared")
    conditions: Mapping[str, Any] = column("what all of them share")
    gpu_uuids: tuple[str, ...] = column("the devices they ran on")
    slo: Mapping[str, Any] = column("its name, and what it owes, by the keys of conf/slo")
    criterion: str = column("what was decided by, in words")
    basis: Basis = column("fresh_starts or screening")
    is_firm: bool = column("whether fresh starts call one config the best; `doubts` says what is missing")
    doubts: tuple[str, ...] = column("what its reader should know")
    winner: Choice = column("the config to serve with")
    why: str = column("why this one of the tie set")
    tie_set: tuple[Choice, ...] = column("configs of which none is known to be better, the winner among them")
    detectable: float = column("smallest relative difference that shows between two of the compared configs")
    detectable_basis: str = column("where that comes from")
    runner_up: Comparison | None = column(
        "the best other config with fresh starts, of screenings another; null without one"
    )
    front: tuple[FrontPoint, ...] = column(
        "Pareto front of tokens per joule and tokens/s per user, all loads under the SLO"
    )
    throughput: ThroughputPick = column("what would be picked for throughput")
    limit: Limit = column("which constraint binds, and what relaxing it would gain")
    fleet: Fleet | None = column("replicas, power and cost of the winner; null without a demand")
    at_saturation: Comparison | None = column(
        "the config that would be chosen at its best load, where the demand chooses another; else null"
    )
    ruled_out: Mapping[str, str] = column("configs that cannot be chosen, and why")
    explanation: Explanation = column("which axes mattered")
    finals_command: str | None = column("measures the fresh starts that are missing; null where none are")
    trial: Trial = dataclasses.field(repr=False, metadata={"meaning": None})
    """The winner's last start that counts, for who ships it; its `study_json` is the study. Not in the JSON."""


def basis(candidate: Candidate) -> Basis:
    """What the figures of a candidate rest on."""
    return Basis.FRESH if candidate.is_fresh else Basis.SCREENING


def decision_json(decision: Decision) -> dict[str, Any]:
    """A decision as plain JSON values.

    Raises:
        StoreError: If a number is NaN or infinite; absent is null.
    """
    found = plain({f.name: getattr(decision, f.name) for f in dataclasses.fields(decision) if f.metadata["meaning"]})
    assert isinstance(found, dict)  # noqa: S101  # as given
    return found


def plain(value: Any) -> Any:
    """Dataclasses, mappings, tuples and enums as plain JSON values.

    Raises:
        StoreError: If a number is NaN or infinite; absent is null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        raise StoreError(f"a result holds {value}; absent is null")
    return value
