"""TensorRT-LLM: `trtllm-serve` from its own environment, every setting in one YAML file.

The command line carries only model, address and --config: until mid-2026 a setting given in both places was silently
taken from the file, since then from the command line. Keys and allowed values are those of
tensorrt_llm/usage/llm_args_golden_manifest.json (tests/engine/trtllm_llm_args_fields.tsv).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.engine.availability import installed_version
from pipeline.engine.counters import TRTLLM, read_counters
from pipeline.engine.kernels import cache_dirs, compile_line, folder, home_dir
from pipeline.engine.model_dir import checkpoint_dir, checkpoint_for
from pipeline.engine.observed import CounterSample
from pipeline.engine.protocol import Availability, Rendered
from pipeline.errors import ConfigError
from pipeline.study import EngineConfig, Study
from pipeline.vocabulary import TrialStatus

MOE_BACKENDS = (
    "AUTO", "CUTLASS", "CUTEDSL", "TRTLLM", "DEEPGEMM", "DENSEGEMM", "VANILLA", "TRITON", "MARLIN", "MEGAMOE_DEEPGEMM",
    "MEGAMOE_CUTEDSL",
)  # fmt: skip

KNOBS = frozenset({"moe_backend", "cuda_graph_max_batch_size"})
"""`moe_config.backend` and `cuda_graph_config.max_batch_size`; the second is batching.max_batch_size if not set."""

KV_CACHE_DTYPES = {None: "auto", "auto": "auto", "bf16": "auto", "fp8": "fp8"}
"""auto is what the checkpoint says, else its activations' type."""

OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError"
    r"|Executor creation failed due to insufficient GPU memory"
)
"""Source: torch, and tensorrt_llm/_torch/pyexecutor/py_executor_creator.py. "insufficient GPU memory for CUDA graphs"
is only a warning."""

RESOLVED = {
    "trtllm_version": r"TensorRT LLM version: (\S+)",
    "measured.kv_cache_size_tokens": r"for max tokens in paged KV cache \((\d+)\)",
    "tokens_per_block": r"Number of tokens per block: (\d+)",
    "max_seq_len": r"\bmax_seq_len=(\d+)",
    "max_num_requests": r"\bmax_num_requests=(\d+)",
    "max_num_tokens": r"\bmax_num_tokens=(\d+)",
    "max_batch_size": r"\bmax_batch_size=(\d+)",
}
"""Name -> what TensorRT-LLM logs once it has resolved it. The KV cache is allocated twice, small for a trial run and
then for good, so the last match counts."""


COMPILE_LINE = compile_line(r"Possible JIT Cache Missing", r"TRTLLM-Gen FMHA JIT warmup")
"""Source: kernels/trtllmGenKernels/fmha/fmhaKernels.h from mid-2026 on (PR 14851). Triton kernels that the warm-up
missed (PR 16177) and DeepGEMM's are compiled without a word."""


class TrtllmEngine:
    """Satisfies the Engine protocol."""

    name = "trtllm"
    knobs = KNOBS
    compile_line: re.Pattern[str] | None = COMPILE_LINE

    def availability(self, study: Study) -> Availability:
        """Ask engine.python for TensorRT-LLM's version."""
        remedy = "set engine.python to an interpreter that has TensorRT-LLM, e.g. that of NVIDIA's container"
        return installed_version(study.engine.python, "tensorrt_llm", remedy)

    def render(self, config: EngineConfig, study: Study) -> Rendered:
        """Turn a config into `trtllm-serve` and its YAML file.

        Raises:
            ConfigError: If the config asks for what TensorRT-LLM cannot do, or the model has no such weights.
        """
        if study.weights == "random":
            raise ConfigError(
                "weights=random: engine=trtllm needs a checkpoint, for its own `load_format: dummy` is not random "
                "weights and would draw too little power; set weights=checkpoint, or engine=vllm"
            )
        asked = config.precision.weights
        if checkpoint_for(study.model, asked).format == "bf16" and asked != "bf16":
            raise ConfigError(
                f"precision.weights={asked}: {study.model.name} has no {asked} checkpoint, and engine=trtllm does not "
                "quantise as it loads; add one to model.checkpoints, or use bf16"
            )
        text = yaml.safe_dump(llm_args(config, study), sort_keys=False)
        argv = (
            "{bin}/trtllm-serve", "{model}", "--host", "{host}", "--port", "{port}", "--config", "{dir}/config.yaml",
        )  # fmt: skip
        return Rendered(files={"config.yaml": text}, argv=argv, env={"HF_HUB_OFFLINE": "1"} | study.engine.env)

    def places(self, config: EngineConfig, study: Study) -> dict[str, str]:
        """The checkpoint's folder.

        Raises:
            ConfigError: If weights are missing; names the ways out.
        """
        return {"model": str(checkpoint_dir(study, config.precision.weights))}

    def ready_request(self, study: Study) -> dict[str, object]:
        """Two tokens after eight: a prefill and a decode step."""
        return {"model": study.model.name, "prompt": list(range(8)), "max_tokens": 2, "ignore_eos": True}

    def failure(self, log_lines: Sequence[str]) -> TrialStatus:
        """Out of memory if any line says so."""
        out_of_memory = any(OUT_OF_MEMORY.search(line) for line in log_lines)
        return TrialStatus.OUT_OF_MEMORY if out_of_memory else TrialStatus.START_FAILED

    def effective_config(self, log_lines: Sequence[str]) -> dict[str, str]:
        """What TensorRT-LLM logged that it resolved."""
        text = "\n".join(log_lines)
        found = {name: re.findall(pattern, text) for name, pattern in RESOLVED.items()}
        return {name: matches[-1] for name, matches in found.items() if matches}

    def kernel_caches(self, environ: Mapping[str, str]) -> tuple[Path, ...]:
        """What PyTorch uses, and its own DeepGEMM's. Source: tensorrt_llm/deep_gemm/compiler.cuh."""
        return cache_dirs(environ, folder(environ, "TRTLLM_DG_CACHE_DIR", home_dir(environ) / ".tensorrt_llm"))

    def counters(self, url: str) -> CounterSample | None:
        """Its Prometheus metrics, which it serves only if asked to; none of them counts tokens as they are made."""
        return read_counters(url, TRTLLM)

    def constant_weights(self, log_lines: Sequence[str]) -> int | None:  # noqa: ARG002  # always a checkpoint
        """A checkpoint is not looked at."""
        return None


def llm_args(config: EngineConfig, study: Study) -> dict[str, Any]:
    """The YAML file's content: arguments of tensorrt_llm.LLM, only what is set or must not be left to a default.

    Under attention data parallelism TensorRT-LLM takes `max_batch_size` per rank, and so does ours.

    Raises:
        ConfigError: If a knob or a format is unknown to TensorRT-LLM.
    """
    _check(config)
    layout, batching, knobs = config.parallelism, config.batching, config.knobs
    args: dict[str, Any] = {
        "tensor_parallel_size": layout.tp,
        "pipeline_parallel_size": layout.pp,
        "moe_expert_parallel_size": layout.ep if layout.ep > 1 else None,
        "enable_attention_dp": layout.attention_dp or None,
        "max_batch_size": batching.max_batch_size,
        "max_num_tokens": batching.max_num_tokens,
        "max_seq_len": study.workload.max_seq_len_tokens,
        "kv_cache_config": {
            "dtype": KV_CACHE_DTYPES[config.precision.kv_cache],
            "free_gpu_memory_fraction": batching.kv_cache_fraction,
            "enable_block_reuse": study.workload.shared_prefix_tokens > 0,
        },
        "cuda_graph_config": {
            "enable_padding": True,
            "max_batch_size": knobs.get("cuda_graph_max_batch_size", batching.max_batch_size),
        },
        "enable_chunked_prefill": batching.chunked_prefill,
        "moe_config": {"backend": knobs.get("moe_backend")},
        "stream_interval": 1,
    }
    return _set_only(args)


def _set_only(args: dict[str, Any]) -> dict[str, Any]:
    """Without the keys that are not set, and without the groups that this leaves empty."""
    inner = {key: _set_only(value) if isinstance(value, dict) else value for key, value in args.items()}
    return {key: value for key, value in inner.items() if value is not None and value != {}}


def _check(config: EngineConfig) -> None:
    """Check what TensorRT-LLM would only refuse after minutes.

    Raises:
        ConfigError: If a knob or a format is unknown to it.
    """
    kv_cache = config.precision.kv_cache
    if kv_cache not in KV_CACHE_DTYPES:
        allowed = ", ".join(key for key in KV_CACHE_DTYPES if key)
        raise ConfigError(f"precision.kv_cache={kv_cache}: engine=trtllm takes {allowed}")
    for name, value in config.knobs.items():
        if name not in KNOBS:
            raise ConfigError(f"engine.knobs.{name}: trtllm has no such knob; allowed: {', '.join(sorted(KNOBS))}")
        if name == "moe_backend" and value not in MOE_BACKENDS:
            raise ConfigError(f"engine.knobs.moe_backend={value}: allowed: {', '.join(MOE_BACKENDS)}")
        if name == "cuda_graph_max_batch_size" and (type(value) is not int or value < 1):
            raise ConfigError(f"engine.knobs.{name}={value}: takes a whole number from 1 on")
