"""How the devices are divided: experts, context and pipeline; what every engine shares is in pipeline/rules.py."""

import math

from pipeline.engine.trtllm.rules.rule import TOKENS_PER_BLOCK, Rule, knob, number, shown, text
from pipeline.engine_config import EngineConfig
from pipeline.study import Study


def _cp_type(config: EngineConfig) -> str:
    return text(config, "cp_config.cp_type", "ULYSSES")


def _is_helix(config: EngineConfig) -> bool:
    return config.parallelism.cp > 1 and _cp_type(config) == "HELIX"


def _moe_tp(config: EngineConfig, _: Study) -> str | None:
    layout = config.parallelism
    devices = layout.tp * layout.cp if _is_helix(config) else layout.tp
    if layout.moe_tp is None or layout.moe_tp * layout.ep == devices:
        return None
    name = "tp x cp" if _is_helix(config) else "tp"
    return (
        f"parallelism.moe_tp={layout.moe_tp}: moe_tp x ep = {layout.moe_tp * layout.ep}, where {name} = {devices} "
        "devices share the experts; leave moe_tp out and it is what ep leaves"
    )


def _ring(config: EngineConfig, _: Study) -> str | None:
    if config.parallelism.cp > 1 and _cp_type(config) in {"RING", "STAR"}:
        return f"{shown(config, 'cp_config.cp_type')}: no model runs it; use cp=1, or HELIX on a generation server"
    return None


def _ulysses(config: EngineConfig, _: Study) -> str | None:
    if config.parallelism.cp > 1 and _cp_type(config) == "ULYSSES":
        return (
            f"parallelism.cp={config.parallelism.cp}: no attention runs with ULYSSES, the default of "
            "cp_config.cp_type; use cp=1, or HELIX on a generation server"
        )
    return None


def _helix_blocks(config: EngineConfig, _: Study) -> str | None:
    asked = number(config, "cp_config.tokens_per_block")
    cached = number(config, "kv_cache_config.tokens_per_block") or TOKENS_PER_BLOCK
    if _is_helix(config) and asked is not None and asked != cached:
        return (
            f"{shown(config, 'cp_config.tokens_per_block')}: the KV cache has blocks of {cached:g}; "
            f"set kv_cache_config.tokens_per_block={asked:g} too"
        )
    return None


def _helix_prompts(config: EngineConfig, study: Study) -> str | None:
    size = number(config, "kv_cache_config.tokens_per_block") or TOKENS_PER_BLOCK
    shortest = math.ceil(study.workload.isl_tokens * study.workload.length_ratio_min)
    blocks = math.ceil(shortest / size) if size > 0 else 0
    if _is_helix(config) and blocks < config.parallelism.cp:
        return (
            f"parallelism.cp={config.parallelism.cp}: a prompt of {shortest} tokens is {blocks} blocks of {size:g}, "
            "and every device needs one; lower cp, or kv_cache_config.tokens_per_block"
        )
    return None


def _helix_alone(config: EngineConfig, _: Study) -> str | None:
    if _is_helix(config) and knob(config, "cache_transceiver_config.backend") is None:
        return (
            f"{shown(config, 'cp_config.cp_type')}: Helix only decodes; use it on a generation server, whose "
            "cache_transceiver_config.backend brings it the prompts' KV cache"
        )
    return None


def _pp_partition(config: EngineConfig, study: Study) -> str | None:
    stages = knob(config, "pp_partition")
    if not isinstance(stages, tuple):
        return None
    layers = [stage for stage in stages if isinstance(stage, int)]
    if len(stages) != config.parallelism.pp or sum(layers) != study.model.num_layers:
        return (
            f"{shown(config, 'pp_partition')}: {len(stages)} stages of {sum(layers)} layers in all, where "
            f"pp={config.parallelism.pp} and {study.model.name} has {study.model.num_layers}; leave it out, or give "
            "each stage its layers"
        )
    return None


RULES = (
    Rule(
        name="moe_tp", kind="refuses", check=_moe_tp,
        source="mapping.py, Mapping.__init__ (moe_tp_size * moe_ep_size * moe_cluster_size), 1.2.0rc2 and later",
    ),
    Rule(
        name="cp_type", kind="refuses", check=_ring,
        source="_torch/pyexecutor/engine/runners/decoder/runner.py: unsupported cp_type, newest; STAR left in 2026",
    ),
    Rule(
        name="cp_ulysses", kind="refuses", check=_ulysses,
        source="_torch/modules/attention.py, Attention.__init__ (CP type must be HELIX) and MLA.__init__, newest; "
        "PR 10276, which was to bring it, was closed",
    ),
    Rule(
        name="helix_blocks", kind="refuses", check=_helix_blocks,
        source="llmapi/llm_args.py, validate_helix_tokens_per_block, newest",
    ),
    Rule(
        name="helix_prompts", kind="refuses", check=_helix_prompts,
        source="_torch/pyexecutor/request_utils.py, partition_context_for_helix, newest",
    ),
    Rule(
        name="helix_alone", kind="warns", check=_helix_alone,
        source="_torch/pyexecutor/request_utils.py, merge_helix_requests: decode only, with disaggregated serving",
    ),
    Rule(
        name="pp_partition", kind="refuses", check=_pp_partition,
        source="mapping.py, pp_layers: length and sum of pp_partition, 1.2 and later",
    ),
)  # fmt: skip
