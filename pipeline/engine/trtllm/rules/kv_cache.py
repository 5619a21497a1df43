"""The KV cache: its number format, its blocks, and what is kept outside the GPU."""

from pipeline.engine.trtllm.rules.rule import TOKENS_PER_BLOCK, Rule, any_knob, knob, number, shown, text
from pipeline.engine_config import EngineConfig
from pipeline.study import Study


def _reuses_blocks(config: EngineConfig, study: Study) -> bool:
    asked = knob(config, "kv_cache_config.enable_block_reuse")
    return study.workload.shared_prefix_tokens > 0 if asked is None else asked is True


def _nvfp4(config: EngineConfig, study: Study) -> str | None:
    if config.precision.kv_cache == "nvfp4" and study.hardware.arch != "blackwell":
        return f"precision.kv_cache=nvfp4: needs Blackwell, and {study.hardware.name} is Hopper; use fp8 or auto"
    return None


def _nvfp4_scales(config: EngineConfig, study: Study) -> str | None:
    if config.precision.kv_cache != "nvfp4":
        return None
    if study.model.mla_kv_dim is not None:
        return (
            "precision.kv_cache=nvfp4: multi-head latent attention caches one latent vector, for which 4-bit kernels "
            "are not certain, and reuses no blocks then; use fp8"
        )
    return (
        "precision.kv_cache=nvfp4: answers stay right only with a checkpoint whose KV scales ModelOpt calibrated; "
        "use one, or fp8"
    )


def _block_size(config: EngineConfig, _: Study) -> str | None:
    size = number(config, "kv_cache_config.tokens_per_block")
    if size is None or (size == int(size) and size > 1 and int(size) & (int(size) - 1) == 0):
        return None
    name = shown(config, "kv_cache_config.tokens_per_block")
    return f"{name}: must be a power of two above 1; use {TOKENS_PER_BLOCK} or 64"


def _flash_mla(config: EngineConfig, study: Study) -> str | None:
    size = number(config, "kv_cache_config.tokens_per_block")
    if study.model.mla_kv_dim == 576 and study.hardware.arch == "hopper" and size not in {None, 64}:
        return (
            f"{shown(config, 'kv_cache_config.tokens_per_block')}: FlashMLA on Hopper makes it 64 whatever is asked; "
            "leave it out"
        )
    return None


def _host_cache(config: EngineConfig, study: Study) -> str | None:
    for name in ("kv_cache_config.host_cache_size", "kv_cache_config.disk_cache_size"):
        if (number(config, name) or 0) > 0 and not _reuses_blocks(config, study):
            return (
                f"{shown(config, name)}: keeps blocks to be used again, and block reuse is off; "
                "set kv_cache_config.enable_block_reuse=true, or leave it out"
            )
    return None


def _disk_cache(config: EngineConfig, _: Study) -> str | None:
    name = "kv_cache_config.disk_cache_size"
    if (number(config, name) or 0) > 0 and knob(config, "kv_cache_config.disk_cache_path") is None:
        return f"{shown(config, name)}: needs a folder; set kv_cache_config.disk_cache_path"
    return None


def _reuse_ignored(config: EngineConfig, study: Study) -> str | None:
    if text(config, "attn_backend") == "FLASHINFER" and _reuses_blocks(config, study):
        return f"{shown(config, 'attn_backend')}: turns block reuse off; use TRTLLM where prompts share a prefix"
    return None


def _cross_attention(config: EngineConfig, study: Study) -> str | None:
    name = "kv_cache_config.cross_kv_cache_fraction"
    if knob(config, name) is not None:
        return f"{shown(config, name)}: is for encoder-decoder models, and {study.model.name} is none; leave it out"
    return None


def _connector(config: EngineConfig, _: Study) -> str | None:
    name = any_knob(config, "kv_connector_config.")
    policy = text(config, "scheduler_config.capacity_scheduler_policy", "GUARANTEED_NO_EVICT")
    if name is not None and policy != "GUARANTEED_NO_EVICT":
        return f"{shown(config, name)}: works only with GUARANTEED_NO_EVICT, and the policy is {policy}; leave one out"
    return None


RULES = (
    Rule(
        name="kv_nvfp4", kind="refuses", check=_nvfp4,
        source="docs/source/features/quantization.md, hardware support, 1.1 to newest",
    ),
    Rule(
        name="kv_nvfp4_scales", kind="warns", check=_nvfp4_scales,
        source="docs/source/features/quantization.md; py_executor_creator.py: block reuse of MLA without KV "
        "quantization or with FP8, 1.1 to newest",
    ),
    Rule(
        name="tokens_per_block", kind="refuses", check=_block_size,
        source="cpp/tensorrt_llm/kernels/kvCacheUtils.h, KVBlockArray; docs/source/features/kvcache.md, 1.0 to newest",
    ),
    Rule(
        name="flash_mla", kind="warns", check=_flash_mla,
        source="_torch/model_config.py, enable_flash_mla; py_executor_creator.py, 1.0 to newest",
    ),
    Rule(
        name="host_cache", kind="warns", check=_host_cache,
        source="docs/source/features/kvcache.md: offloading serves reuse, 1.0 to newest",
    ),
    Rule(
        name="disk_cache", kind="refuses", check=_disk_cache,
        source="llmapi/llm_args.py, validate_disk_cache_config, newest",
    ),
    Rule(
        name="flashinfer_reuse", kind="warns", check=_reuse_ignored,
        source="_torch/pyexecutor/py_executor_creator.py: disables block reuse, 1.0 to 1.2",
    ),
    Rule(
        name="cross_attention", kind="refuses", check=_cross_attention,
        source="llmapi/llm_args.py, KvCacheConfig.cross_kv_cache_fraction: must not be set otherwise, newest",
    ),
    Rule(
        name="kv_connector", kind="refuses", check=_connector,
        source="_torch/pyexecutor/py_executor_creator.py: NotImplementedError, 1.1 to newest",
    ),
)  # fmt: skip
