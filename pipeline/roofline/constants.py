"""Documented behaviour of engines and number formats that the roofline uses; fitted numbers are in calibration.py."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineDefaults:
    """What an engine does where the configuration is silent.

    Attributes:
        max_batch_size: Requests running at once, per attention rank.
        max_num_tokens: Tokens of one iteration, per attention rank.
        kv_cache_fraction: Share of memory given out.
        fraction_of_total: True if that share is of the whole device and weights come out of it; False if
            it is of what weights and activations leave.
        reserves_full_length: True if a request starts only when its longest context fits; False if cache
            blocks are taken as the context grows.
    """

    max_batch_size: int
    max_num_tokens: int
    kv_cache_fraction: float
    fraction_of_total: bool
    reserves_full_length: bool


ENGINE_DEFAULTS = {
    # tensorrt_llm/llmapi/llm_args.py: BaseLlmArgs, KvCacheConfig, SchedulerConfig (GUARANTEED_NO_EVICT).
    "trtllm": EngineDefaults(2048, 8192, 0.9, fraction_of_total=False, reserves_full_length=True),
    # vllm/engine/arg_utils.py: API server on a device of 70 GiB or more; vllm/config/cache.py of 2026 (0.9 before).
    "vllm": EngineDefaults(1024, 8192, 0.92, fraction_of_total=True, reserves_full_length=False),
}

BYTES_PER_PARAM = {
    "fp32": (4.0, 4.0),
    "bf16": (2.0, 2.0),
    "fp8": (1.0, 1.0),
    "fp8_block": (1.0, 1.0),
    "mxfp4": (4.25 / 8, 2.0),
    "nvfp4": (4.5 / 8, 4.5 / 8),
}
"""(routed experts, other linear layers) by checkpoint format; embeddings keep at least 16 bits. Source: OCP MX
specification (one 8-bit scale per 32 values), NVFP4 (one per 16), quantization configs of the checkpoints."""

KV_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "u8": 1.0, "int8": 1.0, "nvfp4": 4.5 / 8}
"""Bytes per cached number."""

KV_BYTES_AUTO = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "fp8_block": 2.0, "mxfp4": 2.0, "nvfp4": 1.0}
"""The same when the cache format is left to an engine that follows the checkpoint: those of NVIDIA's Model Optimizer
(fp8, nvfp4) ask for an FP8 cache in hf_quant_config.json, the others take the 16-bit compute type."""

COMPUTE_PRECISION = {
    "hopper": {"bf16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "mxfp4": "bf16"},
    "blackwell": {"bf16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "mxfp4": "fp8", "nvfp4": "fp4"},
}
"""Tensor-core rate that a checkpoint format runs at; a pair that is missing does not run. Source: TensorRT-LLM
ModelConfig.get_mxfp4_quant_algo (16-bit activations on Hopper, 8-bit on Blackwell); NVFP4 needs Blackwell."""

ACTIVATION_BYTES_PER_TOKEN_AND_HIDDEN = 40.0
"""Peak workspace of one iteration: about 20 vectors of 16 bits per token, FFN included. Source: estimate."""

RESERVED_BYTES = 2.5e9
"""CUDA context, communication buffers and CUDA graphs per device. Source: estimate."""
