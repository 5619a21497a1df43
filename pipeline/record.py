"""The one schema: every stored column once, with its unit and meaning.

The Arrow schema, the docs table and validation derive from the two classes here. Absent is null, never 0.
Units are in the names: `_s`, `_j`, `_w`, `_tokens`, `_c` (degrees Celsius), `_mhz`; a ratio has none.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Self

import pyarrow as pa

from pipeline.errors import StoreError

SCHEMA_VERSION = 1
"""History: 1, the first (2026-11)."""


class Evidence(StrEnum):
    """How a number came about, strongest first; see DESIGN in docs/measurement.md."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    MODELLED = "modelled"
    SIMULATED = "simulated"


def weaker(first: Evidence, second: Evidence) -> Evidence:
    """The weaker of two kinds of evidence."""
    order = list(Evidence)
    return max(first, second, key=order.index)


class Boundary(StrEnum):
    """What the joules cover. Rows of different boundaries are never ranked together."""

    GPU = "gpu"
    CPU = "cpu"


class RowStatus(StrEnum):
    """Whether a row may be scored."""

    OK = "ok"
    INVALID = "invalid"


class TrialStatus(StrEnum):
    """How a trial ended."""

    OK = "ok"
    START_FAILED = "start_failed"
    OUT_OF_MEMORY = "out_of_memory"
    START_TIMEOUT = "start_timeout"
    LOAD_FAILED = "load_failed"
    HUNG = "hung"
    METER_FAILED = "meter_failed"
    INTERRUPTED = "interrupted"


class Reason(StrEnum):
    """Why a row is invalid, or what its reader should be warned of."""

    COUNTER_RESET = "counter_reset"
    DEMO_PLAN = "demo_plan"
    ERROR_RATE = "error_rate"
    NO_ENERGY = "no_energy"
    NO_TOKENS = "no_tokens"
    NOT_STEADY = "not_steady"
    OCCUPANCY_LOW = "occupancy_low"
    READING_DISAGREEMENT = "reading_disagreement"
    SECOND_READING_LOST = "second_reading_lost"
    ABOVE_PHYSICAL_BOUND = "above_physical_bound"
    CLIENT_BOUND = "client_bound"
    THERMAL_OR_BRAKE = "thermal_or_brake"


def column(meaning: str, **kwargs: Any) -> Any:
    """A dataclass field that carries what its column means."""
    return dataclasses.field(metadata={"meaning": meaning}, **kwargs)


_type_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)
"""Kept, because every record asks and it takes a millisecond."""


class Record:
    """What Row and Trial share: an Arrow schema, checks, and conversion, all derived from the fields."""

    @classmethod
    def schema(cls) -> pa.Schema:
        """The Arrow schema; its metadata carries the schema version and the kind of record."""
        fields = [pa.field(name, arrow, nullable) for name, arrow, nullable, _ in cls.columns()]
        return pa.schema(fields, {"schema_version": str(SCHEMA_VERSION), "record": cls.__name__.lower()})

    @classmethod
    def columns(cls) -> Iterator[tuple[str, pa.DataType, bool, str]]:
        """Name, Arrow type, nullability and meaning of every column, in order."""
        hints = _type_hints(cls)
        for item in dataclasses.fields(cls):  # type: ignore[arg-type]  # subclasses are dataclasses
            arrow, nullable = _arrow_type(hints[item.name])
            yield item.name, arrow, nullable, item.metadata["meaning"]

    def to_dict(self) -> dict[str, Any]:
        """Plain column values.

        Raises:
            StoreError: If a number is NaN or infinite, or a column that must be set is null.
        """
        values = {}
        for name, _, nullable, _ in self.columns():
            value = getattr(self, name)
            if value is None and not nullable:
                raise StoreError(f"column {name} must be set")
            if isinstance(value, float) and not math.isfinite(value):
                raise StoreError(f"column {name} is {value}; absent is null, never NaN or infinite")
            values[name] = [str(v) for v in value] if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build a record from stored columns; columns unknown to this version are left out.

        Raises:
            StoreError: If a column that must be set is null or missing.
            ValueError: If a value is none of its enum's.
        """
        hints = _type_hints(cls)
        required = {item.name for item in dataclasses.fields(cls) if item.default is dataclasses.MISSING}  # type: ignore[arg-type]  # subclasses are dataclasses
        names = [name for name, *_ in cls.columns() if name in values]
        for name, _, nullable, _ in cls.columns():
            if not nullable and (values.get(name) is None if name in values else name in required):
                raise StoreError(f"column {name} must be set")
        return cls(**{name: _restore(hints[name], values[name]) for name in names})


_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _arrow_type(hint: Any) -> tuple[pa.DataType, bool]:
    """Arrow type and nullability of a field's type hint."""
    if isinstance(hint, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        return _arrow_type(inner)[0], True
    if typing.get_origin(hint) is tuple:
        return pa.list_(pa.string()), False
    return (pa.string() if issubclass(hint, StrEnum) else _ARROW[hint]), False


def _restore(hint: Any, value: Any) -> Any:
    """A stored value as its field's type: enums and tuples come back from strings and lists."""
    if value is None:
        return None
    if isinstance(hint, types.UnionType):
        return _restore(next(arg for arg in typing.get_args(hint) if arg is not types.NoneType), value)
    if typing.get_origin(hint) is tuple:
        return tuple(_restore(typing.get_args(hint)[0], item) for item in value)
    return hint(value) if isinstance(hint, type) and issubclass(hint, StrEnum) else value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row(Record):
    """One operating point of one trial."""

    row_id: str = column("unique id of this row")
    trial_id: str = column("the trial (engine start) this row belongs to")
    study_id: str = column("the study the trial belongs to")
    case_id: str = column("identity of the comparable case, without software versions")
    config_hash: str = column("identity of the requested engine config, explicitly set keys only")
    rendered_hash: str = column("hash of the engine's files, argv and environment as rendered")
    effective_hash: str | None = column("hash of what the engine reports it resolved", default=None)
    config_json: str = column("the requested engine config, keyed by conf path")
    status: RowStatus = column("ok, or invalid (kept, never scored)")
    reasons: tuple[Reason, ...] = column("why the row is invalid", default=())
    warnings: tuple[Reason, ...] = column("what its reader should know", default=())
    evidence: Evidence = column("the weaker of the two below")
    throughput_evidence: Evidence = column("how the token counts came about")
    energy_evidence: Evidence = column("how the joules came about")
    origin: str = column("own, or imported from another tool", default="own")
    boundary: Boundary = column("what output_tokens_per_joule divides by: gpu_energy_j or cpu_energy_j")
    started_utc: str = column("window start, wall clock, ISO 8601")
    model: str = column("model name")
    weights: str = column("checkpoint, random, or none (modelled)")
    weights_init: str | None = column("how random weights were drawn; null for a checkpoint", default=None)
    hardware: str = column("hardware name as in conf/hardware")
    gpu_name: str | None = column("device name as its driver reports it", default=None)
    gpu_uuids: tuple[str, ...] = column("devices reserved by the deployment", default=())
    num_gpus: int = column("number of devices reserved; 0 on a CPU")
    engine: str = column("serving engine")
    engine_version: str | None = column("version the engine's own runtime reports", default=None)
    driver_version: str | None = column("device driver", default=None)
    tool_version: str = column("version of this package")
    workload: str = column("workload name")
    plan: str = column("measuring plan")
    isl_tokens: int = column("nominal input sequence length")
    osl_tokens: int = column("nominal output sequence length")
    isl_mean_tokens: float | None = column("mean input length of requests completed in the window", default=None)
    osl_mean_tokens: float | None = column("mean output length of requests completed in the window", default=None)
    concurrency: int = column("requests the client keeps in flight")
    warmup_s: float | None = column("time under this load before the window opened", default=None)
    window_s: float | None = column("common window of tokens and joules", default=None)
    output_tokens: int | None = column(
        "output tokens that arrived in the window, failed requests left out", default=None
    )
    input_tokens: int | None = column("prompt tokens of requests whose first token arrived in the window", default=None)
    num_completed: int | None = column("requests completed in the window", default=None)
    num_failed: int | None = column("requests that failed in the window", default=None)
    occupancy: float | None = column("mean requests in flight / concurrency over the window", default=None)
    gpu_energy_j: float | None = column("energy of all reserved GPU boards over the window", default=None)
    gpu_energy_integral_j: float | None = column("second reading: integral of instantaneous board power", default=None)
    cpu_energy_j: float | None = column("energy of the CPU packages, or of the declared CPU model", default=None)
    power_w: float | None = column("mean power within the boundary", default=None)
    output_tokens_per_joule: float | None = column(
        "the score: output tokens / joules within the boundary", default=None
    )
    total_tokens_per_joule: float | None = column("(input + output tokens) / joules within the boundary", default=None)
    output_tokens_per_s: float | None = column("output tokens / window", default=None)
    output_tokens_per_s_per_user: float | None = column("1 / median TPOT", default=None)
    output_tokens_per_joule_rel_ci95: float | None = column(
        "half-width of the 95 % interval / value, from blocks within the window (start-to-start not included)",
        default=None,
    )
    num_blocks: int | None = column("blocks that the interval rests on", default=None)
    drift: float | None = column("change of tokens/s over the window by a linear fit / its mean", default=None)
    ttft_p50_s: float | None = column("time to first token, median over requests", default=None)
    ttft_p99_s: float | None = column("time to first token, 99th percentile (nearest rank)", default=None)
    tpot_p50_s: float | None = column("(last token - first token) / (tokens - 1) per request, median", default=None)
    tpot_p99_s: float | None = column("the same, 99th percentile (nearest rank)", default=None)
    e2e_p50_s: float | None = column("request sent to last token, median", default=None)
    e2e_p99_s: float | None = column("request sent to last token, 99th percentile", default=None)
    gpu_temperature_mean_c: float | None = column("mean GPU temperature over window and devices", default=None)
    sm_clock_mean_mhz: float | None = column("mean SM clock over window and devices", default=None)
    power_limit_w: float | None = column("enforced power limit, sum over devices", default=None)
    throttle_s: float | None = column("time held back for heat or by a power brake, longest device", default=None)
    power_cap_s: float | None = column("time held back by the power limit, longest device", default=None)
    client_cpu_s: float | None = column("CPU time of the load client over the window", default=None)
    trace_file: str | None = column("requests and power samples, path relative to the results folder", default=None)
    trace_sha256: str | None = column("hash of that file", default=None)
    calibration_id: str | None = column("constants of the model, for modelled rows", default=None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Record):
    """One engine start; written last, so it is also the mark that its rows are complete."""

    trial_id: str = column("unique id of this trial")
    study_id: str = column("the study it belongs to")
    number: int = column("position in the study, from 0")
    status: TrialStatus = column("how it ended")
    reasons: tuple[str, ...] = column("what went wrong, in words", default=())
    config_hash: str = column("identity of the requested engine config")
    config_json: str = column("the requested engine config, keyed by conf path")
    proposed_by: str = column("baseline, prior, or the sampler")
    rendered_hash: str | None = column("hash of the engine's files, argv and environment", default=None)
    effective_hash: str | None = column("hash of what the engine reports it resolved", default=None)
    effective_json: str | None = column("what the engine reports it resolved", default=None)
    argv_json: str | None = column("the command line, placeholders unfilled", default=None)
    engine: str = column("serving engine")
    engine_version: str | None = column("version the engine's own runtime reports", default=None)
    evidence: Evidence | None = column("evidence of its rows; null without rows", default=None)
    num_rows: int = column("rows written")
    score: float | None = column("output tokens/J at the best load that meets the SLO; null if none", default=None)
    slo: str = column("SLO that the score was taken under")
    started_utc: str = column("wall clock, ISO 8601")
    start_s: float | None = column("process start to first generated token", default=None)
    start_energy_j: float | None = column("energy within the boundary spent starting", default=None)
    total_s: float = column("whole trial, start to stop")
    log_tail: tuple[str, ...] = column("the engine's last log lines, kept when it failed", default=())
    tool_version: str = column("version of this package")
    study_json: str = column("the whole study as composed")


def markdown_table(kind: type[Record]) -> str:
    """The columns of a record as a Markdown table, for docs/columns.md."""
    lines = ["| column | type | null | meaning |", "|---|---|---|---|"]
    lines += [f"| `{n}` | {t} | {'yes' if null else 'no'} | {m} |" for n, t, null, m in kind.columns()]
    return "\n".join(lines)
