"""vLLM's adapter: what a config becomes, and what the engine's log says."""

import dataclasses
import json
import re
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_study
from pipeline.engine.side.vllm_random_weights import WEIGHTS_INIT
from pipeline.engine.vllm import ENV, KNOBS, VllmEngine
from pipeline.engine_config import EngineConfig, Scalar
from pipeline.errors import ConfigError
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from pipeline.workload import CONCURRENCY_GRID

ENGINE = VllmEngine()

PLACEHOLDERS = {"{python}", "{side}", "{model}", "{host}", "{port}"}

CONFIG_LINE = (
    "(EngineCore pid=17574) INFO 11-22 22:03:22 [core.py:114] Initializing a V1 LLM engine (v0.24.0) with config: "
    "model='/models/llama', speculative_config=None, tokenizer='/models/llama', trust_remote_code=False, "
    "dtype=torch.bfloat16, max_seq_len=512, download_dir=None, load_format=tpw_random, tensor_parallel_size=1, "
    "pipeline_parallel_size=1, data_parallel_size=1, quantization=None, quantization_config=None, enforce_eager=True, "
    "kv_cache_dtype=auto, device_config=cpu, seed=0, served_model_name=tiny, enable_prefix_caching=False, "
    "enable_chunked_prefill=True, pooler_config=None, compilation_config={'mode': <CompilationMode.NONE: 0>, "
    "'cudagraph_mode': <CUDAGraphMode.NONE: 0>, 'cudagraph_num_of_warmups': 0, 'cudagraph_capture_sizes': [], "
    "'cudagraph_copy_inputs': False, 'max_cudagraph_capture_size': None}"
)
"""Printed by vLLM 0.24.0 on a CPU, shortened."""

GPU_LINES = [
    "(APIServer pid=1) INFO 11-22 22:03:14 [vllm.py:1006] Asynchronous scheduling is enabled.",
    "(APIServer pid=1) INFO 11-22 22:03:14 [scheduler.py:252] Chunked prefill is enabled with "
    "max_num_batched_tokens=8192.",
    "(EngineCore pid=2) INFO 11-22 22:03:22 [gpu_worker.py:331] Using V2 Model Runner",
    "(EngineCore pid=2) INFO 11-22 22:03:22 [cuda.py:480] Using FLASH_ATTN attention backend out of potential "
    "backends: ['FLASH_ATTN', 'TRITON_ATTN'].",
    "(EngineCore pid=2) INFO 11-22 22:03:22 [flash_attn.py:670] Using FlashAttention version 3",
    "(EngineCore pid=2) INFO 11-22 22:03:22 [mxfp4.py:513] Using 'TRITON' Mxfp4 MoE backend.",
    "(EngineCore pid=2) INFO 11-22 22:03:22 [__init__.py:564] Selected CutlassFP8ScaledMMLinearKernel for "
    "Fp8PerTensorOnlineLinearMethod",
    "(EngineCore pid=2) INFO 11-22 22:03:31 [vllm_random_weights.py:265] tpw random weights: 33 tensors, 60.77 GiB, "
    "tpw_random/1: sd 0.02, normal floats, uniform MXFP4 nibbles, seed 0; 0 constant, std 0.9983 to 1.0044 of "
    "intended",
    "(EngineCore pid=2) INFO 11-22 22:03:40 [kv_cache_utils.py:2146] GPU KV cache size: 1,234,560 tokens",
    "(EngineCore pid=2) INFO 11-22 22:03:40 [kv_cache_utils.py:2147] Maximum concurrency for 2,064 tokens per request: "
    "598.14x",
]
"""Written by the format strings in vLLM 0.24.0's sources."""


def load(model: str, *overrides: str) -> Study:
    return load_study(
        [f"model={model}", "hardware=h100", "engine=vllm", "precision=auto", "batching=default", "workload=chat_1k_1k",
         f"engine.python={sys.executable}", *overrides]
    )  # fmt: skip


LLAMA = load("llama-3.1-8b", "weights=random")
GPT_OSS = load("gpt-oss-120b", "weights=random")


def config(**values: Scalar | None) -> EngineConfig:
    """A config with the given axes, written with __ for the dot."""
    axes = {"precision.weights": "bf16", **{key.replace("__", "."): value for key, value in values.items()}}
    return EngineConfig.from_axes("vllm", axes)


def argv(study: Study, **values: Scalar | None) -> tuple[str, ...]:
    return ENGINE.render(config(**values), study).argv


def value_of(flag: str, command: tuple[str, ...]) -> str:
    return command[command.index(flag) + 1]


def test_random_weights_start_our_script() -> None:
    rendered = ENGINE.render(config(), LLAMA)
    assert rendered.argv == (
        "{python}", "{side}/vllm_random_weights.py", "serve", "{model}", "--host", "{host}", "--port", "{port}",
        "--served-model-name", "llama-3.1-8b", "--load-format", "tpw_random", "--generation-config", "vllm",
        "--disable-uvicorn-access-log", "--dtype", "bfloat16", "--kv-cache-dtype", "auto",
        "--tensor-parallel-size", "1", "--pipeline-parallel-size", "1", "--max-model-len", "2064",
        "--no-enable-prefix-caching",
    )  # fmt: skip
    assert rendered.weights_init == WEIGHTS_INIT.format(0)
    assert '"hidden_size": 4096' in rendered.files["model_config.json"]


def test_another_seed_draws_other_weights_and_seed_0_changes_nothing() -> None:
    seeded = ENGINE.render(config(), dataclasses.replace(LLAMA, weights_seed=7))
    plain = ENGINE.render(config(), LLAMA)
    at = seeded.argv.index("--model-loader-extra-config")
    assert json.loads(seeded.argv[at + 1]) == {"seed": 7}
    assert seeded.argv[:at] + seeded.argv[at + 2 :] == plain.argv
    assert seeded.env == plain.env
    assert seeded.weights_init == WEIGHTS_INIT.format(7)


def test_prefix_caching_is_on_only_where_prompts_share_a_prefix() -> None:
    shared = dataclasses.replace(LLAMA, workload=dataclasses.replace(LLAMA.workload, shared_prefix_tokens=256))
    assert "--no-enable-prefix-caching" in argv(LLAMA)
    assert "--enable-prefix-caching" not in argv(LLAMA)
    assert "--enable-prefix-caching" in argv(shared)
    assert "--no-enable-prefix-caching" not in argv(shared)


def test_a_checkpoint_starts_vllm_itself() -> None:
    rendered = ENGINE.render(config(), dataclasses.replace(LLAMA, weights="checkpoint"))
    assert rendered.argv[:5] == ("{python}", "-m", "vllm.entrypoints.cli.main", "serve", "{model}")
    assert "--load-format" not in rendered.argv
    assert rendered.weights_init is None
    assert rendered.files == {}


def test_render_is_stable_and_knows_no_place() -> None:
    elsewhere = dataclasses.replace(LLAMA, engines_dir="/elsewhere", results_dir="/elsewhere")
    rendered = ENGINE.render(config(), LLAMA)
    assert rendered.rendered_hash == ENGINE.render(config(), elsewhere).rendered_hash
    assert set(re.findall(r"\{\w+\}", " ".join(rendered.argv))) == PLACEHOLDERS


def test_the_users_environment_comes_last() -> None:
    study = dataclasses.replace(
        LLAMA,
        engine=dataclasses.replace(LLAMA.engine, env={"VLLM_USE_FLASHINFER_SAMPLER": "1", "TRITON_CACHE_DIR": "t"}),
    )
    env = ENGINE.render(config(), study).env
    assert env == ENV | {"VLLM_USE_FLASHINFER_SAMPLER": "1", "TRITON_CACHE_DIR": "t"}
    assert env["HF_HUB_OFFLINE"] == "1"


def test_limits_become_flags() -> None:
    command = argv(
        LLAMA, batching__max_batch_size=64, batching__max_num_tokens=4096, batching__kv_cache_fraction=0.85,
        batching__chunked_prefill=True, precision__kv_cache="fp8",
    )  # fmt: skip
    assert value_of("--max-num-seqs", command) == "64"
    assert value_of("--max-num-batched-tokens", command) == "4096"
    assert value_of("--gpu-memory-utilization", command) == "0.85"
    assert value_of("--kv-cache-dtype", command) == "fp8"
    assert "--enable-chunked-prefill" in command
    assert "--no-enable-chunked-prefill" in argv(LLAMA, batching__chunked_prefill=False)


def test_what_is_not_set_is_left_to_vllm() -> None:
    command = argv(LLAMA)
    for flag in ("--max-num-seqs", "--max-num-batched-tokens", "--gpu-memory-utilization", "--quantization"):
        assert flag not in command
    assert not any("chunked-prefill" in part or "expert" in part for part in command)


def test_parallelism_becomes_flags() -> None:
    command = argv(GPT_OSS, precision__weights="fp4", parallelism__tp=4, parallelism__pp=2, parallelism__ep=4)
    assert value_of("--tensor-parallel-size", command) == "4"
    assert value_of("--pipeline-parallel-size", command) == "2"
    assert "--enable-expert-parallel" in command
    assert "--enable-expert-parallel" not in argv(GPT_OSS, precision__weights="fp4", parallelism__tp=4)


def test_knobs_become_flags() -> None:
    command = argv(
        LLAMA, engine__knobs__enforce_eager=False, engine__knobs__async_scheduling=True, engine__knobs__block_size=32,
        engine__knobs__moe_backend="marlin", engine__knobs__attention_backend="FLASH_ATTN",
    )  # fmt: skip
    assert {"--no-enforce-eager", "--async-scheduling"} <= set(command)
    assert value_of("--block-size", command) == "32"
    assert value_of("--moe-backend", command) == "marlin"
    assert value_of("--attention-backend", command) == "FLASH_ATTN"
    assert ENGINE.knobs == frozenset(KNOBS)


@given(st.integers(1, 2048))
def test_every_measured_load_up_to_the_limit_has_its_own_cuda_graph(limit: int) -> None:
    command = argv(LLAMA, engine__knobs__cudagraph_capture_sizes=limit)
    start = command.index("--cudagraph-capture-sizes") + 1
    sizes = [int(part) for part in command[start:] if part.isdigit()]
    assert sizes == [load for load in CONCURRENCY_GRID if load <= limit]


@given(isl=st.integers(1, 8000), osl=st.integers(2, 8000))
def test_the_context_covers_the_workload_and_no_more_than_the_model_has(isl: int, osl: int) -> None:
    workload = dataclasses.replace(LLAMA.workload, isl_tokens=isl, osl_tokens=osl)
    study = dataclasses.replace(
        LLAMA, workload=workload, model=dataclasses.replace(LLAMA.model, max_context_tokens=max(isl + osl, 12_000))
    )
    length = int(value_of("--max-model-len", argv(study)))
    limit = study.model.max_context_tokens
    assert isl + osl <= length <= min(limit, isl + osl + 32)
    assert length % 16 == 0 or length == limit


def test_bf16_is_quantised_on_load_where_that_is_the_only_way_to_fp8() -> None:
    assert value_of("--quantization", argv(LLAMA, precision__weights="fp8")) == "fp8"
    with_own = dataclasses.replace(LLAMA, weights="checkpoint")
    assert "--quantization" not in argv(with_own, precision__weights="fp8")
    bf16_only = dataclasses.replace(LLAMA.model, checkpoints={"bf16": LLAMA.model.checkpoints["bf16"]})
    without = dataclasses.replace(with_own, model=bf16_only)
    assert value_of("--quantization", argv(without, precision__weights="fp8")) == "fp8"
    assert "--quantization" not in argv(without, precision__weights="bf16")


def test_mxfp4_comes_from_the_models_own_config() -> None:
    assert "--quantization" not in argv(GPT_OSS, precision__weights="fp4")
    assert "--quantization" not in argv(dataclasses.replace(GPT_OSS, weights="checkpoint"), precision__weights="fp4")


@pytest.mark.parametrize(
    ("study", "values", "message"),
    [
        (LLAMA, {"parallelism__attention_dp": True, "parallelism__tp": 2}, r"parallelism\.attention_dp=true"),
        (GPT_OSS, {"precision__weights": "fp4", "parallelism__tp": 4, "parallelism__ep": 2}, "use 1 or 4"),
        (LLAMA, {"parallelism__tp": 2, "parallelism__ep": 2}, "has no experts"),
        (LLAMA, {"precision__kv_cache": "int8"}, r"precision\.kv_cache=int8.*auto, bf16, fp8"),
        (LLAMA, {"precision__weights": "fp4"}, "allowed: bf16, fp8, or weights=checkpoint"),
        (GPT_OSS, {"precision__weights": "fp8"}, "allowed: fp4, or weights=checkpoint"),
        (LLAMA, {"engine__knobs__enforce_eagre": True}, r"engine\.knobs\.enforce_eagre.*enforce_eager"),
        (LLAMA, {"engine__knobs__enforce_eager": "yes"}, "true or false"),
        (LLAMA, {"engine__knobs__block_size": True}, "a whole number"),
        (LLAMA, {"engine__knobs__cudagraph_capture_sizes": 0}, "from 1 on"),
        (LLAMA, {"engine__knobs__moe_backend": 3}, "a name"),
    ],
)
def test_what_vllm_cannot_do_is_one_clear_message(study: Study, values: dict[str, Scalar], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ENGINE.render(config(**values), study)


def test_a_model_that_cannot_be_drawn_is_one_clear_message() -> None:
    unknown = dataclasses.replace(LLAMA, model=dataclasses.replace(LLAMA.model, hf_config=None))
    with pytest.raises(ConfigError, match=r"model\.hf_config of llama-3\.1-8b is null"):
        ENGINE.render(config(), unknown)
    shapes = {**(LLAMA.model.hf_config or {}), "quantization_config": {"quant_method": "modelopt_fp4"}}
    packed = dataclasses.replace(LLAMA, model=dataclasses.replace(LLAMA.model, hf_config=shapes))
    with pytest.raises(ConfigError, match="quant_method=modelopt_fp4, which is not drawn"):
        ENGINE.render(config(), packed)


def test_a_workload_longer_than_the_context_is_one_clear_message() -> None:
    short = dataclasses.replace(LLAMA, model=dataclasses.replace(LLAMA.model, max_context_tokens=1024))
    with pytest.raises(ConfigError, match=r"reaches 2048 tokens; llama-3\.1-8b takes 1024"):
        ENGINE.render(config(), short)


def test_the_model_is_prepared_where_weights_are_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = dataclasses.replace(LLAMA, engines_dir=str(tmp_path))
    folder = tmp_path / "models" / "llama-3.1-8b-random"
    assert ENGINE.places(config(), study) == {"model": str(folder)}
    assert (folder / "config.json").is_file()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="weights=random"):
        ENGINE.places(config(), dataclasses.replace(study, weights="checkpoint"))


def test_readiness_is_a_prefill_and_a_decode_step() -> None:
    body = ENGINE.ready_request(LLAMA)
    assert body["model"] == "llama-3.1-8b"
    assert body["max_tokens"] == 2
    assert body["ignore_eos"] is True


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.98 GiB. GPU 0 has a total",
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.",
        "torch.AcceleratorError: CUDA error: out of memory",
        "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (8.11 GiB).",
        "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored "
        "in KV cache (65536).",
        "ValueError: Free memory on device cuda:0 (1.10/79.19 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.27 GiB).",
    ],
)
def test_out_of_memory_is_told_from_other_failures(line: str) -> None:
    after = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert ENGINE.failure(["INFO starting", f"(EngineCore pid=2) ERROR {line}", after]) == TrialStatus.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "line",
    [
        "ValueError: Load format `tpw_random` is not supported",
        "ValueError: max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (256).",
        "INFO Available KV cache memory: 8.11 GiB",
        "Free memory on device (78.6/79.19 GiB) on startup. Desired GPU memory utilization is (0.9, 71.27 GiB).",
    ],
)
def test_other_failures_are_not_out_of_memory(line: str) -> None:
    assert ENGINE.failure([line]) == TrialStatus.START_FAILED
    assert ENGINE.failure([]) == TrialStatus.START_FAILED


def test_the_log_says_what_was_resolved() -> None:
    assert ENGINE.effective_config([CONFIG_LINE, *GPU_LINES]) == {
        "vllm_version": "0.24.0",
        "dtype": "bfloat16",
        "max_seq_len": "512",
        "load_format": "tpw_random",
        "tensor_parallel_size": "1",
        "pipeline_parallel_size": "1",
        "quantization": "None",
        "enforce_eager": "True",
        "kv_cache_dtype": "auto",
        "enable_prefix_caching": "False",
        "enable_chunked_prefill": "True",
        "cudagraph_mode": "NONE",
        "cudagraph_capture_sizes": "[]",
        "model_runner": "V2",
        "attention_backend": "FLASH_ATTN",
        "flash_attention_version": "3",
        "moe_backend": "TRITON",
        "linear_kernel": "CutlassFP8ScaledMMLinearKernel",
        "async_scheduling": "enabled",
        "max_num_batched_tokens": "8192",
        "measured.kv_cache_size_tokens": "1234560",
        "measured.kv_cache_max_concurrency": "598.14",
        "random_weights": "33 tensors, 60.77 GiB, tpw_random/1: sd 0.02, normal floats, uniform MXFP4 nibbles, seed 0",
    }
    assert ENGINE.effective_config(["Traceback (most recent call last):"]) == {}


def test_constant_weights_are_counted_over_all_workers_and_only_where_they_were_looked_for() -> None:
    line = next(line for line in GPU_LINES if "tpw random weights" in line)
    assert ENGINE.constant_weights(GPU_LINES) == 0
    assert ENGINE.constant_weights([line.replace("; 0 constant", "; 2 constant"), line, line]) == 2
    assert ENGINE.constant_weights([line for line in GPU_LINES if "tpw random weights" not in line]) is None


def test_a_chosen_attention_backend_is_read_too() -> None:
    line = "(EngineCore pid=2) INFO 11-22 22:03:22 [cuda.py:420] Using AttentionBackendEnum.TRITON_ATTN backend."
    assert ENGINE.effective_config([line]) == {"attention_backend": "TRITON_ATTN"}


def python_with(folder: Path, version: str | None) -> str:
    """An interpreter whose environment has vLLM of this version, or is broken if None."""
    info = folder / "site" / f"vllm-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    python = folder / "python"
    command = f'PYTHONPATH={folder / "site"} exec {sys.executable} "$@"' if version else "echo broken >&2; exit 3"
    python.write_text(f"#!/bin/sh\n{command}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return str(python)


def with_python(python: str) -> Study:
    return dataclasses.replace(LLAMA, engine=dataclasses.replace(LLAMA.engine, python=python))


def test_the_version_is_asked_of_the_engines_own_python(tmp_path: Path) -> None:
    availability = ENGINE.availability(with_python(python_with(tmp_path, "0.24.0")))
    assert (availability.version, availability.why_not) == ("0.24.0", None)


def test_an_environment_without_vllm_says_so() -> None:
    availability = ENGINE.availability(LLAMA)  # our own
    assert availability.version is None
    assert "has no vllm; set engine.python" in (availability.why_not or "")


def test_a_python_that_does_not_run_says_so(tmp_path: Path) -> None:
    missing = ENGINE.availability(with_python(str(tmp_path / "nowhere/python")))
    assert "cannot be run (No such file or directory); set engine.python" in (missing.why_not or "")
    broken = ENGINE.availability(with_python(python_with(tmp_path, None)))
    assert "failed: broken; set engine.python" in (broken.why_not or "")
