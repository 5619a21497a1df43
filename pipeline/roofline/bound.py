"""What no engine can exceed: published peaks, every expert chosen alike, no cache traffic, no overhead."""

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.roofline.architecture import parameters
from pipeline.roofline.memory import checkpoint, published, weight_bytes
from pipeline.study import Hardware, Model
from pipeline.workload import OperatingPoint

_USABLE = {"bf16": ("bf16",), "fp8": ("bf16", "fp8"), "fp8_block": ("bf16", "fp8")}


def max_output_tokens_per_s(
    model: Model, hardware: Hardware, config: EngineConfig, point: OperatingPoint
) -> float | None:
    """Upper bound on output tokens/s of the whole engine; None on a CPU, whose limits are not published here.

    Each iteration yields at most one token per request and reads at least the weights that one token needs;
    each token takes two operations per such weight. With speculative decoding an iteration may yield more
    tokens, and in an open loop the batch has no bound, so only the second limit holds.

    Raises:
        ConfigError: If a published limit is missing.
    """
    if hardware.kind == "cpu":
        return None
    weights = checkpoint(model, config)
    rates = [r for p, r in hardware.flops_per_s.items() if p in _USABLE.get(weights.format, hardware.flops_per_s)]
    if not rates:
        raise ConfigError(f"hardware.flops_per_s of {hardware.name} has no rate for {weights.format} weights")
    routed = model.num_experts_per_token / model.num_experts if model.num_experts else 0.0
    count, part = parameters(model), weight_bytes(model, config)
    flops_per_token = 2 * (count.output + count.attention + count.dense + count.experts * routed)
    compute_limit = max(rates) * config.parallelism.num_gpus / flops_per_token
    if point.concurrency is None or any("speculative" in name for name in config.knobs):
        return compute_limit
    bandwidth = published(hardware, "memory_bandwidth_bytes_per_s") * config.parallelism.num_gpus
    read = part.output + part.attention + part.dense + part.experts * routed
    return min(compute_limit, point.concurrency * bandwidth / read)
