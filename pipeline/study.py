"""The values everything else passes around: a Study is all that is held fixed, an EngineConfig what needs a restart.

Both are frozen, typed and checked when made; names follow the field's terms (ISL, OSL, tp, pp, ep), and every
quantity carries its unit. `config.py` builds them from conf/; what the users send is in workload.py.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pipeline.workload import OperatingPoint, Slo, Workload

Scalar = bool | int | float | str
"""One value of an axis. None means: not set, the engine's own default."""

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
    (`num_dense_layers`); the rest are mixture-of-experts when `num_experts` is set.
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
    tie_embeddings: bool = False
    weights_default: Literal["checkpoint", "random"] = "checkpoint"
    path: str | None = None
    hf_config: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Hardware:
    """One kind of accelerator (or a plain CPU), as many of it as one engine may span, and its published limits.

    `flops_per_s` is dense (no sparsity), per device and precision. `link_bandwidth_bytes_per_s` is per
    device and direction between devices of one domain. `provisioned_kw_per_gpu` is all-in utility power,
    PUE included. The `declared_*` values are the watts model of a machine without an energy sensor.
    """

    name: str
    source: str
    kind: Literal["cpu", "gpu"]
    arch: Literal["cpu", "hopper", "blackwell"]
    num_gpus: int = Field(ge=0)
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


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EngineSettings:
    """How the engine is run; the knobs that are searched are axes, not settings.

    `url`, `gpus` (UUIDs or indices) and `served_model` are of a server that someone else started (name: attached).
    """

    name: Literal["trtllm", "vllm", "openvino", "attached"]
    runtime: Literal["local"] = "local"
    python: str
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
    """How configurations are proposed; `budget_trials` counts the trials of the study over all its runs."""

    budget_trials: int
    sampler: Literal["tpe", "random", "grid"]
    num_seeded: int = Field(ge=0)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Precision:
    """Number formats: of the weights (bf16, fp8, fp4; fp32 on a CPU) and of the KV cache."""

    weights: str
    kv_cache: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Parallelism:
    """Degrees of tensor, pipeline and expert parallelism; ep and attention data parallelism reuse the tp devices."""

    tp: int = Field(default=1, ge=1)
    pp: int = Field(default=1, ge=1)
    ep: int = Field(default=1, ge=1)
    attention_dp: bool = False

    @property
    def num_gpus(self) -> int:
        """Devices that one engine reserves."""
        return self.tp * self.pp


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Batching:
    """Scheduler limits under TensorRT-LLM's names; None is the engine's own default."""

    max_batch_size: int | None = Field(default=None, ge=1)
    max_num_tokens: int | None = Field(default=None, ge=1)
    kv_cache_fraction: float | None = Field(default=None, gt=0, le=1)
    chunked_prefill: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EngineConfig:
    """Everything whose change needs an engine restart. `knobs` are the engine's own names."""

    engine: str
    precision: Precision
    parallelism: Parallelism = Field(default_factory=Parallelism)
    batching: Batching = Field(default_factory=Batching)
    knobs: dict[str, Scalar] = Field(default_factory=dict)

    @classmethod
    def from_axes(cls, engine: str, values: Mapping[str, Scalar | None]) -> "EngineConfig":
        """Build a config from axis values keyed by conf path, e.g. {"parallelism.tp": 2, "engine.knobs.x": 1}.

        Raises:
            pydantic.ValidationError: If a value has the wrong type or an axis name is unknown.
        """
        groups: dict[str, dict[str, Scalar]] = {}
        for key, value in values.items():
            group, _, name = key.rpartition(".")
            if value is not None:
                groups.setdefault(group, {})[name] = value
        knobs = groups.pop("engine.knobs", {})
        return cls(engine=engine, knobs=knobs, **groups)  # type: ignore[arg-type]  # pydantic converts the dicts

    def requested(self) -> dict[str, Scalar]:
        """Only what is explicitly set, keyed by conf path, in a fixed order; the inverse of `from_axes`."""
        flat: dict[str, Scalar | None] = {
            "precision.weights": self.precision.weights,
            "precision.kv_cache": self.precision.kv_cache,
            "parallelism.tp": self.parallelism.tp,
            "parallelism.pp": self.parallelism.pp if self.parallelism.pp > 1 else None,
            "parallelism.ep": self.parallelism.ep if self.parallelism.ep > 1 else None,
            "parallelism.attention_dp": self.parallelism.attention_dp or None,
            "batching.max_batch_size": self.batching.max_batch_size,
            "batching.max_num_tokens": self.batching.max_num_tokens,
            "batching.kv_cache_fraction": self.batching.kv_cache_fraction,
            "batching.chunked_prefill": self.batching.chunked_prefill,
        }
        flat.update({f"engine.knobs.{name}": self.knobs[name] for name in sorted(self.knobs)})
        return {key: value for key, value in flat.items() if value is not None}

    @property
    def config_hash(self) -> str:
        """Identity of the requested config: version-neutral, over explicitly set keys only."""
        return content_hash({"engine": self.engine, **self.requested()})


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Study:
    """Everything held fixed while configurations are compared, plus the axes that span them.

    `axes` maps a conf path to the values it may take. `baseline` is the user's present config, if given.
    `weights_seed` is that of random weights.
    """

    id: str
    model: Model
    hardware: Hardware
    engine: EngineSettings
    workload: Workload
    slo: Slo
    plan: Plan
    search: SearchSettings
    axes: dict[str, tuple[Scalar | None, ...]]
    rig: Literal["served", "modelled"]
    meter: Literal["auto", "nvml", "rapl", "declared"]
    weights: Literal["checkpoint", "random", "none"]
    results_dir: str
    engines_dir: str
    weights_seed: int = Field(default=0, ge=0)
    baseline: EngineConfig | None = None
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
        }
        case |= {name: value for name, value in later.items() if value is not None}
        return content_hash(case)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def content_hash(value: object) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
