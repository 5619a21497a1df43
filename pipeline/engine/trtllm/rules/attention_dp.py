"""Attention data parallelism: which limits are of one rank, and the knobs that mean something only with it.

What the engine does (model_engine.py `_filter_cuda_graph_batch_sizes`, cuda_graph_runner.py `maybe_get_cuda_graph` and
`_get_padded_batch`, request_utils.py `derive_attention_dp_per_rank_request_cap`): each of the tp ranks schedules
requests of its own, so `max_batch_size`, `max_num_tokens` and the sizes of CUDA graphs all count the requests (or
tokens) of ONE rank; only the clients' concurrency is global. A graph size above min(max_batch_size, max_num_tokens //
tokens of a request and step) is cut down to that limit where padding is on, and dropped where it is off. A decode step
runs as a graph only if every rank decodes, and, unless padding brings all ranks to the size of the largest, only if
their batches are equally large. NVIDIA's recipes whose largest graph is the global concurrency (16384 at tp=8)
therefore capture none above 2048, the default of max_batch_size; those with concurrency / tp say what they get.
"""

import math

from pipeline.engine.trtllm.rules.rule import (
    MAX_BATCH_SIZE,
    MAX_NUM_TOKENS,
    Rule,
    any_knob,
    draft_tokens,
    knob,
    number,
    shown,
)
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

DEFAULT_GRAPH_SIZE = 128
"""Largest CUDA graph where none is set. Source: llm_args.py, BaseCudaGraphConfig."""


def num_ranks(config: EngineConfig) -> int:
    """Groups of devices that schedule requests of their own."""
    return config.parallelism.tp if config.parallelism.attention_dp else 1


def most_requests_per_rank(config: EngineConfig) -> int:
    """Requests that one rank can decode in one step."""
    batch_size = config.batching.max_batch_size or MAX_BATCH_SIZE
    num_tokens = config.batching.max_num_tokens or MAX_NUM_TOKENS
    return min(batch_size, num_tokens // (1 + draft_tokens(config)))


def largest_graph(config: EngineConfig) -> int:
    """Largest batch of one rank that has a CUDA graph; 0 where graphs are off."""
    if knob(config, "cuda_graph_config") is False:
        return 0
    limit = most_requests_per_rank(config)
    sizes = knob(config, "cuda_graph_config.batch_sizes")
    if isinstance(sizes, tuple):
        asked = [size for size in sizes if isinstance(size, int)]
    else:
        # With padding our files ask for graphs up to max_batch_size: llm_args.py.
        is_padded = knob(config, "cuda_graph_config.enable_padding") is True
        default = (config.batching.max_batch_size if is_padded else None) or DEFAULT_GRAPH_SIZE
        asked = [int(number(config, "cuda_graph_config.max_batch_size") or default)]
    if knob(config, "cuda_graph_config.enable_padding") is False and isinstance(sizes, tuple):
        asked = [size for size in asked if size <= limit]
    return min(max(asked, default=0), limit)


def _graphs(config: EngineConfig, study: Study) -> str | None:
    reach = largest_graph(config)
    if reach == 0:
        return None
    ranks = num_ranks(config)
    if ranks > 1 and knob(config, "cuda_graph_config.enable_padding") is False:
        return (
            f"{shown(config, 'cuda_graph_config.enable_padding')}: with attention data parallelism a step runs as a "
            f"CUDA graph only if all {ranks} ranks decode equally many requests; set it to true"
        )
    heaviest = max((point.concurrency or 0 for point in study.workload.ladder), default=0)
    batch = min(math.ceil(heaviest / ranks), most_requests_per_rank(config))
    if reach < batch:
        whose = f"each of {ranks} ranks decodes" if ranks > 1 else "a step decodes"
        return (
            f"engine.knobs.cuda_graph_config: its largest graph holds {reach} requests, and at concurrency {heaviest} "
            f"{whose} {batch}: such steps run without a graph; set cuda_graph_config.max_batch_size={batch}"
        )
    return None


def _waits(config: EngineConfig, _: Study) -> str | None:
    for name in ("attention_dp_config.batching_wait_iters", "attention_dp_config.timeout_iters"):
        value = number(config, name)
        if knob(config, "attention_dp_config.enable_balance") is True and value is not None and value < 0:
            return f"{shown(config, name)}: with enable_balance it counts steps to wait; set it from 0 on"
    return None


def _lm_head(config: EngineConfig, _: Study) -> str | None:
    if knob(config, "enable_lm_head_tp_in_adp") is True and not config.parallelism.attention_dp:
        return (
            f"{shown(config, 'enable_lm_head_tp_in_adp')}: needs attention data parallelism; "
            "set parallelism.attention_dp=true, or leave it out"
        )
    return None


def _unused(config: EngineConfig, _: Study) -> str | None:
    name = any_knob(config, "attention_dp_config.")
    if name is not None and not config.parallelism.attention_dp:
        return f"{shown(config, name)}: has no effect without parallelism.attention_dp; leave it out"
    return None


def _batch_waits(config: EngineConfig, _: Study) -> str | None:
    for name in ("batch_wait_timeout_iters", "batch_wait_max_tokens_ratio"):
        if config.parallelism.attention_dp and (number(config, name) or 0) > 0:
            return (
                f"{shown(config, name)}: is not looked at with attention data parallelism; "
                "use attention_dp_config.batching_wait_iters"
            )
    return None


def _dense(config: EngineConfig, study: Study) -> str | None:
    divides_ffn = study.model.num_experts == 0 and not study.model.name.startswith("qwen3-")
    if config.parallelism.attention_dp and config.parallelism.tp > 1 and divides_ffn:
        return (
            f"parallelism.attention_dp=true: {study.model.name} is dense, and its feed-forward layers would add up the "
            "partial sums of different ranks' tokens; leave it out"
        )
    return None


RULES = (
    Rule(
        name="attention_dp_dense", kind="refuses", check=_dense,
        source="_torch/models/modeling_llama.py, LlamaDecoderLayer: its GatedMLP stays divided over the ranks, 2025; "
        "dense Qwen3 can (PR 7618)",
    ),
    Rule(
        name="decode_graphs", kind="warns", check=_graphs,
        source="_torch/pyexecutor/model_engine.py, _filter_cuda_graph_batch_sizes; cuda_graph_runner.py; "
        "request_utils.py, derive_attention_dp_per_rank_request_cap; 1.1 to newest",
    ),
    Rule(
        name="attention_dp_waits", kind="refuses", check=_waits,
        source="llmapi/llm_args.py, validate_attention_dp_config, newest",
    ),
    Rule(
        name="lm_head_tp", kind="refuses", check=_lm_head,
        source="mapping.py, Mapping.__init__, 1.2.0rc2 and later",
    ),
    Rule(
        name="attention_dp_unused", kind="warns", check=_unused,
        source="_torch/pyexecutor/py_executor.py: read only with attention DP, newest",
    ),
    Rule(
        name="batch_waits_with_attention_dp", kind="warns", check=_batch_waits,
        source="_torch/pyexecutor/py_executor.py, should_check_waiting, newest",
    ),
)  # fmt: skip
