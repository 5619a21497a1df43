"""Does it fit: weights, activations and KV cache of one engine on its devices."""

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.precision import CACHE_OF_16_BITS
from pipeline.roofline import constants
from pipeline.roofline.architecture import Parts, attended_token_layers, parameters
from pipeline.roofline.lengths import MeanLengths
from pipeline.study import Checkpoint, Hardware, Model
from pipeline.workload import Workload


def published(hardware: Hardware, name: str) -> float:
    """A published limit of the hardware.

    Raises:
        ConfigError: If it is not set: nothing can be modelled then.
    """
    value = getattr(hardware, name)
    if value is None:
        raise ConfigError(
            f"hardware.{name} is not set for {hardware.name}: the roofline needs it; choose a GPU (hardware=h100) "
            f"or set it in conf/hardware/{hardware.name}.yaml"
        )
    return float(value)


def engine_defaults(config: EngineConfig) -> constants.EngineDefaults:
    """Documented defaults of the engine.

    Raises:
        ConfigError: If the roofline knows no such engine.
    """
    if config.engine not in constants.ENGINE_DEFAULTS:
        raise ConfigError(
            f"engine.name={config.engine} cannot be modelled: the roofline knows {', '.join(constants.ENGINE_DEFAULTS)}"
        )
    return constants.ENGINE_DEFAULTS[config.engine]


def checkpoint(model: Model, config: EngineConfig) -> Checkpoint:
    """The weights that the configured precision names.

    Raises:
        ConfigError: If the model has none in that precision.
    """
    found = model.checkpoints.get(config.precision.weights)
    if found is None:
        raise ConfigError(
            f"precision.weights={config.precision.weights}: {model.name} has weights in {', '.join(model.checkpoints)}"
        )
    return found


def attention_ranks(config: EngineConfig) -> int:
    """Ranks that each hold all attention weights and their own requests; 1 without attention data parallelism."""
    return config.parallelism.tp if config.parallelism.attention_dp else 1


def weight_bytes(model: Model, config: EngineConfig) -> Parts:
    """Split a checkpoint's bytes by part: counts times the format's bytes, scaled to the checkpoint's size."""
    count, weights = parameters(model), checkpoint(model, config)
    routed, other = constants.BYTES_PER_PARAM[weights.format]
    table = max(2.0, other)
    parts = Parts(
        count.embedding * table,
        count.output * table,
        count.attention * other,
        count.dense * other,
        count.experts * routed,
    )
    scale = weights.weight_bytes / (parts.embedding + parts.output + parts.attention + parts.dense + parts.experts)
    return Parts(
        parts.embedding * scale,
        parts.output * scale,
        parts.attention * scale,
        parts.dense * scale,
        parts.experts * scale,
    )


def device_weight_bytes(model: Model, config: EngineConfig) -> float:
    """Weight bytes on one device: FFNs are sharded, attention and embeddings too unless attention is data parallel."""
    part, parallel = weight_bytes(model, config), config.parallelism
    own = (part.embedding + part.output + part.attention) * attention_ranks(config)
    return (own + part.dense + part.experts) / (parallel.tp * parallel.pp)


def kv_bytes(model: Model, config: EngineConfig, context_tokens: float) -> float:
    """KV-cache bytes of one request on each device that holds it.

    Grouped-query heads are spread over tensor-parallel ranks, at least one each; a latent (MLA) is not divisible.

    Raises:
        ConfigError: If the cache format is unknown.
    """
    kind = config.precision.kv_cache
    if kind not in {None, "auto", *constants.KV_BYTES}:
        raise ConfigError(f"precision.kv_cache={kind}: allowed are auto, {', '.join(constants.KV_BYTES)}")
    if kind is None or kind == "auto":
        auto = constants.KV_BYTES_AUTO[checkpoint(model, config).format]
        width_bytes = constants.KV_BYTES["bf16"] if config.engine in CACHE_OF_16_BITS else auto
    else:
        width_bytes = constants.KV_BYTES[kind]
    heads = -(-model.num_kv_heads // (config.parallelism.tp // attention_ranks(config)))
    width = model.mla_kv_dim or 2 * model.head_dim * heads
    return width * width_bytes * attended_token_layers(model, context_tokens) / config.parallelism.pp


def overhead_bytes(model: Model, config: EngineConfig) -> float:
    """Activations of the largest iteration plus the fixed reserve, per device."""
    tokens = config.batching.max_num_tokens or engine_defaults(config).max_num_tokens
    return tokens * model.hidden_size * constants.ACTIVATION_BYTES_PER_TOKEN_AND_HIDDEN + constants.RESERVED_BYTES


def kv_pool_bytes(model: Model, hardware: Hardware, config: EngineConfig) -> float:
    """Bytes of KV cache on one device; negative when weights and activations do not fit."""
    defaults, memory = engine_defaults(config), published(hardware, "memory_bytes")
    fraction = config.batching.kv_cache_fraction or defaults.kv_cache_fraction
    used = device_weight_bytes(model, config) + overhead_bytes(model, config)
    return memory * fraction - used if defaults.fraction_of_total else (memory - used) * fraction


def kv_capacity_tokens(model: Model, hardware: Hardware, config: EngineConfig) -> float:
    """Context tokens that the whole engine can hold at once, in requests of the model's longest context."""
    length = model.max_context_tokens
    pool = max(0.0, kv_pool_bytes(model, hardware, config))
    return pool / kv_bytes(model, config, length) * length * attention_ranks(config)


def requests_that_fit(model: Model, hardware: Hardware, config: EngineConfig, workload: Workload) -> int:
    """Requests whose KV cache the engine can hold at once: at full length, or at mean context where blocks grow."""
    reserves = engine_defaults(config).reserves_full_length
    context = workload.max_seq_len_tokens if reserves else MeanLengths.of(workload).context_tokens
    pool = max(0.0, kv_pool_bytes(model, hardware, config))
    return int(pool / kv_bytes(model, config, context)) * attention_ranks(config)


def fits(model: Model, hardware: Hardware, config: EngineConfig, workload: Workload) -> str | None:
    """None if the engine holds at least one request of full length, else why not, with numbers."""
    pool = kv_pool_bytes(model, hardware, config)
    needed = kv_bytes(model, config, workload.max_seq_len_tokens)
    if pool >= needed:
        return None
    weights, overhead = device_weight_bytes(model, config), overhead_bytes(model, config)
    return (
        f"does not fit {hardware.name}: {weights / 1e9:.1f} GB of weights and {overhead / 1e9:.1f} GB of activations "
        f"and reserve per device leave {pool / 1e9:.1f} GB of {published(hardware, 'memory_bytes') / 1e9:.1f} GB for "
        f"KV cache, one request of {workload.max_seq_len_tokens} tokens needs {needed / 1e9:.2f} GB; raise "
        "parallelism.tp or pp, or take a smaller precision.weights"
    )
