"""What a stand-in's arguments resolve to: parallelism, limits, memory, speed and power; nothing here is measured.

The figures are made up so that configs differ as real ones do: more GPUs are faster and draw more, larger batches are
more efficient until they outgrow the CUDA graphs, an FP8 cache holds twice as much.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.engine.trtllm.stand_in.behaviour import Behaviour, at

DEFAULTS: dict[str, Any] = {
    "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "context_parallel_size": 1, "max_batch_size": 2048,
    "max_num_tokens": 8192, "stream_interval": 1, "kv_cache_config.free_gpu_memory_fraction": 0.9,
    "kv_cache_config.tokens_per_block": 32, "kv_cache_config.enable_block_reuse": True,
    "iter_stats_max_iterations": 1000, "perf_metrics_max_requests": 0,
}  # fmt: skip
"""Source: tensorrt_llm/llmapi/llm_args.py."""

GRAPH_BATCH_SIZE = 128
"""Largest CUDA graph where none is named. Source: CudaGraphConfig, the same file."""

KV_BYTES_PER_TOKEN = 72 * 1024
ACTIVATION_BYTES_PER_TOKEN = 256 * 1024
"""Order of gpt-oss-120b's."""

MOE_FACTORS = {"TRTLLM": 0.9, "CUTLASS": 1.15, "VANILLA": 3.0}
"""Time of a step by `moe_config.backend`; 1 for the others."""

WEIGHTS_S, SEQUENCE_S, PREFILL_TOKEN_S = 8e-3, 1e-4, 2e-6
ALL_REDUCE_S, WITHOUT_GRAPH_S, WITHOUT_OVERLAP_S = 0.5e-3, 5e-3, 2e-3
BASE_W, PER_SEQUENCE_W, MAX_ACTIVE_W = 180.0, 6.0, 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One engine.

    Attributes:
        max_requests: Requests in a batch over all ranks: attention data parallelism takes `max_batch_size` per rank.
        kv_tokens: Tokens that the KV cache holds.
        graph_batch_size: Largest batch per rank with a CUDA graph; 0 without.
        draft_len: Tokens drafted per step.
    """

    num_gpus: int
    max_batch_size: int
    max_requests: int
    max_num_tokens: int
    max_seq_len: int
    kv_tokens: int
    tokens_per_block: int
    graph_batch_size: int
    stream_interval: int
    draft_len: int
    has_chunked_prefill: bool
    has_block_reuse: bool
    moe_backend: str
    moe_factor: float
    other_s: float

    def step_s(self, num_sequences: int, num_prefill_tokens: int) -> float:
        """Time of one step."""
        work_s = WEIGHTS_S + SEQUENCE_S * num_sequences + PREFILL_TOKEN_S * num_prefill_tokens
        all_reduce_s = ALL_REDUCE_S * math.log2(self.num_gpus)
        eager_s = WITHOUT_GRAPH_S if num_sequences > self.graph_batch_size else 0.0
        draft_factor = 1 + 0.15 * self.draft_len
        return self.moe_factor * draft_factor * work_s / self.num_gpus + all_reduce_s + eager_s + self.other_s

    def active_w(self, num_sequences: int) -> float:
        """Power of each GPU above idle while it steps."""
        return min(MAX_ACTIVE_W, BASE_W + PER_SEQUENCE_W * num_sequences / self.num_gpus)


class OutOfMemoryError(Exception):
    """Something does not fit; its text names it as py_executor_creator.py does."""


def resolve(args: Mapping[str, Any], model_max_tokens: int, behaviour: Behaviour) -> Settings:
    """What the arguments mean on this machine.

    Raises:
        OutOfMemoryError: If the model leaves no room for a sequence.
        ValueError: If the parallel sizes do not fit together. Source: tensorrt_llm/mapping.py.
    """

    def said(path: str) -> Any:
        value = at(args, path)
        return DEFAULTS.get(path) if value is None else value

    tp = said("tensor_parallel_size")
    num_gpus = tp * said("pipeline_parallel_size") * said("context_parallel_size")
    if num_gpus > behaviour.num_gpus:
        raise ValueError(f"world size {num_gpus} exceeds the {behaviour.num_gpus} GPUs of this node")
    moe_tp, moe_ep = said("moe_tensor_parallel_size"), said("moe_expert_parallel_size")
    moe_tp, moe_ep = moe_tp or tp // (moe_ep or 1), moe_ep or (tp // moe_tp if moe_tp else 1)
    if moe_tp * moe_ep != tp:
        raise ValueError(f"moe_tp_size {moe_tp} * moe_ep_size {moe_ep} is not tp_size {tp}")
    max_num_tokens, max_seq_len = said("max_num_tokens"), said("max_seq_len") or model_max_tokens
    free_bytes = (
        behaviour.gpu_memory_bytes - behaviour.weight_bytes // num_gpus - ACTIVATION_BYTES_PER_TOKEN * max_num_tokens
    )
    token_bytes = KV_BYTES_PER_TOKEN // (2 if said("kv_cache_config.dtype") == "fp8" else 1)
    fraction = said("kv_cache_config.free_gpu_memory_fraction")
    kv_tokens = said("kv_cache_config.max_tokens") or int(fraction * free_bytes * num_gpus / token_bytes)
    if free_bytes <= 0:
        raise OutOfMemoryError("Model")
    if kv_tokens < max_seq_len:
        raise OutOfMemoryError("KV cache")
    graphs, max_batch_size = args.get("cuda_graph_config", {}), said("max_batch_size")
    graph_batch_size = 0 if graphs is None else max(
        graphs.get("batch_sizes") or [graphs.get("max_batch_size") or GRAPH_BATCH_SIZE]
    )  # fmt: skip
    backend = said("moe_config.backend") or "AUTO"
    backend = "TRITON" if backend == "AUTO" else backend  # of gpt-oss on Hopper
    return Settings(
        num_gpus=num_gpus,
        max_batch_size=max_batch_size,
        max_requests=max_batch_size * (tp if args.get("enable_attention_dp") else 1),
        max_num_tokens=max_num_tokens,
        max_seq_len=max_seq_len,
        kv_tokens=kv_tokens,
        tokens_per_block=said("kv_cache_config.tokens_per_block"),
        graph_batch_size=graph_batch_size,
        stream_interval=said("stream_interval"),
        draft_len=said("speculative_config.max_draft_len") or 0,
        has_chunked_prefill=bool(args.get("enable_chunked_prefill")),
        has_block_reuse=bool(said("kv_cache_config.enable_block_reuse")),
        moe_backend=backend,
        moe_factor=MOE_FACTORS.get(backend, 1.0),
        other_s=WITHOUT_OVERLAP_S if args.get("disable_overlap_scheduler") else 0.0,
    )
