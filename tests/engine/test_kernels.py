"""Where compiled kernels land, and which log lines tell of one."""

from pathlib import Path

import pytest

from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine.vllm import VllmEngine

JIT_MONITOR = (
    "(EngineCore pid=2) WARNING 11-22 19:12:27 [jit_monitor.py:103] Triton kernel JIT compilation during inference: "
    "_matmul_ogs. This causes a latency spike; consider extending warmup to cover this shape/config."
)


@pytest.mark.parametrize(
    "line",
    [
        JIT_MONITOR,
        "WARNING [jit_monitor.py:98] Triton autotune/warmup candidate JIT compilation during inference: k (key=1).",
        "(EngineCore pid=2) INFO 11-22 [backends.py:393] Compiling a graph for compile range (1, 2048) takes 9.31 s",
        "Triton autotuning for function _chunk_state_fwd_kernel,",
        "Autotuning kernel _chunk_state_fwd_kernel with config BLOCK_SIZE_M: 64, num_warps: 4",
        "AUTOTUNE mm(64x4096, 4096x6144)",
        "INFO - autotuner.py:457 - flashinfer.jit: [Autotuner]: Autotuning process starts ...",
        "[AutoTuner]: Tuning fp4_gemm:  62%|######2   | 10/16 [00:00<00:00, 94.18profile/s]",
        "2025-12-20 04:21:17,836 - INFO - flashinfer.jit: Loading JIT ops: norm",
        "2026-03-19 10:14:52  [TileLang:tilelang.jit.kernel:INFO]: TileLang begins to compile kernel `main`",
    ],
)
def test_vllm_tells_of_kernels_in_these_words(line: str) -> None:
    assert VllmEngine.compile_line is not None
    assert VllmEngine.compile_line.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "INFO [jit_monitor.py:54] Kernel JIT monitor activated - Triton JIT compilations during inference will be "
        "logged as warnings.",
        "INFO [kernel_warmup.py:189] FlashInfer autotune cache loaded on rank 0 from /root/.cache/vllm.",
        "flashinfer.jit: Finished loading JIT ops: norm",
        "Engine 000: Avg prompt throughput: 9.1 tokens/s, Avg generation throughput: 5121.0 tokens/s, Running: 64 reqs",
        "[TRT-LLM] [I] [Autotuner] Cache size after warmup is 28",
    ],
)
def test_other_lines_are_passed_over(line: str) -> None:
    assert VllmEngine.compile_line is not None
    assert TrtllmEngine.compile_line is not None
    assert not VllmEngine.compile_line.search(line)
    assert not TrtllmEngine.compile_line.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "[12/20/2025-04:21:10] [TRT-LLM] [I] [Autotuner] Autotuning process starts ...",
        "[TensorRT-LLM][WARNING] Possible JIT Cache Missing: ...",
        "2025-12-20 04:21:17,836 - INFO - flashinfer.jit: Loading JIT ops: norm",
    ],
)
def test_tensorrt_llm_tells_of_kernels_in_these_words(line: str) -> None:
    assert TrtllmEngine.compile_line is not None
    assert TrtllmEngine.compile_line.search(line)


def test_caches_lie_in_the_home_of_the_engine() -> None:
    found = VllmEngine().kernel_caches({"HOME": "/home/u", "TMPDIR": "/scratch"})
    home = Path("/home/u")
    assert {
        home / ".triton/cache", home / ".cache/flashinfer", home / ".cache/vllm", home / ".nv/ComputeCache"
    } < set(found)  # fmt: skip
    assert [path for path in found if path.parent == Path("/scratch")]
    assert home / ".tensorrt_llm" in TrtllmEngine().kernel_caches({"HOME": "/home/u"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TRITON_CACHE_DIR", "/x"),
        ("TRITON_HOME", "/x/.triton/cache"),
        ("TORCHINDUCTOR_CACHE_DIR", "/x"),
        ("FLASHINFER_WORKSPACE_BASE", "/x/.cache/flashinfer"),
        ("TILELANG_CACHE_DIR", "/x"),
        ("CUDA_CACHE_PATH", "/x"),
        ("VLLM_CACHE_ROOT", "/x"),
        ("XDG_CACHE_HOME", "/x/vllm"),
        ("DG_JIT_CACHE_DIR", "/x"),
    ],
)
def test_each_variable_moves_its_cache(name: str, expected: str) -> None:
    found = VllmEngine().kernel_caches({"HOME": "/home/u", name: "/x"})
    assert Path(expected) in found
    assert [path for path in found if path.is_relative_to("/x")] == [Path(expected)]


def test_a_cache_inside_another_is_counted_once() -> None:
    environ = {"HOME": "/home/u", "TRITON_CACHE_DIR": "/home/u/.cache/vllm/triton", "CUDA_CACHE_PATH": "/c"}
    found = VllmEngine().kernel_caches(environ)
    assert Path("/home/u/.cache/vllm") in found
    assert not [path for path in found if Path("/home/u/.cache/vllm") in path.parents]
    assert len(set(found)) == len(found)
