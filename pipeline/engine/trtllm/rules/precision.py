"""Number formats of the dense layers and of attention, and the kernels that they choose."""

from pipeline.engine.trtllm.rules.rule import Rule, any_knob, knob, number, shown, text, weight_format
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

MXFP4_ALGORITHMS = {
    "W4A16_MXFP4": ("hopper", "blackwell"),
    "W4A8_MXFP4_FP8": ("hopper", "blackwell"),
    "W4A8_MXFP4_MXFP8": ("blackwell",),
}
"""What OVERRIDE_QUANT_ALGO may say and the GPUs with kernels. Source: fused_moe_{cutlass,triton,trtllm_gen}.py."""


def _cute_dsl_bf16(config: EngineConfig, study: Study) -> str | None:
    for name in ("use_cute_dsl_bf16_bmm", "use_cute_dsl_bf16_gemm"):
        if knob(config, name) is True and study.hardware.arch != "blackwell":
            return f"{shown(config, name)}: needs Blackwell, and {study.hardware.name} is Hopper; leave it out"
    return None


def _cute_dsl_fp8(config: EngineConfig, study: Study) -> str | None:
    for name in ("use_cute_dsl_blockscaling_mm", "use_cute_dsl_blockscaling_bmm"):
        is_served = study.hardware.arch == "blackwell" and weight_format(config, study) == "fp8_block"
        if knob(config, name) is True and not is_served:
            return f"{shown(config, name)}: is for FP8 weights in blocks on Blackwell; leave it out here"
    return None


def _nvfp4_gemm(config: EngineConfig, _: Study) -> str | None:
    name = any_knob(config, "nvfp4_gemm_config.")
    if name is None:
        return None
    if knob(config, "nvfp4_gemm_config.allowed_backends") == ():
        return f"{shown(config, name)}: at least one backend must be allowed; give cutlass, or leave it out"
    return None


def _nvfp4_gemm_unused(config: EngineConfig, study: Study) -> str | None:
    name = any_knob(config, "nvfp4_gemm_config.")
    if name is not None and weight_format(config, study) != "nvfp4":
        return f"{shown(config, name)}: has no effect on {weight_format(config, study)} weights; leave it out"
    return None


def _quant_override(config: EngineConfig, study: Study) -> str | None:
    asked = knob(config, "env.OVERRIDE_QUANT_ALGO")
    if asked is None or weight_format(config, study) != "mxfp4":
        return None
    if study.hardware.arch not in MXFP4_ALGORITHMS.get(str(asked), (study.hardware.arch,)):
        return (
            f"{shown(config, 'env.OVERRIDE_QUANT_ALGO')}: has no kernels on {study.hardware.name}; "
            "leave it out, which is W4A16_MXFP4 there"
        )
    return None


def _quant_override_unused(config: EngineConfig, study: Study) -> str | None:
    if knob(config, "env.OVERRIDE_QUANT_ALGO") is not None and weight_format(config, study) != "mxfp4":
        return f"{shown(config, 'env.OVERRIDE_QUANT_ALGO')}: is read for MXFP4 checkpoints only; leave it out"
    return None


def _skip_correction(config: EngineConfig, study: Study) -> str | None:
    name = "enable_mla_skip_correction"
    if knob(config, name) is not True:
        return None
    if text(config, "attn_backend", "TRTLLM") != "TRTLLM":
        return f"{shown(config, name)}: needs attn_backend=TRTLLM; set it, or leave it out"
    if study.model.mla_kv_dim is None or study.hardware.arch != "blackwell":
        return f"{shown(config, name)}: is for latent attention on Blackwell; leave it out"
    return None


def _skip_threshold(config: EngineConfig, _: Study) -> str | None:
    name = "mla_skip_correction_threshold"
    if config.precision.kv_cache == "fp8" and (number(config, name) or 0) > 8:
        return f"{shown(config, name)}: FP8 kernels take 8 at most; use 8"
    return None


def _attention(config: EngineConfig, study: Study) -> str | None:
    backend = text(config, "attn_backend", "TRTLLM")
    if backend == "VANILLA":
        return f"{shown(config, 'attn_backend')}: is the slow reference in PyTorch; use TRTLLM"
    if backend != "TRTLLM" and (study.model.mla_kv_dim is not None or study.model.sliding_window_tokens is not None):
        return (
            f"{shown(config, 'attn_backend')}: {study.model.name} has latent or sliding-window attention, which only "
            "TRTLLM is tuned for; use TRTLLM"
        )
    return None


def _min_latency(config: EngineConfig, study: Study) -> str | None:
    if knob(config, "enable_min_latency") is True and not study.model.name.startswith("llama-4"):
        return f"{shown(config, 'enable_min_latency')}: only Llama 4 has such a mode; leave it out"
    return None


RULES = (
    Rule(
        name="cute_dsl_bf16", kind="refuses", check=_cute_dsl_bf16,
        source="llmapi/llm_args.py, validate_cute_dsl_bf16: sm >= 100, newest",
    ),
    Rule(
        name="cute_dsl_fp8", kind="warns", check=_cute_dsl_fp8,
        source="llmapi/llm_args.py, TorchLlmArgs.use_cute_dsl_blockscaling_*, newest",
    ),
    Rule(
        name="nvfp4_gemm", kind="refuses", check=_nvfp4_gemm,
        source="llmapi/llm_args.py, Nvfp4GemmConfig.allowed_backends: min_length 1, newest",
    ),
    Rule(
        name="nvfp4_gemm_unused", kind="warns", check=_nvfp4_gemm_unused,
        source="llmapi/llm_args.py, Nvfp4GemmConfig, newest",
    ),
    Rule(
        name="quant_override", kind="refuses", check=_quant_override,
        source="_torch/model_config.py, get_mxfp4_quant_algo; fused_moe_cutlass.py, 1.1 to newest",
    ),
    Rule(
        name="quant_override_unused", kind="warns", check=_quant_override_unused,
        source="_torch/model_config.py, get_mxfp4_quant_algo, 1.1 to newest",
    ),
    Rule(
        name="mla_skip_correction", kind="refuses", check=_skip_correction,
        source="llmapi/llm_args.py, validate_mla_skip_correction_config and field, newest",
    ),
    Rule(
        name="mla_skip_threshold", kind="warns", check=_skip_threshold,
        source="llmapi/llm_args.py, TorchLlmArgs.mla_skip_correction_threshold, newest",
    ),
    Rule(
        name="attention_backend", kind="warns", check=_attention,
        source="_torch/model_config.py, fuse_pos_embd and enable_flash_mla: TRTLLM only, 1.0 to newest",
    ),
    Rule(
        name="min_latency", kind="warns", check=_min_latency,
        source="llmapi/llm_args.py, TorchLlmArgs.enable_min_latency, 1.0 to newest",
    ),
)  # fmt: skip
