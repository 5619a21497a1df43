"""What no engine can exceed: published peaks, every expert chosen alike, prompts done for nothing, watts of idle."""

import dataclasses
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig, Parallelism
from pipeline.errors import ConfigError
from pipeline.roofline.architecture import parameters
from pipeline.roofline.memory import checkpoint, kv_bytes, published, weight_bytes
from pipeline.study import Hardware, Model
from pipeline.workload import OperatingPoint, Workload

_USABLE = {"bf16": ("bf16",), "fp8": ("bf16", "fp8"), "fp8_block": ("bf16", "fp8")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Upper bounds for one operating point of a whole engine.

    Attributes:
        output_tokens_per_s: By bandwidth and tensor cores.
        output_tokens_per_joule: The same, at the power of boards that do nothing; None where that is not published.
    """

    output_tokens_per_s: float
    output_tokens_per_joule: float | None


def physical_limit(
    model: Model, hardware: Hardware, workload: Workload, config: EngineConfig, point: OperatingPoint
) -> Limit | None:
    """Upper bounds; None on a CPU, whose limits are not published here.

    Each iteration yields at most one token per request; it reads at least the weights that one token needs and the
    prompts of the requests, the shortest there are and without what they share; each token takes two operations per
    weight. With speculative decoding an iteration may yield more tokens, and in an open loop the batch has no bound, so
    only the second limit holds.

    Raises:
        ConfigError: If a published limit is missing.
    """
    if hardware.kind == "cpu":
        return None
    num_gpus = config.parallelism.num_gpus
    tokens_per_s = _max_output_tokens_per_s(model, hardware, workload, config, point)
    idle_w = hardware.idle_power_w
    return Limit(
        output_tokens_per_s=tokens_per_s,
        output_tokens_per_joule=None if idle_w is None else tokens_per_s / (idle_w * num_gpus),
    )


def _max_output_tokens_per_s(
    model: Model, hardware: Hardware, workload: Workload, config: EngineConfig, point: OperatingPoint
) -> float:
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
    shortest_tokens = 1 if workload.lengths_file else round(workload.isl_tokens * workload.length_ratio_min)
    own_tokens = max(0, shortest_tokens - workload.shared_prefix_tokens)
    whole = dataclasses.replace(config, parallelism=Parallelism())  # the cache once, however it is copied
    read = part.output + part.attention + part.dense + part.experts * routed
    read += point.concurrency * kv_bytes(model, whole, own_tokens)
    return min(compute_limit, point.concurrency * bandwidth / read)
