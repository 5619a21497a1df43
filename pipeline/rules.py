"""What makes one config impossible on this study's model, hardware and workload; every rule says why.

A rule looks at one config and returns None or the reason. Rules never guess: what only the engine can know (does it
start, does it fit after fragmentation) is left to the trial, and what one engine refuses to its adapter.
"""

import math
from collections.abc import Callable

from pipeline.engine_config import EngineConfig
from pipeline.roofline.memory import engine_defaults, fits
from pipeline.study import Study

LENGTH_MARGIN_TOKENS = 32
"""vLLM without chunked prefill wants the whole context it was given in one step, which is rounded up by this much."""

REUSE_KNOBS = ("kv_cache_config.enable_block_reuse", "enable_prefix_caching")
"""TensorRT-LLM's, and vLLM's and ours."""

Rule = Callable[[EngineConfig, Study], str | None]


def _precision(config: EngineConfig, study: Study) -> str | None:
    checkpoints = study.model.checkpoints
    weights = config.precision.weights
    if weights not in checkpoints:
        return (
            f"precision.weights={weights}: {study.model.name} has no {weights} weights, only {', '.join(checkpoints)}"
        )
    if checkpoints[weights].format == "nvfp4" and study.hardware.arch != "blackwell":
        return (
            f"precision.weights={weights}: {study.model.name}'s 4-bit weights are NVFP4, which needs Blackwell; "
            f"{study.hardware.name} is {study.hardware.arch} (only MXFP4 gpt-oss may be 4-bit there)"
        )
    return None


def _devices(config: EngineConfig, study: Study) -> str | None:
    if study.hardware.kind == "cpu":
        return None if config.parallelism.num_gpus == 1 else "parallelism: a CPU engine is one device; use tp=1 pp=1"
    needed, present = config.parallelism.num_gpus, study.hardware.num_gpus
    if needed > present:
        return f"parallelism: tp x pp{' x cp' if config.parallelism.cp > 1 else ''} = {needed} GPUs, {present} present"
    return None


def _shards(config: EngineConfig, study: Study) -> str | None:
    model, layout = study.model, config.parallelism
    if model.num_heads % layout.tp and not layout.attention_dp:  # under attention DP each rank has all heads
        return f"parallelism.tp={layout.tp} does not divide the {model.num_heads} attention heads"
    if layout.pp > model.num_layers:
        return f"parallelism.pp={layout.pp} exceeds the {model.num_layers} layers"
    return None


def _experts(config: EngineConfig, study: Study) -> str | None:
    model, layout = study.model, config.parallelism
    if layout.ep == 1:
        return None
    if model.num_experts == 0:
        return f"parallelism.ep={layout.ep}: {model.name} has no experts"
    if layout.tp % layout.ep:
        return f"parallelism.ep={layout.ep} does not divide tp={layout.tp} (TensorRT-LLM: moe_tp x moe_ep = tp)"
    if model.num_experts % layout.ep:
        return f"parallelism.ep={layout.ep} does not divide the {model.num_experts} experts"
    if config.engine == "vllm" and layout.ep != layout.tp:
        return f"parallelism.ep={layout.ep}: vLLM's expert parallelism is all of tp={layout.tp} or none"
    return None


def longest_prompt_tokens(config: EngineConfig) -> int | None:
    """Longest prompt that the engine takes, where it takes prompts only whole; None where it may cut them.

    vLLM cuts them unless told not to, TensorRT-LLM only if told to (enable_chunked_prefill: llmapi/llm_args.py). Of a
    server that someone else started, what is declared counts.
    """
    is_chunked, is_trtllm = config.batching.chunked_prefill, config.engine == "trtllm"
    if is_chunked or (is_chunked is None and config.engine not in {"trtllm", "attached"}):
        return None
    return config.batching.max_num_tokens or (engine_defaults(config).max_num_tokens if is_trtllm else None)


def _scheduler(config: EngineConfig, study: Study) -> str | None:
    limit_tokens, max_batch_size = config.batching.max_num_tokens, config.batching.max_batch_size
    if limit_tokens is None:
        return None
    longest_tokens = study.workload.max_seq_len_tokens + LENGTH_MARGIN_TOKENS
    # TensorRT-LLM's adapter has a rule of its own: there the prompts of the first wave, which are longer, are cut.
    if config.engine != "trtllm" and (longest_prompt_tokens(config) or longest_tokens) < longest_tokens:
        return (
            f"batching.max_num_tokens={limit_tokens} without chunked prefill: a prompt of the first wave "
            f"may need {longest_tokens} tokens in one step"
        )
    if max_batch_size is not None and max_batch_size > limit_tokens:
        return (
            f"batching.max_batch_size={max_batch_size} exceeds batching.max_num_tokens={limit_tokens}: a decode step "
            "could not hold the batch; lower the one or raise the other"
        )
    return None


def _reuse(config: EngineConfig, study: Study) -> str | None:
    """Every load replays the same requests, so a cache would find what an earlier load computed."""
    reused = [name for name in REUSE_KNOBS if config.knobs.get(name) is True]
    if reused and study.workload.shared_prefix_tokens == 0:
        return (
            f"engine.knobs.{reused[0]}=true: prompts share nothing, so it could only find those of an earlier load and "
            "skip their work; leave it out, or give workload.shared_prefix_tokens"
        )
    return None


def _chunks(config: EngineConfig, study: Study) -> str | None:
    """TensorRT-LLM may hold tokens back and stream several at once: that is a longer gap between chunks."""
    interval = config.knobs.get("stream_interval", 1)
    if config.engine == "trtllm" and study.slo.tpot_p99_s is not None and interval != 1:
        return (
            f"engine.knobs.stream_interval={interval}: users would wait for {interval} tokens at a time, while "
            f"slo.tpot_p99_s={study.slo.tpot_p99_s:g} bounds the wait for one; use 1, or slo=none"
        )
    return None


def _inert(config: EngineConfig, study: Study) -> str | None:
    """OpenVINO GenAI ignores max_num_seqs while dynamic_split_fuse is on: keep one of the equal configs."""
    allowed = study.axes.get("batching.max_batch_size", (None,))
    # Of equal configs, the one least likely to break the scheduler's rule stands for all.
    kept = None if None in allowed else min(int(str(size)) for size in allowed)
    if config.engine == "openvino" and config.batching.chunked_prefill and config.batching.max_batch_size != kept:
        return "batching.max_batch_size has no effect under chunked prefill here: same as another config"
    return None


def _memory(config: EngineConfig, study: Study) -> str | None:
    return fits(study.model, study.hardware, config, study.workload) if study.hardware.kind == "gpu" else None


STRUCTURAL: tuple[Rule, ...] = (_precision, _devices, _shards, _experts)
"""Rules about precision and parallelism alone."""

RULES: tuple[Rule, ...] = (*STRUCTURAL, _scheduler, _chunks, _reuse, _inert, _memory)


def first_broken(config: EngineConfig, study: Study, rules: tuple[Rule, ...] = RULES) -> tuple[int, str] | None:
    """How many rules a config passes before one it breaks, and the reason; None if it passes them all."""
    for num_passed, rule in enumerate(rules):
        if (reason := rule(config, study)) is not None:
            return num_passed, reason
    return None


def why_infeasible(config: EngineConfig, study: Study) -> str | None:
    """The first rule that this config breaks, or None."""
    broken = first_broken(config, study)
    return broken[1] if broken else None


def why_too_few(study: Study, num_visible: int) -> str | None:
    """Why layouts that hardware.num_gpus lets through would not find their GPUs here, or None."""
    axes = (study.axes.get(f"parallelism.{name}", (1,)) for name in ("tp", "pp", "cp"))
    widest = math.prod(max(int(str(value or 1)) for value in axis) for axis in axes)
    if min(widest, study.hardware.num_gpus) <= num_visible:
        return None
    return (
        f"hardware.num_gpus={study.hardware.num_gpus}: {num_visible} visible here (nvidia-smi -L, "
        "CUDA_VISIBLE_DEVICES); leave it out, or add rig=modelled for a larger machine"
    )
