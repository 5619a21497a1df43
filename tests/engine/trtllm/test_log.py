import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.trtllm.log import ADVICE, COMPILE_LINE, OUT_OF_MEMORY, advice, resolved

STARTED = """
[TensorRT-LLM] TensorRT-LLM version: 1.3.0rc29
[TRT-LLM] [I] Using LLM with PyTorch backend
[TRT-LLM] [I] Setting quant_algo=NVFP4 from HF quant config.
[TRT-LLM] [I] Setting kv_cache_quant_algo=FP8 from HF quant config.
[TRT-LLM] [I] Validating KV Cache config against kv_cache_dtype="fp8"
[TRT-LLM] [I] ATTENTION RUNTIME FEATURES:  AttentionRuntimeFeatures(chunked_prefill=False, cache_reuse=True, cache=1)
[TRT-LLM] [I] Using Sampler: TorchSampler
[TensorRT-LLM][INFO] Number of tokens per block: 32.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.78 GiB for max tokens in paged KV cache (8224).
[TRT-LLM] [I] [Autotuner] Autotuning process starts ...
[TensorRT-LLM][INFO] Number of tokens per block: 32.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 8.27 GiB for max tokens in paged KV cache (86720).
[TRT-LLM] [I] max_seq_len=86720, max_num_requests=64, max_num_tokens=8192, max_batch_size=64
[TRT-LLM] [I] Creating CUDA graph instances for 3 batch sizes.
[TRT-LLM] [I] Run generation only CUDA graph warmup for batch size=64, draft_len=0
[TRT-LLM] [I] Run generation only CUDA graph warmup for batch size=8, draft_len=0
INFO:     Started server process [1]
""".strip().splitlines()


def test_what_it_resolved_is_read_from_a_start() -> None:
    assert resolved(STARTED) == {
        "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "kv_cache_dtype": "fp8",
        "sampler": "TorchSampler", "chunked_prefill": "False", "block_reuse": "True", "tokens_per_block": "32",
        "measured.kv_cache_size_tokens": "86720", "max_seq_len": "86720", "max_num_requests": "64",
        "max_num_tokens": "8192", "max_batch_size": "64", "num_cuda_graphs": "3", "largest_cuda_graph": "64",
        "measured.autotuner": "tuned",
    }  # fmt: skip


def test_a_silent_log_says_nothing() -> None:
    assert resolved([]) == {}
    assert advice([]) is None


@pytest.mark.parametrize(
    ("lines", "name", "value"),
    [
        (["Setting quant_algo=MIXED_PRECISION form HF quant config."], "quant_algo", "MIXED_PRECISION"),
        (["Using Sampler: TRTLLMSampler", "Using Sampler: TorchSampler"], "sampler", "TorchSampler"),
        (["Number of tokens per block: 32.", "Change tokens_per_block to: 64 for using FlashMLA"], "tokens_per_block",
         "64"),
        (["Change tokens_per_block to: 64 for using FlashMLA", "Number of tokens per block: 64."], "tokens_per_block",
         "64"),
        (["We will pad batches to 2048."], "cuda_graph_limit", "2048"),
        (["Running CUDA graph capture for 11 batch sizes."], "num_cuda_graphs", "11"),
        (["Run generation-only CUDA graph warmup for batch size=2", "Run generation-only CUDA graph warmup for batch "
          "size=16"], "largest_cuda_graph", "16"),
        (["Disable overlap scheduler for speculation mode NGRAM"], "overlap_scheduler", "off"),
        (["Selected communication strategy: NVLinkOneSided"], "moe_communication", "NVLinkOneSided"),
        (["[Autotuner] Autotuning process starts ...", "[Autotuner] Loading cache from /cache/a.json"],
         "measured.autotuner", "from its cache"),
        (["AttentionRuntimeFeatures(chunked_prefill=True, cache_reuse=True)",
          "Disabling block reuse for MLA"], "block_reuse", "False"),
    ],
)  # fmt: skip
def test_one_thing_is_read(lines: list[str], name: str, value: str) -> None:
    assert resolved(lines)[name] == value


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_log_can_be_read(lines: list[str]) -> None:
    assert all(isinstance(value, str) for value in resolved([*STARTED, *lines]).values())
    assert advice(lines) is None or isinstance(advice(lines), str)


def test_out_of_memory_is_told_from_a_warning() -> None:
    assert OUT_OF_MEMORY.search("Executor creation failed due to insufficient GPU memory.")
    assert OUT_OF_MEMORY.search("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    assert not OUT_OF_MEMORY.search("insufficient GPU memory for CUDA graphs")


def test_a_kernel_compiled_while_serving_is_seen() -> None:
    assert COMPILE_LINE.search("TRTLLM-Gen FMHA JIT warmup: compiling kernel")
    assert not COMPILE_LINE.search("[TRT-LLM] [I] iter = 12, num_scheduled_requests: 8")


KNOWN = {
    "RuntimeError: Failed to bind socket to localhost:8000: [Errno 98]": "localhost:8000 is taken",
    "ValueError: No GPU devices found on the node": "nvidia-smi",
    "stream_intervall\n  Extra inputs are not permitted [type=extra_forbidden, input_value=1, input_type=int]":
        "stream_intervall is no argument",
    "Extra inputs are not permitted": "engine.version",
    "ImportError: libmpi.so.40: cannot open shared object file: No such file or directory": "engine.runtime=docker",
    "ModuleNotFoundError: No module named 'mpi4py'": "engine.runtime=docker",
    "*** An error occurred in MPI_Init_thread": "SLURM_",
    "PMIX ERROR: ERROR in file gds_ds12_lock_pthread.c": "SLURM_",
    "misc/shmutils.cc:72 NCCL WARN Error: failed to extend /dev/shm/nccl-AbCdEf to 9637892 bytes": "--ipc=host",
    "UCX  ERROR ibv_reg_mr failed: Please check max locked memory (ulimit -l) limits": "memlock",
    "The following component could not be created: Model\nTotal GPU memory (GiB): 79": "parallelism.tp",
    "The following component could not be created: Draft model": "speculative_config",
    "The following component could not be created: KV cache": "kv_cache_fraction",
    "The following component could not be created: Guided decoder": "Guided decoder does not fit",
    "Executor creation failed with NCCL error": "NCCL_DEBUG",
    "RuntimeError: no MoE implementation can serve this layer": "moe_config.backend=AUTO",
    "Failed to load tokenizer from /models/a: OSError": "/models/a",
    "OSError: Can't load tokenizer for 'org/model'. If you were trying to load it from": "org/model has no tokenizer",
    "Please pass the argument `trust_remote_code=True` to allow custom code to be run.": "trust_remote_code=true",
    "cannot start /env/bin/trtllm-serve: No such file or directory": "there is no /env/bin/trtllm-serve",
    "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot": "hf download",
    "CUDA driver version is insufficient for CUDA runtime version": "driver",
}  # fmt: skip


@pytest.mark.parametrize("line", KNOWN)
def test_a_known_failure_has_its_fix_in_one_line(line: str) -> None:
    lines = ["[TRT-LLM] [I] starting", *line.split("\n"), "Traceback (most recent call last):"]
    answer = advice(lines)
    assert answer is not None
    assert KNOWN[line] in answer
    assert "\n" not in answer
    assert "{" not in answer


def test_a_healthy_start_has_no_advice() -> None:
    assert advice(STARTED) is None


def test_every_piece_of_advice_can_be_given() -> None:
    first = {next(pattern for pattern, _ in ADVICE if re.search(pattern, line)) for line in KNOWN}
    assert first == {pattern for pattern, _ in ADVICE}
