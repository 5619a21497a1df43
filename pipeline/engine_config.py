"""What an engine is asked to be: everything whose change needs a restart, and its identity.

Frozen, typed and checked when made; names follow the field's terms (tp, pp, cp, ep).
"""

import hashlib
import json
from collections.abc import Mapping

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Scalar = bool | int | float | str

Value = Scalar | tuple[Scalar, ...]
"""One value of an axis; None means: not set, the engine's own default. Only knobs may be lists."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Precision:
    """Number formats: of the weights (bf16, fp8, fp4; fp32 on a CPU) and of the KV cache."""

    weights: str
    kv_cache: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Parallelism:
    """Degrees of tensor, pipeline, context, expert and MoE-tensor parallelism.

    ep, moe_tp and attention data parallelism reuse the tp devices. `moe_tp` None is what ep leaves: tp / ep.
    """

    tp: int = Field(default=1, ge=1)
    pp: int = Field(default=1, ge=1)
    cp: int = Field(default=1, ge=1)
    ep: int = Field(default=1, ge=1)
    moe_tp: int | None = Field(default=None, ge=1)
    attention_dp: bool = False

    @property
    def num_gpus(self) -> int:
        """Devices that one engine reserves."""
        return self.tp * self.pp * self.cp


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Batching:
    """Scheduler limits under TensorRT-LLM's names; None is the engine's own default."""

    max_batch_size: int | None = Field(default=None, ge=1)
    max_num_tokens: int | None = Field(default=None, ge=1)
    kv_cache_fraction: float | None = Field(default=None, gt=0, le=1)
    chunked_prefill: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EngineConfig:
    """Everything whose change needs an engine restart.

    `knobs` are the engine's own names; those of TensorRT-LLM are the dotted paths of its YAML file.
    """

    engine: str
    precision: Precision
    parallelism: Parallelism = Field(default_factory=Parallelism)
    batching: Batching = Field(default_factory=Batching)
    knobs: dict[str, Value] = Field(default_factory=dict)

    @classmethod
    def from_axes(cls, engine: str, values: Mapping[str, Value | None]) -> "EngineConfig":
        """Build a config from axis values keyed by conf path, e.g. {"parallelism.tp": 2, "engine.knobs.x": 1}.

        Raises:
            pydantic.ValidationError: If a value has the wrong type or an axis name is unknown.
        """
        groups: dict[str, dict[str, Value]] = {}
        for key, value in values.items():
            group, name = split_key(key)
            if value is not None:
                groups.setdefault(group, {})[name] = value
        knobs = groups.pop("engine.knobs", {})
        return cls(engine=engine, knobs=knobs, **groups)  # type: ignore[arg-type]  # pydantic converts the dicts

    def requested(self) -> dict[str, Value]:
        """Only what is explicitly set, keyed by conf path, in a fixed order; the inverse of `from_axes`."""
        flat: dict[str, Value | None] = {
            "precision.weights": self.precision.weights,
            "precision.kv_cache": self.precision.kv_cache,
            "parallelism.tp": self.parallelism.tp,
            "parallelism.pp": self.parallelism.pp if self.parallelism.pp > 1 else None,
            "parallelism.cp": self.parallelism.cp if self.parallelism.cp > 1 else None,
            "parallelism.ep": self.parallelism.ep if self.parallelism.ep > 1 else None,
            "parallelism.moe_tp": self.parallelism.moe_tp,
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


def split_key(key: str) -> tuple[str, str]:
    """Group and name of an axis: a knob's name may have dots of its own."""
    if key.startswith("engine.knobs."):
        return "engine.knobs", key.removeprefix("engine.knobs.")
    group, _, name = key.rpartition(".")
    return group, name


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def content_hash(value: object) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
