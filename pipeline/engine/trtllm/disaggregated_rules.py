"""What makes one split deployment impossible, beyond what is wrong with one of its servers.

TensorRT-LLM finds most of it only when the first KV cache is to be passed on, or not at all. Both kinds of server have
the same KV cache dtype by construction: precision is an axis of the whole deployment.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.disaggregation import Deployment, Disaggregation
from pipeline.engine.trtllm.rules.rule import TOKENS_PER_BLOCK, knob, number, shown
from pipeline.engine.trtllm.versions import LISTED, NEWEST, is_before
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

OVERLAP_SINCE = LISTED[0]
"""First version known to have the overlap scheduler on context servers (PR 10755, merged in January 2026)."""

DRAFTS_WITH_CACHE = ("MTP", "EAGLE3")
"""Ways to speculate whose layers keep KV cache of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a rule looks at: a deployment of a study, and the study's settings for split serving."""

    deployment: Deployment
    split: Disaggregation
    study: Study

    @property
    def servers(self) -> tuple[tuple[str, EngineConfig], ...]:
        """Each kind of server and its config."""
        return ("context", self.deployment.context), ("generation", self.deployment.generation)


def tokens_per_block(config: EngineConfig) -> int:
    """Tokens in a block of a server's KV cache."""
    return int(number(config, "kv_cache_config.tokens_per_block") or TOKENS_PER_BLOCK)


def max_tokens_in_buffer(config: EngineConfig, split: Disaggregation, study: Study) -> int:
    """Tokens that a server's buffer for passing a KV cache on holds: by default the longest context, in whole blocks.

    TensorRT-LLM recommends no less than the longest prompt (docs/source/features/disagg-serving.md); prompts of the
    first wave of a closed loop are longer than those of the workload.
    """
    block = tokens_per_block(config)
    return split.cache_transceiver.max_tokens_in_buffer or -(-study.workload.max_seq_len_tokens // block) * block


def why_not(case: Case) -> str | None:
    """The first rule that a deployment breaks, or None."""
    return next((reason for rule in RULES if (reason := rule(case)) is not None), None)


def _transceiver_knobs(case: Case) -> str | None:
    for kind, config in case.servers:
        taken = [name for name in sorted(config.knobs) if name.startswith("cache_transceiver_config")]
        if taken:
            return (
                f"disaggregation.{kind}.knobs.{taken[0]}: set disaggregation.cache_transceiver, which is of both kinds"
            )
    return None


def _context_parallel(case: Case) -> str | None:
    """Source: CacheFormatter::inquireSupport in cpp/tensorrt_llm/batch_manager/cacheFormatter.cpp."""
    cp = case.deployment.context.parallelism.cp
    if cp == 1:
        return None
    return (
        f"disaggregation.context.parallelism.cp={cp}: context parallelism (Helix) is for generation servers only; use 1"
    )


def _blocks(case: Case) -> str | None:
    """Source: CacheFormatter::inquireSupport in cacheFormatter.cpp; cacheTransBuffer.cpp for the buffer."""
    ours, theirs = (tokens_per_block(config) for _, config in case.servers)
    if ours != theirs:
        return f"kv_cache_config.tokens_per_block: {ours} on context and {theirs} on generation servers; use the same"
    buffer = max_tokens_in_buffer(case.deployment.context, case.split, case.study)
    if buffer % ours:
        return (
            f"disaggregation.cache_transceiver.max_tokens_in_buffer={buffer}: must be whole blocks of {ours} tokens; "
            f"use {-(-buffer // ours) * ours}"
        )
    return None


def _layers(case: Case) -> str | None:
    """Both kinds must keep as many layers of KV cache: CacheFormatter::inquireSupport in cacheFormatter.cpp.

    NVIDIA's own split configs speculate alike on both.
    """
    ways = [str(knob(config, "speculative_config.decoding_type") or "none") for _, config in case.servers]
    if len({way if way.upper() in DRAFTS_WITH_CACHE else "none" for way in ways}) == 1:
        return None
    return (
        f"speculative_config.decoding_type: {ways[0]} on context and {ways[1]} on generation servers; its layers keep "
        "KV cache too, so use the same on both"
    )


def _beams(case: Case) -> str | None:
    """Source: docs/source/features/disagg-serving.md, limitations."""
    for _, config in case.servers:
        if (number(config, "max_beam_width") or 1) > 1:
            return f"{shown(config, 'max_beam_width')}: split servers take a beam width of 1 only"
    return None


def _overlap(case: Case) -> str | None:
    """Source: executor/base_worker.py before PR 10755; docs/source/features/disagg-serving.md."""
    version = case.study.engine.version or NEWEST
    if knob(case.deployment.context, "disable_overlap_scheduler") is True or not is_before(version, OVERLAP_SINCE):
        return None
    return (
        f"disaggregation.context.knobs.disable_overlap_scheduler: TensorRT-LLM {version} refuses requests to context "
        f"servers with the overlap scheduler on (known to work from {OVERLAP_SINCE} on); set it to true"
    )


def _transceiver(case: Case) -> str | None:
    """Source: _torch/pyexecutor/kv_cache_transceiver.py, where only Python's transceiver serves generation first."""
    split = case.split
    transceiver, key = split.cache_transceiver, "disaggregation.cache_transceiver"
    if transceiver.runtime == "PYTHON" and transceiver.backend not in {"DEFAULT", "NIXL"}:
        return f"{key}.runtime=PYTHON: works over NIXL only, not {transceiver.backend}; set {key}.backend=NIXL"
    if split.schedule_style == "generation_first" and transceiver.runtime != "PYTHON":
        return f"disaggregation.schedule_style=generation_first: needs {key}.runtime=PYTHON"
    return None


def _router(case: Case) -> str | None:
    """Such a router asks each server what its KV cache holds. Source: KvCacheAwareServerState in serve/router.py."""
    if case.split.router != "kv_cache_aware":
        return None
    default = case.study.workload.shared_prefix_tokens > 0
    for kind, config in case.servers:
        reuse = knob(config, "kv_cache_config.enable_block_reuse")
        if not (default if reuse is None else reuse) or not number(config, "kv_cache_config.event_buffer_max_size"):
            return (
                f"disaggregation.router=kv_cache_aware: {kind} servers keep no account of their KV cache; set "
                f"disaggregation.{kind}.knobs.kv_cache_config.enable_block_reuse=true and "
                ".event_buffer_max_size=1024, or another router"
            )
    return None


RULES: tuple[Callable[[Case], str | None], ...] = (
    _transceiver_knobs, _context_parallel, _blocks, _layers, _beams, _overlap, _transceiver, _router,
)  # fmt: skip
