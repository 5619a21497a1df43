"""The values everything else passes around: a Study is all that is held fixed while configurations are compared.

Frozen, typed and checked when made; names follow the field's terms (ISL, OSL), and every quantity carries its unit.
`config.py` builds them from conf/; what the users send is in workload.py, what needs a restart in engine_config.py.
"""

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pipeline.disaggregation import Disaggregation
from pipeline.engine_config import EngineConfig, Value, content_hash
from pipeline.errors import ConfigError
from pipeline.workload import OperatingPoint, Slo, Workload

ON_GPUS = frozenset({"trtllm", "vllm"})
"""Engines that this project runs on GPUs only; a server of either kind that somebody else started is `attached`."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Checkpoint:
    """One published set of weights of a model."""

    repo: str
    format: Literal["fp32", "bf16", "fp8", "fp8_block", "mxfp4", "nvfp4"]
    weight_bytes: int = Field(gt=0)
    source: str
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Model:
    """Architecture facts of one model; `source` says where they come from.

    `sliding_window_tokens` limits the context of `num_sliding_layers` of the layers. `mla_kv_dim` is the
    cached width per token and layer of multi-head latent attention. Dense FFN layers come first
    (`num_dense_layers`); the rest are mixture-of-experts when `num_experts` is set. `mtp_layers` are multi-token
    prediction layers within the checkpoint; `draft_models` are published drafts by speculative decoding type.
    `former_names` are those that older rows are stored under.
    """

    name: str
    source: str
    engines: tuple[str, ...]
    num_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    total_params: int = Field(gt=0)
    active_params: int = Field(gt=0)
    max_context_tokens: int = Field(gt=0)
    intermediate_size: int = Field(ge=0)
    checkpoints: dict[str, Checkpoint]
    num_dense_layers: int = 0
    num_experts: int = 0
    num_experts_per_token: int = 0
    num_shared_experts: int = 0
    expert_intermediate_size: int = 0
    mla_kv_dim: int | None = None
    sliding_window_tokens: int | None = None
    num_sliding_layers: int = 0
    mtp_layers: int = Field(default=0, ge=0)
    draft_models: dict[str, str] = Field(default_factory=dict)
    tie_embeddings: bool = False
    weights_default: Literal["checkpoint", "random"] = "checkpoint"
    path: str | None = None
    hf_config: dict[str, Any] | None = None
    former_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what no single fact shows.

        Raises:
            ValueError: If facts contradict each other, or one that others need is missing.
        """
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}")
        if self.num_dense_layers > self.num_layers or self.num_sliding_layers > self.num_layers:
            raise ValueError(f"num_dense_layers and num_sliding_layers are among num_layers={self.num_layers}")
        if self.num_sliding_layers and self.sliding_window_tokens is None:
            raise ValueError(f"num_sliding_layers={self.num_sliding_layers} need sliding_window_tokens")
        if self.num_experts and not (
            0 < self.num_experts_per_token <= self.num_experts and self.expert_intermediate_size
        ):
            raise ValueError(
                f"num_experts={self.num_experts} need expert_intermediate_size and num_experts_per_token, at most as "
                f"many (here {self.expert_intermediate_size} and {self.num_experts_per_token})"
            )
        if (not self.num_experts or self.num_dense_layers) and not self.intermediate_size:
            raise ValueError("intermediate_size is 0, and there are layers without experts")
        if self.active_params > self.total_params:
            raise ValueError(f"active_params={self.active_params} exceed total_params={self.total_params}")


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Hardware:
    """One kind of accelerator (or a plain CPU), as many of it as one engine may span, and its published limits.

    `num_gpus_per_node` is None where all of them are in one machine.

    `flops_per_s` is dense (no sparsity), per device and precision. `link_bandwidth_bytes_per_s` is per
    device and direction between devices of one domain. `provisioned_kw_per_gpu` is all-in utility power,
    PUE included. The `declared_*` values are the watts model of a machine without an energy sensor. `power_cap_w` per
    board and `sm_clock_share` of the highest SM clock are of the model only: nothing is set on a device.
    """

    name: str
    source: str
    kind: Literal["cpu", "gpu"]
    arch: Literal["cpu", "hopper", "blackwell"]
    num_gpus: int = Field(ge=0)
    num_gpus_per_node: int | None = Field(default=None, ge=1)
    memory_bytes: int | None = None
    memory_bandwidth_bytes_per_s: float | None = None
    flops_per_s: dict[str, float] = Field(default_factory=dict)
    link_bandwidth_bytes_per_s: float | None = None
    board_power_w: float | None = None
    idle_power_w: float | None = None
    provisioned_kw_per_gpu: float | None = None
    nvml_name: str | None = None
    declared_idle_w: float | None = None
    declared_busy_w_per_core: float | None = None
    power_cap_w: float | None = Field(default=None, gt=0)
    sm_clock_share: float = Field(default=1.0, ge=0.3, le=1)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EngineSettings:
    """How the engine is run; the knobs that are searched are axes, not settings.

    Attributes:
        runtime: Where the engine's own software is: an environment on this machine, or a container.
        python: Interpreter of that environment, by path or name; within the container for one.
        image: The container's image by digest (name@sha256:...).
        version: Version to render for; None is the one that the runtime reports, else the newest known.
        instrumented: Start it with its own energy and queue metrics on, which disturb: such rows are never scored.
        allow_unknown: Pass keys on that we do not know, for a newer version.
        url: Of a server that someone else started (name: attached), as are `gpus` (UUIDs or indices) and
            `served_model`.
    """

    name: Literal["trtllm", "vllm", "openvino", "attached"]
    runtime: Literal["local", "docker", "enroot"] = "local"
    python: str
    image: str | None = None
    version: str | None = None
    instrumented: bool = False
    allow_unknown: bool = False
    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)
    ready_timeout_s: float = Field(gt=0)
    env: dict[str, str] = Field(default_factory=dict)
    url: str | None = None
    gpus: tuple[str, ...] = ()
    served_model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Plan:
    """How one operating point is measured. With `gates: warn` a failed gate is a warning and no row is `measured`.

    Attributes:
        warmup_s: Shortest time under the scored load before a window opens.
        warmup_max_s: Longest; after it the window opens all the same, and says what had not settled.
        window_s: Length of a window.
        window_max_s: A window grows up to here to hold `min_request_durations` of the median request.
        block_s: Blocks over which throughput must agree.
        max_rel_ci95: A wider interval extends the window once to twice its length, and is a warning after that.
        max_temperature_change_c: Warm-up waits until the GPUs' temperature moves no more than this in half a minute.
        check_s: Time after the window in which the engine's own counters are read.
        windows: Windows per load, one after the other under one warm-up.
        starts: Fresh engine starts of one config that `tpw repeatability` makes.
    """

    name: str
    warmup_s: float = Field(ge=0)
    warmup_max_s: float = Field(gt=0)
    window_s: float = Field(gt=0)
    block_s: float = Field(gt=0)
    gates: Literal["warn", "enforce"]
    steady_tolerance: float = Field(gt=0)
    max_error_rate: float = Field(ge=0, lt=1)
    max_reading_disagreement: float = Field(gt=0)
    hang_s: float = Field(gt=0)
    window_max_s: float | None = Field(default=None, gt=0)
    min_request_durations: float = Field(default=0, ge=0)
    max_rel_ci95: float | None = Field(default=None, gt=0)
    max_temperature_change_c: float | None = Field(default=None, gt=0)
    max_token_disagreement: float = Field(default=0.01, gt=0)
    check_s: float = Field(default=0, ge=0)
    windows: int = Field(default=1, ge=1)
    starts: int = Field(default=1, ge=1)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SearchSettings:
    """How configurations are proposed; `budget_trials` counts the trials of the study over all its runs.

    `recipes` is a folder in the layout of TensorRT-LLM's examples/configs, whose matching recipes are tried first.
    `finals_share` of the budget goes to fresh starts of the best configs.
    `aiconfigurator_python` is the interpreter of an environment with aiconfigurator, a second model for the prior.
    `ladder` is fixed (all loads of the workload) or adaptive (loads of the grid between their ends, around the best);
    `ladder_budget_s` is for all loads of one start, null for as long as they take. `prune` ends a trial that a bound
    says cannot beat the best. `anchor_every` lets the study go on on other GPUs of the type: on each the baseline is
    measured first, and after so many trials again; null keeps it to one set.
    """

    budget_trials: int
    sampler: Literal["residual", "gp", "tpe", "random", "grid"]
    num_seeded: int = Field(ge=0)
    seed: int = 0
    recipes: str | None = None
    aiconfigurator_python: str | None = None
    finals_share: float = Field(default=0.0, ge=0, lt=1)
    ladder: Literal["fixed", "adaptive"] = "fixed"
    ladder_budget_s: float | None = Field(default=None, gt=0)
    prune: bool = False
    anchor_every: int | None = Field(default=None, gt=0)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Study:
    """Everything held fixed while configurations are compared, plus the axes that span them.

    `axes` maps a conf path to the values it may take. `baseline` is the user's present config, if given.
    `disaggregation` is None where one server does both phases of a request.
    `weights_seed` is that of random weights. `calibration` is a file of constants of the model; None: the shipped ones.
    """

    id: str
    model: Model
    hardware: Hardware
    engine: EngineSettings
    workload: Workload
    slo: Slo
    plan: Plan
    search: SearchSettings
    axes: dict[str, tuple[Value | None, ...]]
    rig: Literal["served", "modelled"]
    meter: Literal["auto", "nvml", "rapl", "declared"]
    weights: Literal["checkpoint", "random", "none"]
    results_dir: str
    engines_dir: str
    weights_seed: int = Field(default=0, ge=0)
    baseline: EngineConfig | None = None
    disaggregation: Disaggregation | None = None
    calibration: str | None = None
    power: Literal["untouched"] = "untouched"
    launcher: Literal["local"] = "local"

    def case_id(self, config: EngineConfig, point: OperatingPoint) -> str:
        """Identity of one comparable case, without software versions: "software gain" is a join on it."""
        load, checkpoint = self.workload, self.model.checkpoints.get(config.precision.weights)
        case: dict[str, object] = {
            "model": self.model.name, "revision": checkpoint.revision if checkpoint else None, "weights": self.weights,
            "gpu": self.hardware.name,
            "num_gpus": config.parallelism.num_gpus if self.hardware.kind == "gpu" else 0,
            "workload": [load.isl_tokens, load.osl_tokens, load.length_ratio_min, load.seed],
            "concurrency": point.concurrency, "config_hash": config.config_hash,
        }  # fmt: skip
        # Only where set: what came later must not change the cases of earlier rows.
        later = {
            "arrival": None if load.arrival == "closed" else load.arrival,
            "request_rate_per_s": point.request_rate_per_s,
            "lengths_sha256": load.lengths_sha256,
            "shared_prefix_tokens": load.shared_prefix_tokens or None,
            "weights_seed": self.weights_seed or None,
            "power_cap_w": self.hardware.power_cap_w,
            "sm_clock_share": None if self.hardware.sm_clock_share == 1 else self.hardware.sm_clock_share,
        }
        case |= {name: value for name, value in later.items() if value is not None}
        return content_hash(case)


def check_metered(study: Study) -> None:
    """Check that the study's hardware is what its engine draws its energy from.

    Raises:
        ConfigError: If an engine of GPUs would be scored with a processor's watts.
    """
    if study.rig == "served" and study.engine.name in ON_GPUS and study.hardware.kind == "cpu":
        raise ConfigError(
            f"hardware={study.hardware.name}: engine={study.engine.name} runs on GPUs, whose energy would be left out; "
            "leave hardware out on the machine that has them, or name theirs"
        )
