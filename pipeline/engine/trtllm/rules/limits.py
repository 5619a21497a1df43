"""Numbers that TensorRT-LLM bounds beyond their type, which the manifest has."""

from dataclasses import dataclass

from pipeline.engine.trtllm.rules.rule import Rule, knob, shown
from pipeline.engine_config import EngineConfig
from pipeline.study import Study


@dataclass(frozen=True, slots=True)
class Limits:
    """Closed interval; `high` None is unbounded. With `is_above` the lower end itself is out."""

    low: float
    high: float | None = None
    is_above: bool = False

    def allow(self, value: float) -> bool:
        """Whether a value lies within."""
        enough = value > self.low if self.is_above else value >= self.low
        return enough and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """In words, for messages."""
        start = f"above {self.low:g}" if self.is_above else f"from {self.low:g} on"
        return start if self.high is None else f"{start} up to {self.high:g}"


COUNT, POSITIVE = Limits(0), Limits(1)

LIMITS = {
    "attention_dp_config.kv_cache_routing_match_rate_threshold": Limits(0, 1),
    "batch_wait_max_tokens_ratio": Limits(0, 1),
    "batch_wait_timeout_iters": COUNT,
    "batch_wait_timeout_ms": COUNT,
    "cp_config.tokens_per_block": POSITIVE,
    "cuda_graph_config.batch_sizes": POSITIVE,
    "cuda_graph_config.max_batch_size": COUNT,
    "iter_stats_max_iterations": Limits(-1),
    "kv_cache_config.disk_prefetch_num_reqs": COUNT,
    "kv_cache_config.host_cache_size": COUNT,
    "kv_cache_config.max_attention_window": POSITIVE,
    "kv_cache_config.max_gpu_total_bytes": COUNT,
    "kv_cache_config.max_tokens": POSITIVE,
    "kv_cache_config.max_util_for_resume": Limits(0, 1, is_above=True),
    "max_seq_len": POSITIVE,
    "max_stats_len": Limits(-1),
    "mla_skip_correction_threshold": Limits(0, 32, is_above=True),
    "moe_config.load_balancer.layer_updates_per_iter": COUNT,
    "moe_config.max_num_tokens": POSITIVE,
    "num_postprocess_workers": COUNT,
    "num_serve_frontends": Limits(1, 64),
    "prefill_capture_num_tokens": POSITIVE,
    "speculative_config.acceptance_rate_threshold": Limits(0, 1),
    "speculative_config.relaxed_delta": COUNT,
    "speculative_config.relaxed_topk": POSITIVE,
    "stream_interval": POSITIVE,
    "torch_compile_config.max_num_streams": POSITIVE,
}
"""Knob -> what its numbers may be; of a list, each. Where llm_args.py has no bound of its own (sizes, counts, lists of
batch sizes), ours is that a count is not negative and a size not zero."""


def _limits(config: EngineConfig, _: Study) -> str | None:
    for name, limits in LIMITS.items():
        value = knob(config, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, int | float) and not isinstance(part, bool) and not limits.allow(part):
                return f"{shown(config, name)}: {part:g} is out of bounds; set it {limits}"
    return None


RULES = (
    Rule(name="limits", kind="refuses", check=_limits, source="llmapi/llm_args.py, types and field validators, newest"),
)
