"""The fitted numbers of the roofline: what published limits of models and GPUs do not tell.

Few, each with a meaning, each bounded; `fit.py` finds them from measured rows, `make bench-model` says how well they
do, docs/model.md has the equations. TensorRT-LLM has no measured points yet: it is predicted with vLLM's overheads.
"""

from dataclasses import dataclass, field, fields


def _constant(default: float, low: float, high: float) -> float:
    """A fitted constant and the bounds that a fit must keep to."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Constants of one fit. Shares are of published peaks; seconds are as the engine spends them.

    Attributes:
        id: Which fit this is.
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


CONSTANTS: dict[str, tuple[float, float, float]] = {
    f.name: (getattr(Calibration(id=""), f.name), f.metadata["low"], f.metadata["high"])
    for f in fields(Calibration)
    if f.metadata
}
"""Name -> (where a fit starts, lower bound, upper bound)."""

SHIPPED = Calibration(
    id="mlenergy-v3-2026-11b",
    memory_share_hopper=0.9067,
    memory_share_blackwell=0.6627,
    expert_share=0.5703,
    expert_share_fp8=0.5133,
    kv_share=0.4646,
    compute_share=0.95,
    expert_prefill_share=0.2159,
    rank_prefill_factor=30.0,
    launch_s_per_layer=3.612e-06,
    fp8_experts_s_per_layer=0.0001284,
    host_s=0.002345,
    host_s_per_request=1.612e-05,
    exchange_s=1.226e-05,
    link_share=0.489,
    prompt_s=0.0188,
    busy_hopper=0.704,
    memory_power_hopper=0.05565,
    compute_power_hopper=0.9619,
    busy_blackwell=0.8696,
    memory_power_blackwell=0.001,
    compute_power_blackwell=0.9524,
)
"""Fitted to ML.ENERGY leaderboard v3 (vLLM 0.11.1 on H100 and B200) by `make bench-model ARGS=--fit`."""
