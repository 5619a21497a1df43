"""What the users send and at which load, and the latency they are owed."""

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

CONCURRENCY_GRID = tuple(sorted({m * 2**e for e in range(15) for m in (1, 3)} - {3 * 2**14}))
"""Loads that a ladder may use (1, 2, 3, 4, 6, 8, 12, 16, 24 ...), so that rows of different trials and years join."""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class OperatingPoint:
    """What varies on a running engine: requests kept in flight (closed loop), or sent per second (open loop, Poisson).

    Neither is set where a schedule says when to send.
    """

    concurrency: int | None = Field(default=None, gt=0)
    request_rate_per_s: float | None = Field(default=None, gt=0)

    @property
    def load(self) -> float:
        """How heavy it is, to order and space the points of one ladder; 1 for a schedule, which is one point."""
        return self.concurrency or self.request_rate_per_s or 1.0

    def __str__(self) -> str:
        """In words, for messages."""
        if self.concurrency is not None:
            return f"concurrency {self.concurrency}"
        return f"{self.request_rate_per_s:g} requests/s" if self.request_rate_per_s is not None else "the schedule"


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Workload:
    """What the users send, and how it arrives.

    Lengths are uniform on [length_ratio_min, 1] of nominal, as InferenceMAX draws them (1: all equal), or the pairs of
    `lengths_file` (CSV with columns isl_tokens, osl_tokens), whose longest are nominal then. `closed` keeps
    `concurrency` requests in flight; `poisson` sends at `request_rate_per_s` whatever comes back; `schedule` sends the
    lines of `lengths_file` at their column at_s, over and over. Prompts are unique but for their first
    `shared_prefix_tokens`.
    """

    name: str
    source: str
    isl_tokens: int = Field(gt=0)
    osl_tokens: int = Field(ge=2)
    length_ratio_min: float = Field(gt=0, le=1)
    concurrency: tuple[int, ...] = ()
    seed: int = 0
    arrival: Literal["closed", "poisson", "schedule"] = "closed"
    request_rate_per_s: tuple[float, ...] = ()
    lengths_file: str | None = None
    lengths_sha256: str | None = None
    shared_prefix_tokens: int = Field(default=0, ge=0)

    @property
    def ladder(self) -> tuple[OperatingPoint, ...]:
        """The loads to climb, lightest first; a schedule is one load."""
        if self.arrival == "closed":
            return tuple(OperatingPoint(concurrency=value) for value in self.concurrency)
        if self.arrival == "poisson":
            return tuple(OperatingPoint(request_rate_per_s=value) for value in self.request_rate_per_s)
        return (OperatingPoint(),)

    @property
    def max_seq_len_tokens(self) -> int:
        """Longest context a request can reach, tokens."""
        return self.isl_tokens + self.osl_tokens


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Slo:
    """What is owed to the users; None means unbounded.

    Latencies are upper bounds on a percentile over requests, seconds, named after the column of a row that they bound.
    `output_tokens_per_s_per_user_min` is the least that the median user sees, which is 1 / median TPOT.
    """

    name: str
    source: str
    ttft_p99_s: float | None = Field(default=None, gt=0)
    tpot_p99_s: float | None = Field(default=None, gt=0)
    e2e_p99_s: float | None = Field(default=None, gt=0)
    ttft_p50_s: float | None = Field(default=None, gt=0)
    tpot_p50_s: float | None = Field(default=None, gt=0)
    e2e_p50_s: float | None = Field(default=None, gt=0)
    output_tokens_per_s_per_user_min: float | None = Field(default=None, gt=0)

    @property
    def bounds(self) -> dict[str, float]:
        """Upper bounds that are owed, seconds, by the column that they bound; the floor is one on the median TPOT."""
        floor = self.output_tokens_per_s_per_user_min
        tpot_p50_s = [self.tpot_p50_s, None if floor is None else 1 / floor]
        bounds = {
            "ttft_p99_s": self.ttft_p99_s,
            "tpot_p99_s": self.tpot_p99_s,
            "e2e_p99_s": self.e2e_p99_s,
            "ttft_p50_s": self.ttft_p50_s,
            "tpot_p50_s": min((value for value in tpot_p50_s if value is not None), default=None),
            "e2e_p50_s": self.e2e_p50_s,
        }
        return {column: bound for column, bound in bounds.items() if bound is not None}

    @property
    def ttft_s(self) -> float | None:
        """The tightest bound on time to first token, for a model that knows no percentiles."""
        return min((bound for column, bound in self.bounds.items() if column.startswith("ttft")), default=None)

    @property
    def tpot_s(self) -> float | None:
        """The tightest bound on time per output token, for a model that knows no percentiles."""
        return min((bound for column, bound in self.bounds.items() if column.startswith("tpot")), default=None)
