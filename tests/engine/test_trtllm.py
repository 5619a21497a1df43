"""TensorRT-LLM's adapter: what a config becomes, and what the engine's log says.

`trtllm_llm_args_fields.tsv` lists the scalar arguments of TensorRT-LLM's `TorchLlmArgs` by dotted path, with the
allowed values of those that have a list. Source: tensorrt_llm/usage/llm_args_golden_manifest.json of
https://github.com/NVIDIA/TensorRT-LLM at commit 0004396720054fd8e205cbf616f21f0b57c6b412, copyright NVIDIA CORPORATION
& AFFILIATES, licence Apache-2.0.
"""

import csv
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_study
from pipeline.engine.trtllm import MOE_BACKENDS, TrtllmEngine
from pipeline.errors import ConfigError
from pipeline.study import EngineConfig, Scalar, Study
from pipeline.vocabulary import TrialStatus

ENGINE = TrtllmEngine()

with Path(__file__).with_name("trtllm_llm_args_fields.tsv").open(newline="") as table:
    FIELDS = {
        row["path"]: tuple(filter(None, row["allowed_values"].split(",")))
        for row in csv.DictReader(table, delimiter="\t")
    }


def load(model: str) -> Study:
    return load_study(
        [f"model={model}", "hardware=h100", "engine=trtllm", "precision=auto", "batching=default",
         "workload=chat_1k_1k", "weights=checkpoint", f"engine.python={sys.executable}"]
    )  # fmt: skip


GPT_OSS = load("gpt-oss-120b")
LLAMA = load("llama-3.1-8b")

EVERYTHING: dict[str, Scalar] = {
    "parallelism__tp": 2, "parallelism__pp": 2, "parallelism__ep": 2, "parallelism__attention_dp": True,
    "batching__max_batch_size": 720, "batching__max_num_tokens": 16384, "batching__kv_cache_fraction": 0.85,
    "batching__chunked_prefill": True, "precision__kv_cache": "fp8", "engine__knobs__moe_backend": "TRITON",
    "engine__knobs__cuda_graph_max_batch_size": 512,
}  # fmt: skip


def config(**values: Scalar | None) -> EngineConfig:
    """A config with the given axes, written with __ for the dot."""
    axes = {"precision.weights": "fp4", **{key.replace("__", "."): value for key, value in values.items()}}
    return EngineConfig.from_axes("trtllm", axes)


def llm_args(**values: Scalar | None) -> dict[str, Any]:
    """The YAML file that a config becomes, read back."""
    args: dict[str, Any] = yaml.safe_load(ENGINE.render(config(**values), GPT_OSS).files["config.yaml"])
    return args


def leaves(args: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything set."""
    for key, value in args.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_the_manifest_is_whole() -> None:
    assert len(FIELDS) == 310


def test_the_command_line_carries_only_what_the_file_cannot() -> None:
    rendered = ENGINE.render(config(), GPT_OSS)
    assert rendered.argv == (
        "{bin}/trtllm-serve", "{model}", "--host", "{host}", "--port", "{port}", "--config", "{dir}/config.yaml",
    )  # fmt: skip
    assert rendered.env["HF_HUB_OFFLINE"] == "1"
    assert rendered.weights_init is None


def test_everything_that_is_set_reaches_the_file() -> None:
    assert llm_args(**EVERYTHING) == {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 2,
        "moe_expert_parallel_size": 2,
        "enable_attention_dp": True,
        "max_batch_size": 720,
        "max_num_tokens": 16384,
        "max_seq_len": 2048,
        "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.85, "enable_block_reuse": False},
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": 512},
        "enable_chunked_prefill": True,
        "moe_config": {"backend": "TRITON"},
        "stream_interval": 1,
    }


def test_what_is_not_set_is_left_to_tensorrt_llm() -> None:
    assert llm_args() == {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "max_seq_len": 2048,
        "kv_cache_config": {"dtype": "auto", "enable_block_reuse": False},
        "cuda_graph_config": {"enable_padding": True},
        "stream_interval": 1,
    }


def test_blocks_are_reused_only_where_prompts_share_a_prefix() -> None:
    shared = dataclasses.replace(GPT_OSS, workload=dataclasses.replace(GPT_OSS.workload, shared_prefix_tokens=256))
    args = yaml.safe_load(ENGINE.render(config(), shared).files["config.yaml"])
    assert args["kv_cache_config"]["enable_block_reuse"] is True


def test_cuda_graphs_reach_to_the_batch_size() -> None:
    assert llm_args(batching__max_batch_size=64)["cuda_graph_config"] == {"enable_padding": True, "max_batch_size": 64}


def test_chunked_prefill_can_be_switched_off() -> None:
    assert llm_args(batching__chunked_prefill=False)["enable_chunked_prefill"] is False


@given(st.sets(st.sampled_from(sorted(EVERYTHING))), st.sampled_from(MOE_BACKENDS))
def test_every_key_and_value_is_one_that_tensorrt_llm_knows(chosen: set[str], moe_backend: str) -> None:
    values = {key: EVERYTHING[key] for key in chosen} | {"engine__knobs__moe_backend": moe_backend}
    for path, value in leaves(llm_args(**values)):
        assert path in FIELDS
        assert not FIELDS[path] or str(value) in FIELDS[path]


def test_moe_backends_are_those_of_the_manifest() -> None:
    assert FIELDS["moe_config.backend"] == MOE_BACKENDS


@pytest.mark.parametrize(
    ("study", "values", "message"),
    [
        (dataclasses.replace(GPT_OSS, weights="random"), {}, "dummy` is not random weights.*engine=vllm"),
        (GPT_OSS, {"precision__weights": "bf16"}, r"precision\.weights=bf16: no checkpoint.*allowed: fp4"),
        (GPT_OSS, {"precision__kv_cache": "u8"}, r"precision\.kv_cache=u8.*auto, bf16, fp8"),
        (GPT_OSS, {"engine__knobs__moe_backend": "triton"}, r"moe_backend=triton: allowed: AUTO, .*TRITON"),
        (GPT_OSS, {"engine__knobs__enforce_eager": True}, r"engine\.knobs\.enforce_eager: trtllm has no such knob"),
        (GPT_OSS, {"engine__knobs__cuda_graph_max_batch_size": 0}, "a whole number from 1 on"),
        (
            dataclasses.replace(
                LLAMA,
                model=dataclasses.replace(LLAMA.model, checkpoints={"bf16": LLAMA.model.checkpoints["bf16"]}),
            ),
            {"precision__weights": "fp8"},
            "no fp8 checkpoint, and engine=trtllm does not quantise",
        ),
    ],
)
def test_what_tensorrt_llm_cannot_do_is_one_clear_message(
    study: Study, values: dict[str, Scalar], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ENGINE.render(config(**values), study)


def test_missing_weights_name_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="hf download openai/gpt-oss-120b"):
        ENGINE.places(config(), GPT_OSS)


def test_our_own_environment_has_no_tensorrt_llm() -> None:
    availability = ENGINE.availability(GPT_OSS)
    assert availability.version is None
    assert "has no tensorrt_llm; set engine.python" in (availability.why_not or "")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", TrialStatus.OUT_OF_MEMORY),
        ("torch.AcceleratorError: CUDA error: out of memory", TrialStatus.OUT_OF_MEMORY),
        ("RuntimeError: Executor creation failed due to insufficient GPU memory.", TrialStatus.OUT_OF_MEMORY),
        ("[TRT-LLM] [W] insufficient GPU memory for CUDA graphs, capturing fewer sizes", TrialStatus.START_FAILED),
        ("RuntimeError: Failed to bind socket to 127.0.0.1:8000", TrialStatus.START_FAILED),
        ("pydantic_core.ValidationError: kv_cache_free_gpu_memory_fraction", TrialStatus.START_FAILED),
    ],
)
def test_out_of_memory_is_told_from_other_failures(line: str, status: TrialStatus) -> None:
    assert ENGINE.failure(["[TRT-LLM] [I] starting", line, "exit"]) == status


def test_the_log_says_what_was_resolved() -> None:
    log = [
        "[TensorRT-LLM] TensorRT LLM version: 1.2.0rc6",
        "[TensorRT-LLM][INFO] Number of tokens per block: 32.",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 62.99 GiB for max tokens in paged KV cache (294848).",
        "[12/20/2025-04:21:10] [TRT-LLM] [I] max_seq_len=8224, max_num_requests=64, max_num_tokens=8192, "
        "max_batch_size=64",
    ]
    assert ENGINE.effective_config(log) == {
        "trtllm_version": "1.2.0rc6",
        "tokens_per_block": "32",
        "measured.kv_cache_size_tokens": "294848",
        "max_seq_len": "8224",
        "max_num_requests": "64",
        "max_num_tokens": "8192",
        "max_batch_size": "64",
    }
    assert ENGINE.effective_config([]) == {}


def test_readiness_is_a_prefill_and_a_decode_step() -> None:
    body = ENGINE.ready_request(GPT_OSS)
    assert (body["max_tokens"], body["ignore_eos"]) == (2, True)
