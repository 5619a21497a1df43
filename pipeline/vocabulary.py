"""The closed vocabularies of the records: how a number came about, what it covers, how it ended, and why not."""

from enum import StrEnum


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
    FACILITY = "facility"
    """All-in utility power as provisioned per GPU: a model, of imported rows only."""


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
    PRUNED = "pruned"

    @property
    def is_failure(self) -> bool:
        """Whether the config, or its start, went wrong; one that was stopped from outside did not."""
        return self not in {TrialStatus.OK, TrialStatus.INTERRUPTED, TrialStatus.PRUNED}


class Reason(StrEnum):
    """Why a row is invalid, or what its reader should be warned of; verdict.py says which, and from when on."""

    ABOVE_PHYSICAL_BOUND = "above_physical_bound"
    ALIASING_RISK = "aliasing_risk"
    CLIENT_BOUND = "client_bound"
    COUNTER_RESET = "counter_reset"
    DEMO_PLAN = "demo_plan"
    DRAFTS_OF_RANDOM_TEXT = "drafts_of_random_text"
    DUMMY_WEIGHTS = "dummy_weights"
    ENGINE_UNTESTED = "engine_untested"
    ERROR_RATE = "error_rate"
    FOREIGN_PROCESS = "foreign_process"
    GPU_COUNT_MISMATCH = "gpu_count_mismatch"
    GPU_IDLE = "gpu_idle"
    GPU_UNUSED = "gpu_unused"
    HOST_BOUND = "host_bound"
    IMPORTED_WINDOW = "imported_window"
    INSTRUMENTED = "instrumented"
    INTERVAL_UNKNOWN = "interval_unknown"
    INTERVAL_WIDE = "interval_wide"
    KERNELS_COMPILING = "kernels_compiling"
    KV_PREEMPTION = "kv_preemption"
    LIMIT_CHANGED = "limit_changed"
    LOSSY_SETTING = "lossy_setting"
    NO_ENERGY = "no_energy"
    NO_TOKENS = "no_tokens"
    NOT_STEADY = "not_steady"
    OCCUPANCY_LOW = "occupancy_low"
    POWER_BRAKE = "power_brake"
    QUEUE_LIMITED = "queue_limited"
    READING_DISAGREEMENT = "reading_disagreement"
    SAMPLE_GAP = "sample_gap"
    TEMPERATURE_APART = "temperature_apart"
    THROTTLED_THERMAL = "throttled_thermal"
    TOKENS_UNCOUNTED = "tokens_uncounted"
    TOKEN_MISMATCH = "token_mismatch"  # noqa: S105  # tokens, no password
    WARMUP_CAPPED = "warmup_capped"
    WEIGHTS_CONSTANT = "weights_constant"
    WINDOW_SHORT = "window_short"


RENAMED_REASONS = {"second_reading_lost": "sample_gap", "thermal_or_brake": "throttled_thermal"}
"""Reasons of schema version 1 under their present names; version 1 did not tell heat from a power brake."""


class Met(StrEnum):
    """Whether an SLO is met, by a bound on the percentile rather than its estimate."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"
