"""The values everything else passes around: what is held fixed, what restarts an engine, what varies on a running one.

A Study is everything held fixed. An EngineConfig is everything that needs a restart. An OperatingPoint
is the load on a running engine. All are frozen, typed and checked when made; names follow the field's
terms (ISL, OSL, tp, pp, ep), and every quantity carries its unit. `config.py` builds them from conf/.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Scalar = bool | int | float | str
"""One value of an axis. None means: not set, the engine's own default."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

CONCURRENCY_GRID = tuple(sorted({m * 2**e for e in range(15) for m in (1, 3)} - {3 * 2**14}))
"""Loads that a ladder may use (1, 2, 3, 4, 6, 8, 12, 16, 24 ...), so that rows of different trials and years join."""


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
    """How the engine is run; the knobs that are searched are axes, not settings."""

    name: Literal["trtllm", "vllm", "openvino"]
    runtime: Literal["local"] = "local"
    python: str
    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)
    ready_timeout_s: float = Field(gt=0)
    env: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Workload:
    """What the users send. Lengths are uniform on [length_ratio_min, 1] of nominal, as InferenceMAX draws them."""

    name: str
    source: str
    isl_tokens: int = Field(gt=0)
    osl_tokens: int = Field(ge=2)
    length_ratio_min: float = Field(gt=0, le=1)
    concurrency: tuple[int, ...] = Field(min_length=1)
    seed: int = 0

    @property
    def max_seq_len_tokens(self) -> int:
        """Longest context a request can reach, tokens."""
        return self.isl_tokens + self.osl_tokens


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Slo:
    """Latency owed to the users: upper bounds on the 99th percentile, seconds; None means unbounded."""

    name: str
    source: str
    ttft_p99_s: float | None = Field(default=None, gt=0)
    tpot_p99_s: float | None = Field(default=None, gt=0)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Plan:
    """How one operating point is measured. With `gates: warn` a failed gate is a warning and no row is `measured`."""

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
class OperatingPoint:
    """What varies on a running engine: requests kept in flight by the client (closed loop)."""

    concurrency: int = Field(gt=0)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Study:
    """Everything held fixed while configurations are compared, plus the axes that span them.

    `axes` maps a conf path to the values it may take. `baseline` is the user's present config, if given.
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
    baseline: EngineConfig | None = None
    power: Literal["untouched"] = "untouched"
    launcher: Literal["local"] = "local"

    def case_id(self, config: EngineConfig, point: OperatingPoint) -> str:
        """Identity of one comparable case, without software versions: "software gain" is a join on it."""
        load, checkpoint = self.workload, self.model.checkpoints.get(config.precision.weights)
        case = {
            "model": self.model.name, "revision": checkpoint.revision if checkpoint else None, "weights": self.weights,
            "gpu": self.hardware.name,
            "num_gpus": config.parallelism.num_gpus if self.hardware.kind == "gpu" else 0,
            "workload": [load.isl_tokens, load.osl_tokens, load.length_ratio_min, load.seed],
            "concurrency": point.concurrency, "config_hash": config.config_hash,
        }  # fmt: skip
        return content_hash(case)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def content_hash(value: object) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
