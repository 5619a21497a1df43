"""How long one engine iteration takes: the slower of memory and tensor cores, plus what neither hides."""

from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.roofline import constants
from pipeline.roofline.architecture import attended_token_layers, experts_touched, parameters
from pipeline.roofline.memory import attention_ranks, checkpoint, kv_bytes, published, weight_bytes
from pipeline.study import Hardware, Model


@dataclass(frozen=True, slots=True)
class Step:
    """One engine iteration, or a weighted sum of some, as each device sees it.

    Attributes:
        time_s: Duration.
        memory_s: Time in which memory is busy.
        compute_s: Time in which tensor cores are busy, at the same time as memory.
    """

    time_s: float
    memory_s: float
    compute_s: float

    def __add__(self, other: "Step") -> "Step":
        """One after the other."""
        return Step(self.time_s + other.time_s, self.memory_s + other.memory_s, self.compute_s + other.compute_s)

    def __mul__(self, count: float) -> "Step":
        """So many of these."""
        return Step(self.time_s * count, self.memory_s * count, self.compute_s * count)


def compute_rate_flops_per_s(model: Model, hardware: Hardware, config: EngineConfig) -> float:
    """Published tensor-core rate that the checkpoint's format runs at.

    Raises:
        ConfigError: If the hardware does not run that format.
    """
    weights = checkpoint(model, config)
    precision = constants.COMPUTE_PRECISION.get(hardware.arch, {}).get(weights.format)
    if precision not in hardware.flops_per_s:
        raise ConfigError(
            f"precision.weights={config.precision.weights}: {weights.repo} is {weights.format}, which {hardware.name} "
            f"({hardware.arch}) does not run; choose another precision or hardware"
        )
    return hardware.flops_per_s[precision]


def iteration(
    model: Model,
    hardware: Hardware,
    config: EngineConfig,
    *,
    batch: float,
    context_tokens: float,
    prefill_tokens: float = 0.0,
    isl_tokens: float = 0.0,
) -> Step:
    """One iteration in which every running request gets one token and some prompt tokens are processed.

    With pipeline stages the batch is cut into as many micro-batches, which pass the stages one behind the other.

    Args:
        model: What is served.
        hardware: On what.
        config: How.
        batch: Running requests of the whole engine.
        context_tokens: Their mean context.
        prefill_tokens: Prompt tokens processed along.
        isl_tokens: Length of the prompts that these belong to.

    Raises:
        ConfigError: If a published limit is missing, or the hardware does not run the checkpoint's format.
    """
    tp, pp, ranks = config.parallelism.tp, config.parallelism.pp, attention_ranks(config)
    count, part = parameters(model), weight_bytes(model, config)
    requests, tokens = batch / pp, (batch + prefill_tokens) / pp
    routed = model.num_experts_per_token / model.num_experts if model.num_experts else 0.0

    read = ((part.output + part.attention) * ranks + part.dense) / (tp * pp)
    read += kv_bytes(model, config, context_tokens) * requests / ranks
    read_experts = 0.0
    if model.num_experts:
        touched = experts_touched(model.num_experts, model.num_experts_per_token, max(1.0, tokens)) / model.num_experts
        read_experts = part.experts * touched / (tp * pp)
    weights_format = checkpoint(model, config).format
    efficiency = constants.EXPERT_EFFICIENCY.get(weights_format, constants.MEMORY_EFFICIENCY)
    memory_s = read / constants.MEMORY_EFFICIENCY + read_experts / efficiency
    memory_s /= published(hardware, "memory_bandwidth_bytes_per_s")

    flops = 2 * tokens * (count.attention + count.dense + count.experts * routed) + 2 * requests * count.output
    scores = 4 * model.num_heads * (model.mla_kv_dim or model.head_dim) * requests
    scores_prefill = 2 * model.num_heads * model.head_dim * prefill_tokens / pp
    flops += scores * attended_token_layers(model, context_tokens)
    flops += scores_prefill * attended_token_layers(model, isl_tokens)
    flops /= tp * pp
    compute_s = flops / (compute_rate_flops_per_s(model, hardware, config) * constants.COMPUTE_EFFICIENCY)

    layers = model.num_layers / pp
    other_s = constants.LAUNCH_S_PER_LAYER * layers
    if model.num_experts:
        other_s += constants.EXPERT_S_PER_LAYER.get(weights_format, 0.0) * layers
    if tp > 1:
        link = published(hardware, "link_bandwidth_bytes_per_s") * constants.LINK_EFFICIENCY
        volume = 2 * (tp - 1) / tp * tokens * model.hidden_size * 2
        exchanges = layers if config.parallelism.attention_dp else 2 * layers
        other_s += exchanges * (constants.ALL_REDUCE_S + volume / link)
    other_s += constants.HOST_S_PER_ITERATION + constants.HOST_S_PER_REQUEST * requests
    return Step(max(memory_s, compute_s) + other_s, memory_s, compute_s) * pp
