"""What another tool reported of one operating point, in our units; None where it does not say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.engine_config import Value
from pipeline.errors import ConfigError
from pipeline.vocabulary import Boundary

MAX_TOKENS_PER_TPOT = 10
"""Output tokens/s x median TPOT / concurrency is about 1 at most; a unit that is off by a prefix makes it 1000."""

MAX_DISAGREEMENT = 0.02
"""Between figures of one report that say the same, which differ by their rounding only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One measurement of another tool.

    Attributes:
        tool: Whose it is.
        tool_version: Its version.
        where: File and entry, for messages.
        source: The same for the row, without a folder.
        digest: Identity of the measurement, hex.
        started: When the run began.
        model: Name of the model or checkpoint.
        model_choice: The choice of conf/model, where the tool has a key of its own for the model.
        weights: Format of the weights in the words of conf/precision.
        weights_said: What it says of formats, for messages.
        is_random_weights: Whether it says that weights were drawn.
        engine: Serving engine.
        engine_version: Its version.
        gpu_name: As a driver names it.
        hardware: What else it calls the GPU: `h100`, `B200`, `gb200-nv`.
        num_gpus: That the deployment reserves, where the degrees of parallelism do not say.
        num_gpus_metered: GPUs whose energy counts, where it says.
        axes: Settings of the engine by conf path; None is not set.
        has_parallelism: Whether it says how the model was split.
        concurrency: Requests kept in flight.
        request_rate_per_s: Requests sent per second, in an open loop.
        num_in_flight: Mean number of requests in flight.
        workload: Name of what was sent, where it has one.
        isl_tokens: Nominal input length; `osl_tokens` likewise.
        isl_mean_tokens: Mean input length; `osl_mean_tokens` likewise.
        duration_s: Time over which tokens and joules count.
        output_tokens: Output tokens of all requests that succeeded; `input_tokens` likewise.
        num_completed: Requests that succeeded; `num_failed` likewise.
        output_tokens_per_s: Of the whole deployment; `input_tokens_per_s` likewise.
        latencies_s: Percentiles by our column.
        boundary: What its joules cover: GPU boards, or the facility where watts are provisioned per GPU.
        gpu_energy_j: Of all GPU boards; `power_w` likewise, their mean power.
        output_tokens_per_joule: As the report has it.
        is_one_nodes_energy: Whether the tool reads the GPUs of one node and scales up to the others.
        notes: What could not be mapped, or was taken for something.
    """

    tool: str
    where: str
    source: str
    digest: str
    started: datetime
    model: str
    tool_version: str | None = None
    model_choice: str | None = None
    weights: str | None = None
    weights_said: str = "no format"
    is_random_weights: bool = False
    engine: str | None = None
    engine_version: str | None = None
    gpu_name: str | None = None
    hardware: str | None = None
    num_gpus: int | None = None
    num_gpus_metered: int | None = None
    axes: Mapping[str, Value | None] = field(default_factory=dict)
    has_parallelism: bool = True
    concurrency: int | None = None
    request_rate_per_s: float | None = None
    num_in_flight: float | None = None
    workload: str | None = None
    isl_tokens: int | None = None
    osl_tokens: int | None = None
    isl_mean_tokens: float | None = None
    osl_mean_tokens: float | None = None
    duration_s: float | None = None
    output_tokens: int | None = None
    input_tokens: int | None = None
    num_completed: int | None = None
    num_failed: int | None = None
    output_tokens_per_s: float
    input_tokens_per_s: float | None = None
    latencies_s: Mapping[str, float | None] = field(default_factory=dict)
    boundary: Boundary = Boundary.GPU
    gpu_energy_j: float | None = None
    power_w: float | None = None
    output_tokens_per_joule: float | None = None
    is_one_nodes_energy: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the figures can be of the units they are taken for.

        Raises:
            ConfigError: If they cannot.
        """
        figures = {**{name: getattr(self, name) for name in self.__dataclass_fields__}, **self.latencies_s}
        for name, figure in figures.items():
            if isinstance(figure, int | float) and figure < 0:
                raise ConfigError(f"{self.where}: {name}={figure:g}: is below 0, which nothing measured can be")
        tpot_s, ttft_s, e2e_s = (self.latencies_s.get(f"{name}_p50_s") for name in ("tpot", "ttft", "e2e"))
        users = self.concurrency or self.num_in_flight
        if tpot_s and users and self.output_tokens_per_s * tpot_s > MAX_TOKENS_PER_TPOT * users:
            raise ConfigError(
                f"{self.where}: units in doubt: {self.output_tokens_per_s:g} output tokens/s of {users:g} users cannot "
                f"be at a median TPOT of {tpot_s:g} s"
            )
        if ttft_s and e2e_s and ttft_s > e2e_s * (1 + MAX_DISAGREEMENT):
            raise ConfigError(
                f"{self.where}: units in doubt: the median TTFT of {ttft_s:g} s is longer than the median request of "
                f"{e2e_s:g} s"
            )


@dataclass(frozen=True, slots=True)
class Read:
    """What a file holds: measurements, and entries that are none, each with its reason in a sentence."""

    reported: tuple[Reported, ...]
    rejected: tuple[str, ...] = ()


def agrees(where: str, what: str, first: float | None, second: float | None, within: float = MAX_DISAGREEMENT) -> None:
    """Check that two figures of a report which say the same do so.

    Raises:
        ConfigError: If both are there and do not.
    """
    if first and second and abs(first / second - 1) > within:
        raise ConfigError(f"{where}: units in doubt: {what}: {first:g} and {second:g} are not the same")
