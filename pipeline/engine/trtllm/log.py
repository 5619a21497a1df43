"""What TensorRT-LLM's log says: how it died and what to do, what it resolved, which kernels it compiled.

Every text here is in its sources; the file is named beside it. It does not say (above debug level) which attention
backend, allreduce strategy, scheduler policy or MoE backend it took where all went as asked, nor whether programmatic
dependent launch is on: those are as rendered, and AUTO stays AUTO.
"""

import re
from collections.abc import Sequence

from pipeline.engine.kernels import compile_line

OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError"
    r"|Executor creation failed due to insufficient GPU memory"
)
"""Source: torch, and tensorrt_llm/_torch/pyexecutor/py_executor_creator.py. "insufficient GPU memory for CUDA graphs"
is only a warning."""

COMPILE_LINE = compile_line(r"Possible JIT Cache Missing", r"TRTLLM-Gen FMHA JIT warmup")
"""Source: kernels/trtllmGenKernels/fmha/fmhaKernels.h from mid-2026 on (PR 14851). Triton kernels that the warm-up
missed (PR 16177) and DeepGEMM's are compiled without a word."""

RESOLVED: dict[str, tuple[str, ...]] = {
    # tensorrt_llm/__init__.py
    # cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp
    "measured.kv_cache_size_tokens": (r"for max tokens in paged KV cache \((\d+)\)",),
    # the same, and _torch/pyexecutor/py_executor_creator.py
    "tokens_per_block": (r"Number of tokens per block: (\d+)", r"Change tokens_per_block to: (\d+)"),
    # _torch/pyexecutor/_util.py
    "max_seq_len": (r"\bmax_seq_len=(\d+)",),
    "max_num_requests": (r"\bmax_num_requests=(\d+)",),
    "max_num_tokens": (r"\bmax_num_tokens=(\d+)",),
    "max_batch_size": (r"\bmax_batch_size=(\d+)",),
    # llmapi/llm_utils.py; "form" until early 2026
    "quant_algo": (r"Setting quant_algo=(\w+) (?:from|form) HF quant config",),
    "kv_cache_quant_algo": (r"Setting kv_cache_quant_algo=(\w+) (?:from|form) HF quant config",),
    "quant_method": (r"Use quantization_config from .*'quant_method': '([\w-]+)'",),
    # _torch/pyexecutor/model_loader.py
    "kv_cache_dtype": (r"Validating KV Cache config against kv_cache_dtype=\"(\w+)\"",),
    # _torch/pyexecutor/py_executor_creator.py
    "sampler": (r"Using Sampler: (\w+)",),
    "chunked_prefill": (r"AttentionRuntimeFeatures\(chunked_prefill=(\w+)",),
    "block_reuse": (r"AttentionRuntimeFeatures\(.*\bcache_reuse=(\w+)",),
    # create_moe.py, moe_resolution.py, fused_moe_cutlass.py and fused_moe_trtllm_gen.py of _torch/modules/fused_moe
    "moe_implementation": (
        r"; running (\w+) instead", r"Using (\w+FusedMoE) instead", r"(\w+MoE\w*) selects alltoall_method_type",
    ),
    # _torch/modules/fused_moe/communication/communication_factory.py, and the four above
    "moe_communication": (
        r"Selected communication strategy: (\w+)", r"selects alltoall_method_type <AlltoallMethodType\.(\w+)",
    ),
    # _torch/pyexecutor/model_engine.py; the first text until early 2026
    "num_cuda_graphs": (
        r"Creating CUDA graph instances for (\d+) batch sizes", r"Running CUDA graph capture for (\d+) batch sizes",
    ),
    "cuda_graph_limit": (r"We will pad batches to (\d+)",),
}  # fmt: skip
"""Name -> what TensorRT-LLM logs once it has resolved it. Much is done twice, small for a trial run and then for good,
so the last match counts."""

TOLD: tuple[tuple[str, str, str], ...] = (
    # _torch/pyexecutor/py_executor_creator.py
    ("overlap_scheduler", "off", r"Disable overlap scheduler for speculation mode|Overlap scheduler is not supported"),
    ("block_reuse", "False", r"disable enable_block_reuse for|Disabling block reuse for"),
    ("chunked_prefill", "False", r"disable enable_chunked_context for|Disabling chunked context for"),
    # _torch/autotuner.py; whether it tuned is no property of the config, so not part of its identity
    ("measured.autotuner", "tuned", r"\[Autotuner\] Autotuning process starts"),
    ("measured.autotuner", "from its cache", r"\[Autotuner\] Loading cache from"),
)
"""Name, value, and the text that means it; a later one wins over an earlier one and over RESOLVED."""

CAPTURED_SIZE = re.compile(r"Run generation[ -]only CUDA graph warmup for batch size=(\d+)")
"""Source: _torch/pyexecutor/model_engine.py."""

ADVICE: tuple[tuple[str, str], ...] = (
    # commands/serve.py
    (
        r"Failed to bind socket to (\S+?)[.,;:]?(?:\s|$)",
        "{0} is taken: leave engine.port unset, or end what listens there",
    ),
    (
        r"No GPU devices found on the node",
        "TensorRT-LLM sees no GPU: run nvidia-smi in its runtime; a container needs the NVIDIA container toolkit",
    ),
    # pydantic, for LlmArgs(extra="forbid")
    (
        r"(?m)^(\S+)\n\s+Extra inputs are not permitted",
        "{0} is no argument of the installed TensorRT-LLM: set engine.version to that version, or leave {0} out",
    ),
    (
        r"Extra inputs are not permitted",
        "an argument is unknown to the installed TensorRT-LLM: set engine.version to that version",
    ),
    # issues 167 and 2286; llmapi/trtllm-llmapi-launch
    (
        r"libmpi[\w.]*: cannot open shared object|No module named 'mpi4py'",
        "MPI is missing: use NVIDIA's container (engine.runtime=docker), or install Open MPI and mpi4py beside "
        "TensorRT-LLM",
    ),
    (
        r"An error occurred in MPI_Init|MPI_INIT failed|PMI[xX]? ERROR|PMIx_Init failed",
        "MPI could not start: unset the SLURM_*, PMI_* and PMIX_* variables of the job around it, or start it with "
        "srun --mpi=pmix",
    ),
    # NCCL, misc/shmutils.cc
    (
        r"failed to extend /dev/shm|Error while creating shared memory segment",
        "shared memory (/dev/shm) is too small for NCCL: start the container with --ipc=host",
    ),
    # UCX
    (
        r"max locked memory \(ulimit -l\)",
        "too little memory may be locked: start the container with --ulimit memlock=-1, or raise `ulimit -l`",
    ),
    # _torch/pyexecutor/py_executor_creator.py, _ExecutorMemoryMonitor
    (
        r"component could not be created: Model\b",
        "the checkpoint does not fit: raise parallelism.tp or pp, or take a smaller precision.weights",
    ),
    (
        r"component could not be created: Draft model",
        "the draft model does not fit beside the model: raise parallelism.tp, or leave speculative_config out",
    ),
    (r"component could not be created: KV cache", "the KV cache does not fit: lower batching.kv_cache_fraction"),
    (
        r"component could not be created: (.+)",
        "{0} does not fit: lower batching.max_num_tokens, then batching.max_batch_size",
    ),
    (
        r"Executor creation failed with NCCL error",
        "NCCL could not connect the GPUs: set engine.env.NCCL_DEBUG=INFO and look for its first warning",
    ),
    # _torch/modules/fused_moe/moe_resolution.py
    (
        r"no MoE implementation can serve this layer|Unsupported moe backend",
        "the MoE backend has no kernels for this checkpoint and GPU: set engine.knobs.moe_config.backend=AUTO",
    ),
    # llmapi/llm_utils.py; transformers
    (
        r"Failed to load tokenizer from (\S+)|Can't load tokenizer for '([^']+)'",
        "{0} has no tokenizer: download the whole repository, tokenizer files included",
    ),
    (
        r"trust_remote_code=True",
        "the checkpoint brings Python code of its own: set engine.knobs.trust_remote_code=true if you trust it",
    ),
    # guard.py of this project
    (
        r"cannot start (\S*trtllm-serve): ",
        "there is no {0}: set engine.python to the interpreter of the environment that trtllm-serve was installed in",
    ),
    # huggingface_hub
    (
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|couldn't connect to 'https://huggingface\.co'",
        "a repository is not in the local cache, and servers start offline: `hf download` it first",
    ),
    # CUDA
    (
        r"CUDA driver version is insufficient",
        "the NVIDIA driver is older than the runtime's CUDA: update the driver, or use an older image",
    ),
)
"""What is in the log of a failed start -> what is wrong and the fix; the first that matches counts."""


def resolved(log_lines: Sequence[str]) -> dict[str, str]:
    """What TensorRT-LLM logged that it resolved; what it did not log is not there. `measured.*` vary by start."""
    text = "\n".join(log_lines)
    found = {name: _last(patterns, text) for name, patterns in RESOLVED.items()}
    found.update({name: value for name, value, pattern in TOLD if re.search(pattern, text)})
    sizes = [int(size) for size in CAPTURED_SIZE.findall(text)]
    found["largest_cuda_graph"] = str(max(sizes)) if sizes else None
    return {name: value for name, value in found.items() if value is not None}


def advice(log_lines: Sequence[str]) -> str | None:
    """What is wrong with a start that failed, and the fix, in one line; None where the log tells nothing known."""
    text = "\n".join(log_lines)
    for pattern, answer in ADVICE:
        match = re.search(pattern, text)
        if match is not None:
            return answer.format(*filter(None, match.groups()))
    return None


def _last(patterns: Sequence[str], text: str) -> str | None:
    """The group of the last match of any pattern."""
    matches = [match for pattern in patterns for match in re.finditer(pattern, text)]
    return max(matches, key=lambda match: match.start())[1] if matches else None
