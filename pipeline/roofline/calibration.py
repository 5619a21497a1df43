"""The fitted numbers of the roofline: what published limits of models and GPUs do not tell, and how far off they are.

Few, each with a meaning, each bounded; `fit.py` finds them from measured rows, `make bench-model` says how well they
do, docs/model.md has the equations. TensorRT-LLM has no measured points yet: it is predicted with vLLM's overheads.
"""

from dataclasses import dataclass, field, fields
from typing import Literal

LeftOut = Literal["model", "config"]


def _constant(default: float, low: float, high: float) -> float:
    """A fitted constant and the bounds that a fit must keep to."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """|modelled / measured - 1| over many points."""

    median: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Error by quantity."""

    tokens_per_s: Error
    power_w: Error
    j_per_token: Error


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What constants were fitted to, and how far off they are.

    Attributes:
        source: Where the points are from.
        engine: That was measured.
        weights: checkpoint or random: power depends on operand bits, speed on routing.
        hardware: Names as in conf/hardware.
        models: Names as in conf/model.
        num_points: How many operating points.
        inside: Error on the points themselves.
        outside: Error on points by constants that never saw their like; None where all are of one kind.
        left_out: What "their like" is: all points of the model, or of the config where there is one model only.
    """

    source: str
    engine: str
    weights: str
    hardware: tuple[str, ...]
    models: tuple[str, ...]
    num_points: int
    inside: Errors
    outside: Errors | None
    left_out: LeftOut | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Constants of one fit. Shares are of published peaks; seconds are as the engine spends them.

    Attributes:
        id: Which fit this is.
        provenance: What it rests on.
        memory_share_hopper: Memory bandwidth that reading weights reaches.
        memory_share_blackwell: The same on Blackwell.
        expert_share: The same for the small matrices of routed experts.
        expert_share_fp8: The same where weights are FP8 in blocks of 128 x 128.
        kv_share: The same for the KV cache.
        compute_share: Tensor-core rate reached.
        expert_prefill_share: The same for routed experts in a prompt.
        rank_prefill_factor: What a prompt costs more under vLLM's attention data parallelism, whose ranks wait for it.
        launch_s_per_layer: Gaps and small kernels of a layer, with CUDA graphs.
        fp8_experts_s_per_layer: Quantising activations per 128 values around the experts of a layer.
        host_s: Scheduling, sampling and streaming of an iteration, whatever its batch.
        host_s_per_request: The same per running request.
        exchange_s: Latency of one exchange between devices (all-reduce, or dispatch and combine).
        link_share: Link bandwidth that an exchange reaches.
        prompt_s: Fixed cost of a prompt: its iteration runs outside the CUDA graphs of decoding.
        busy_hopper: Power while any kernel runs, as a share of (limit - idle).
        memory_power_hopper: What full use of the memory bandwidth adds to that.
        compute_power_hopper: What full use of the tensor cores adds to that.
        busy_blackwell: As above.
        memory_power_blackwell: As above.
        compute_power_blackwell: As above.
    """

    id: str
    provenance: Provenance | None = None
    memory_share_hopper: float = _constant(0.85, 0.5, 0.95)
    memory_share_blackwell: float = _constant(0.8, 0.5, 0.95)
    expert_share: float = _constant(0.6, 0.2, 0.95)
    expert_share_fp8: float = _constant(0.6, 0.2, 0.95)
    kv_share: float = _constant(0.6, 0.2, 0.95)
    compute_share: float = _constant(0.6, 0.2, 0.95)
    expert_prefill_share: float = _constant(0.3, 0.1, 0.95)
    rank_prefill_factor: float = _constant(6.0, 1.0, 30.0)
    launch_s_per_layer: float = _constant(10e-6, 1e-7, 300e-6)
    fp8_experts_s_per_layer: float = _constant(150e-6, 1e-6, 900e-6)
    host_s: float = _constant(1e-3, 1e-5, 20e-3)
    host_s_per_request: float = _constant(30e-6, 1e-6, 200e-6)
    exchange_s: float = _constant(10e-6, 1e-6, 200e-6)
    link_share: float = _constant(0.5, 0.1, 0.95)
    prompt_s: float = _constant(3e-3, 10e-6, 30e-3)
    busy_hopper: float = _constant(0.4, 0.05, 1.2)
    memory_power_hopper: float = _constant(0.3, 1e-3, 1.2)
    compute_power_hopper: float = _constant(0.5, 1e-3, 2.0)
    busy_blackwell: float = _constant(0.4, 0.05, 1.2)
    memory_power_blackwell: float = _constant(0.3, 1e-3, 1.2)
    compute_power_blackwell: float = _constant(0.5, 1e-3, 2.0)

    def error_of(self, model: str) -> Errors | None:
        """How far off a prediction for this model is to be expected; None where nothing tells.

        On a model it was fitted to that is the error on its own points, on others that on models that were left out.
        """
        if self.provenance is None:
            return None
        if model in self.provenance.models:
            return self.provenance.inside
        return self.provenance.outside if self.provenance.left_out == "model" else None


CONSTANTS: dict[str, tuple[float, float, float]] = {
    f.name: (getattr(Calibration(id=""), f.name), f.metadata["low"], f.metadata["high"])
    for f in fields(Calibration)
    if f.metadata
}
"""Name -> (where a fit starts, lower bound, upper bound)."""

SHIPPED = Calibration(
    id="mlenergy-v3-2026-11c",
    provenance=Provenance(
        source="ML.ENERGY leaderboard v3 (bench/data/mlenergy_v3.csv)",
        engine="vllm 0.11.1",
        weights="checkpoint",
        hardware=("b200", "h100"),
        models=(
            "deepseek-r1",
            "gemma-3-12b",
            "gemma-3-27b",
            "gpt-oss-120b",
            "llama-3.1-405b",
            "llama-3.1-70b",
            "llama-3.1-8b",
            "llama-3.3-70b",
            "llama-4-scout",
            "qwen3-14b",
            "qwen3-235b-a22b",
            "qwen3-30b-a3b",
            "qwen3-32b",
            "qwen3-8b",
            "qwen3-coder-480b-a35b",
        ),
        num_points=381,
        inside=Errors(
            tokens_per_s=Error(median=0.102, p90=0.324),
            power_w=Error(median=0.078, p90=0.238),
            j_per_token=Error(median=0.078, p90=0.271),
        ),
        outside=Errors(
            tokens_per_s=Error(median=0.142, p90=0.423),
            power_w=Error(median=0.114, p90=0.306),
            j_per_token=Error(median=0.119, p90=0.359),
        ),
        left_out="model",
    ),
    memory_share_hopper=0.9064,
    memory_share_blackwell=0.6626,
    expert_share=0.5707,
    expert_share_fp8=0.5131,
    kv_share=0.4647,
    compute_share=0.95,
    expert_prefill_share=0.2117,
    rank_prefill_factor=30.0,
    launch_s_per_layer=3.571e-06,
    fp8_experts_s_per_layer=0.0001282,
    host_s=0.002344,
    host_s_per_request=1.613e-05,
    exchange_s=1.235e-05,
    link_share=0.4987,
    prompt_s=0.01883,
    busy_hopper=0.7042,
    memory_power_hopper=0.0553,
    compute_power_hopper=0.9612,
    busy_blackwell=0.8696,
    memory_power_blackwell=0.001,
    compute_power_blackwell=0.9529,
)
"""Fitted by `make bench-model ARGS=--fit`, which gives its errors too."""
