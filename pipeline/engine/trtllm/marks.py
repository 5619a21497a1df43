"""What a row must say of its config beside its speed: that it changes the answers, or guesses at random text."""

from pipeline.engine.trtllm.environment import environment
from pipeline.engine.trtllm.llm_args import ALIASES, DECODING_TYPE, ENV
from pipeline.engine_config import EngineConfig, Value
from pipeline.vocabulary import Reason

LOSSY: dict[str, Value | None] = {
    "allreduce_strategy": "LOWPRECISION",
    "moe_config.use_low_precision_moe_combine": True,
    "speculative_config.use_relaxed_acceptance_for_thinking": True,
    "enable_mla_skip_correction": True,
    "env.TRTLLM_MOE_USE_LOW_PRECISION_COMBINE": "1",
    "env.OVERRIDE_QUANT_ALGO": None,
    "sparse_attention_config.algorithm": None,
    "kv_cache_compression_config.algorithm": None,
}
"""Knob -> the value, or None for any, that computes in fewer bits or leaves work out: the answers differ from those of
the same checkpoint without it. Source: llmapi/llm_args.py; _torch/distributed/ops.py (LOWPRECISION)."""


def marks(config: EngineConfig) -> tuple[Reason, ...]:
    """Warnings that every row of a config carries."""
    knobs = {ALIASES.get(name, name): value for name, value in config.knobs.items()}
    knobs |= {f"{ENV}{name}": value for name, value in environment(config).items()}
    is_lossy = any(name in knobs and value in {None, knobs[name]} for name, value in LOSSY.items())
    drafts = DECODING_TYPE in knobs
    return (*([Reason.DRAFTS_OF_RANDOM_TEXT] * drafts), *([Reason.LOSSY_SETTING] * is_lossy))
