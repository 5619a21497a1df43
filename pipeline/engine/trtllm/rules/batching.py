"""What the scheduler takes into one step, and the CUDA graphs of a step."""

from pipeline.engine.trtllm.rules.rule import MAX_NUM_TOKENS, Rule, any_knob, knob, number, shown, text
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

ENCODER_FIELDS = ("num_tokens", "max_num_token", "seq_lens", "max_seq_len")
"""Fields of cuda_graph_config that make it one of an encoder."""


def _graph_sizes(config: EngineConfig, _: Study) -> str | None:
    sizes = knob(config, "cuda_graph_config.batch_sizes")
    largest = number(config, "cuda_graph_config.max_batch_size")
    if not isinstance(sizes, tuple) or not largest:
        return None
    top = max((size for size in sizes if isinstance(size, int)), default=largest)
    if top == largest:
        return None
    return (
        f"{shown(config, 'cuda_graph_config.max_batch_size')}: the largest of batch_sizes is {top}, and the two must "
        "agree; leave max_batch_size out"
    )


def _encoder_graphs(config: EngineConfig, _: Study) -> str | None:
    if text(config, "cuda_graph_config.mode") == "ENCODE":
        return f"{shown(config, 'cuda_graph_config.mode')}: these are graphs of an encoder; leave mode out"
    for field in ENCODER_FIELDS:
        name = f"cuda_graph_config.{field}"
        if knob(config, name) not in {None, 0}:
            return f"{shown(config, name)}: makes the graphs those of an encoder; use max_batch_size or batch_sizes"
    return None


def _prompt(config: EngineConfig, study: Study) -> str | None:
    """Without chunked prefill, which is TensorRT-LLM's default, a prompt goes through in one step or is refused."""
    limit = config.batching.max_num_tokens or MAX_NUM_TOKENS
    longest = study.workload.isl_tokens
    if config.batching.chunked_prefill or longest <= limit * config.parallelism.cp:
        return None
    return (
        f"batching.max_num_tokens={config.batching.max_num_tokens or f'{MAX_NUM_TOKENS} (default)'}: without chunked "
        f"prefill a prompt of {longest} tokens is refused; set batching.chunked_prefill=true, or max_num_tokens from "
        f"{longest} on"
    )


def _max_seq_len(config: EngineConfig, study: Study) -> str | None:
    asked, needed = number(config, "max_seq_len"), study.workload.max_seq_len_tokens
    if asked is not None and asked < needed:
        return (
            f"{shown(config, 'max_seq_len')}: prompt and answer of workload={study.workload.name} are {needed} tokens; "
            "leave it out, or raise it"
        )
    return None


def _chunking_policy(config: EngineConfig, _: Study) -> str | None:
    name = "scheduler_config.context_chunking_policy"
    if knob(config, name) is not None and not config.batching.chunked_prefill:
        return f"{shown(config, name)}: has no effect without chunked prefill; set batching.chunked_prefill=true"
    return None


def _dynamic_batch(config: EngineConfig, _: Study) -> str | None:
    name = any_knob(config, "scheduler_config.dynamic_batch_config.")
    if name is not None:
        return f"{shown(config, name)}: the PyTorch backend does not batch dynamically; leave it out"
    return None


def _static_batch(config: EngineConfig, _: Study) -> str | None:
    name = "scheduler_config.capacity_scheduler_policy"
    if text(config, name) == "STATIC_BATCH":
        return (
            f"{shown(config, name)}: no request joins before the whole batch is done, so GPUs idle at its end; "
            "use GUARANTEED_NO_EVICT or MAX_UTILIZATION"
        )
    return None


def _frontends(config: EngineConfig, _: Study) -> str | None:
    name = "num_serve_frontends"
    if (number(config, name) or 1) > 1 and knob(config, "orchestrator_type") is not None:
        return (
            f"{shown(config, name)}: more than one front end serves only the default executor, and orchestrator_type "
            f"is {knob(config, 'orchestrator_type')}; leave orchestrator_type out, or use 1"
        )
    return None


RULES = (
    Rule(
        name="graph_sizes", kind="refuses", check=_graph_sizes,
        source="llmapi/llm_args.py, validate_base_cuda_graph_config, newest; CudaGraphConfig before",
    ),
    Rule(
        name="encoder_graphs", kind="refuses", check=_encoder_graphs,
        source="llmapi/llm_args.py, infer_cuda_graph_config_mode, newest",
    ),
    Rule(
        name="prompt_length", kind="refuses", check=_prompt,
        source="llmapi/llm.py, _check_arguments: prompt length / cp_size against max_num_tokens, 1.0 to newest",
    ),
    Rule(
        name="max_seq_len", kind="refuses", check=_max_seq_len,
        source="_torch/pyexecutor/py_executor_creator.py: max_seq_len sizes the KV cache of one request, 1.0 to newest",
    ),
    Rule(
        name="chunking_policy", kind="warns", check=_chunking_policy,
        source="_torch/pyexecutor/py_executor_creator.py, ctx_chunk_config, 1.2 to newest",
    ),
    Rule(
        name="dynamic_batch", kind="refuses", check=_dynamic_batch,
        source="llmapi/llm_args.py, SchedulerConfig.dynamic_batch_config: no effect here, 1.3 and 1.4",
    ),
    Rule(
        name="static_batch", kind="warns", check=_static_batch,
        source="docs/source/performance/performance-tuning-guide/useful-runtime-flags.md: legacy mode, 1.0 to newest",
    ),
    Rule(
        name="serve_frontends", kind="warns", check=_frontends,
        source="llmapi/llm_args.py, BaseLlmArgs.num_serve_frontends: classic IPC executor only, newest",
    ),
)  # fmt: skip
