"""What vLLM's log says: why it died, and what it resolved. Texts are those of vLLM 0.24.0."""

import re
from collections.abc import Sequence

from pipeline.engine.kernels import compile_line
from pipeline.vocabulary import TrialStatus

OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError|not enough GPU memory"
    r"|No available memory for the cache blocks|larger than the available KV cache memory"
    r"|larger than the maximum number of tokens that can be stored in KV cache"
    r"|is less than desired GPU memory utilization"
)
"""Source: v1/core/kv_cache_utils.py, v1/worker/{utils,gpu_model_runner}.py; the one on tokens is of older versions."""

RESOLVED = {
    "vllm_version": r"Initializing a V1 LLM engine \(v([^)]+)\)",
    "model_runner": r"Using (V2) Model Runner",
    "attention_backend": r"Using (?:AttentionBackendEnum\.)?([A-Z][A-Z0-9_]+) (?:attention )?backend(?: out of|\.)",
    "flash_attention_version": r"Using FlashAttention version (\d+)",
    "moe_backend": r"Using '?([\w ]+?)'? \w+ MoE backend",
    "linear_kernel": r"Selected (\w+) for ",
    "max_num_batched_tokens": r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)",
    "async_scheduling": r"Asynchronous scheduling is (\w+)",
    "measured.kv_cache_size_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "measured.kv_cache_max_concurrency": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",
    "cudagraph_mode": r"'cudagraph_mode': <CUDAGraphMode\.(\w+)",
    "cudagraph_capture_sizes": r"'cudagraph_capture_sizes': (\[[\d, ]*\])",
    "random_weights": r"tpw random weights: (\d+ tensors, [\d.]+ GiB, .*?);",
}
"""Name -> what vLLM logs once it has resolved it; the first match counts."""

ENGINE_CONFIG_KEYS = (
    "dtype", "max_seq_len", "load_format", "tensor_parallel_size", "pipeline_parallel_size", "quantization",
    "enforce_eager", "kv_cache_dtype", "enable_prefix_caching", "enable_chunked_prefill",
)  # fmt: skip
"""Taken from the line "Initializing a V1 LLM engine ... with config: key=value, ..."."""


COMPILE_LINE = compile_line(r"JIT compilation during inference", r"Compiling a graph for ")
"""Source: triton_utils/jit_monitor.py, which warns once per kernel, however many of its shapes are compiled (unless
--jit-monitor-verbose); compilation/backends.py. DeepGEMM compiles without a word."""

CONSTANT_WEIGHTS = re.compile(r"tpw random weights: .*; (\d+) constant,")
"""Source: side/vllm_random_weights.py; one line per worker."""


def failure(log_lines: Sequence[str]) -> TrialStatus:
    """Out of memory if any line says so: the error that ends vLLM comes from another process than the cause."""
    out_of_memory = any(OUT_OF_MEMORY.search(line) for line in log_lines)
    return TrialStatus.OUT_OF_MEMORY if out_of_memory else TrialStatus.START_FAILED


def effective_config(log_lines: Sequence[str]) -> dict[str, str]:
    """What was resolved, by name; a name that the log does not mention is left out."""
    text = "\n".join(log_lines)
    found = {name: re.search(pattern, text) for name, pattern in RESOLVED.items()}
    resolved = {name: match[1] for name, match in found.items() if match}
    size = "measured.kv_cache_size_tokens"
    if size in resolved:
        resolved[size] = resolved[size].replace(",", "")
    line = next((line for line in log_lines if "Initializing a V1 LLM engine" in line), "")
    for key in ENGINE_CONFIG_KEYS:
        match = re.search(rf" {key}=([^,]+),", line)
        if match:
            resolved[key] = match[1].removeprefix("torch.")
    return resolved


def constant_weights(log_lines: Sequence[str]) -> int | None:
    """Constant weight tensors over all workers; None if no random weights were drawn."""
    found = [int(match[1]) for line in log_lines if (match := CONSTANT_WEIGHTS.search(line))]
    return sum(found) if found else None
