"""vLLM: `vllm serve` from its own environment, every setting on the command line.

Flags and limits are those of vLLM 0.24.0 (engine/arg_utils.py, config/). What differs from
TensorRT-LLM's meaning of our names: `batching.kv_cache_fraction` becomes --gpu-memory-utilization, the share of the
whole GPU that weights, activations and KV cache may fill together, not the share of what the weights leave free;
`batching.max_num_tokens` becomes --max-num-batched-tokens; `parallelism.ep` is all of tp or none.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.engine.availability import installed_version
from pipeline.engine.counters import VLLM, read_counters
from pipeline.engine.kernels import cache_dirs, folder, home_dir
from pipeline.engine.model_dir import checkpoint_dir, checkpoint_for, random_model_dir
from pipeline.engine.observed import CounterSample
from pipeline.engine.protocol import Availability, Rendered
from pipeline.engine.side.vllm_random_weights import WEIGHTS_INIT
from pipeline.engine.vllm_log import COMPILE_LINE, constant_weights, effective_config, failure
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.study import Model, Study
from pipeline.vocabulary import TrialStatus
from pipeline.workload import CONCURRENCY_GRID

KNOBS: dict[str, type] = {
    "enforce_eager": bool,
    "cudagraph_capture_sizes": int,
    "async_scheduling": bool,
    "block_size": int,
    "moe_backend": str,
    "attention_backend": str,
}
"""vLLM's own names. `cudagraph_capture_sizes` is the largest batch that gets a CUDA graph: every load of the ladder up
to it gets one of its own size. That is a third of vLLM's list, which saves start time, and pads no measured load."""

KV_CACHE_DTYPES = {None: "auto", "auto": "auto", "bf16": "auto", "fp8": "fp8"}
"""bf16 is vLLM's auto, for activations are always bf16 here."""

NATIVE_WEIGHTS = {None: "bf16", "mxfp4": "fp4", "fp8": "fp8"}
"""`quant_method` of a Hugging Face config -> the weights that vLLM makes for it."""

MAX_MODEL_LEN_STEP = 16
"""vLLM's KV-cache block on CUDA, tokens; --max-model-len is rounded up to it, plus one block of margin."""

ENV = {
    "HF_HUB_OFFLINE": "1",  # the model is always a local folder
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # FlashInfer may be absent, and compiles at the first request
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}

TESTED_VERSION = "0.24."


class VllmEngine:
    """Satisfies the Engine protocol."""

    name = "vllm"
    knobs = frozenset(KNOBS)
    compile_line: re.Pattern[str] | None = COMPILE_LINE

    def availability(self, study: Study) -> Availability:
        """Ask engine.python for vLLM's version; whether it sees a GPU shows when it starts."""
        return installed_version(study.engine, "vllm", "set engine.python to an interpreter that has vLLM")

    def render(self, config: EngineConfig, study: Study) -> Rendered:
        """Turn a config into `vllm serve` and its flags.

        Raises:
            ConfigError: If the config asks for what vLLM cannot do, or the model has no such weights.
        """
        is_random = study.weights == "random"
        program = ("{side}/vllm_random_weights.py",) if is_random else ("-m", "vllm.entrypoints.cli.main")
        argv = [
            "{python}", *program, "serve", "{model}", "--host", "{host}", "--port", "{port}",
            "--served-model-name", study.model.name,
            *(_random_loader(study.weights_seed) if is_random else ()),
            "--generation-config", "vllm",  # a checkpoint's sampling defaults would differ from model to model
            "--disable-uvicorn-access-log",
            *_precision(config, study), *_parallelism(config, study.model), *_batching(config, study), *_knobs(config),
        ]  # fmt: skip
        env = ENV | study.engine.env
        if not is_random:
            return Rendered(argv=tuple(argv), env=env)
        shapes = json.dumps(study.model.hf_config, indent=2, sort_keys=True) + "\n"
        init = WEIGHTS_INIT.format(study.weights_seed)
        return Rendered(files={"model_config.json": shapes}, argv=tuple(argv), env=env, weights_init=init)

    def places(self, config: EngineConfig, study: Study) -> dict[str, str]:
        """The model's folder, written first if its weights are random.

        Raises:
            ConfigError: If weights are missing; names the ways out.
        """
        is_random = study.weights == "random"
        folder = random_model_dir(study) if is_random else checkpoint_dir(study, config.precision.weights)
        return {"model": str(folder)}

    def ready_request(self, study: Study) -> dict[str, object]:
        """Two tokens after eight: a prefill and a decode step."""
        return {
            "model": study.model.name,
            "prompt": list(range(8)),
            "max_tokens": 2,
            "ignore_eos": True,
            "temperature": 0.0,
        }

    def preflight(self, rendered: Rendered, study: Study, places: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """Cannot tell without starting."""
        return None

    def tested_version(self, version: str) -> bool:
        """Flags, counters and log texts are those of 0.24."""
        return version.startswith(TESTED_VERSION)

    def doubts(self, config: EngineConfig, study: Study) -> Sequence[str]:  # noqa: ARG002  # no rule that only warns
        """None."""
        return ()

    def failure(self, log_lines: Sequence[str]) -> TrialStatus:
        """Out of memory, or start failed for any other reason."""
        return failure(log_lines)

    def advice(self, log_lines: Sequence[str]) -> str | None:  # noqa: ARG002  # its messages speak for themselves
        """None."""
        return None

    def effective_config(self, log_lines: Sequence[str]) -> dict[str, str]:
        """What vLLM logged that it resolved."""
        return effective_config(log_lines)

    def kernel_caches(self, environ: Mapping[str, str]) -> tuple[Path, ...]:
        """What PyTorch uses, and vLLM's own, which holds those of torch.compile and DeepGEMM too."""
        default = folder(environ, "XDG_CACHE_HOME", home_dir(environ) / ".cache") / "vllm"
        own = folder(environ, "VLLM_CACHE_ROOT", default)
        return cache_dirs(environ, own, folder(environ, "DG_JIT_CACHE_DIR", own / "deep_gemm"))

    def counters(self, url: str) -> CounterSample | None:
        """Its Prometheus metrics, which it always serves."""
        return read_counters(url, VLLM)

    def constant_weights(self, log_lines: Sequence[str]) -> int | None:
        """What our loader of random weights found; a checkpoint is not looked at."""
        return constant_weights(log_lines)


def _random_loader(seed: int) -> list[str]:
    """Flags for our loader of random weights; seed 0 is its default."""
    extra = ["--model-loader-extra-config", json.dumps({"seed": seed})] if seed else []
    return ["--load-format", "tpw_random", *extra]


def _precision(config: EngineConfig, study: Study) -> list[str]:
    """Flags for the formats of weights, activations and KV cache.

    Raises:
        ConfigError: If the model has no such weights, or vLLM no such KV cache.
    """
    asked, kv_cache = config.precision.weights, config.precision.kv_cache
    if kv_cache not in KV_CACHE_DTYPES:
        allowed = ", ".join(key for key in KV_CACHE_DTYPES if key)
        raise ConfigError(f"precision.kv_cache={kv_cache}: engine=vllm takes {allowed}")
    if study.weights == "random":
        given = _native_weights(study.model)
        if given != asked and (given, asked) != ("bf16", "fp8"):
            raise ConfigError(
                f"precision.weights={asked} with weights=random: model.hf_config of {study.model.name} describes "
                f"{given} weights; allowed: {'bf16, fp8' if given == 'bf16' else given}, or weights=checkpoint"
            )
    else:
        checkpoint_format = checkpoint_for(study.model, asked).format
        given = "bf16" if checkpoint_format == "bf16" else asked
    quantise = ["--quantization", "fp8"] if (given, asked) == ("bf16", "fp8") else []
    return ["--dtype", "bfloat16", *quantise, "--kv-cache-dtype", KV_CACHE_DTYPES[kv_cache]]


def _native_weights(model: Model) -> str:
    """The weights that vLLM makes for a model's Hugging Face config.

    Raises:
        ConfigError: If there is no config, or its weights cannot be drawn.
    """
    if model.hf_config is None:
        raise ConfigError(
            f"weights=random: model.hf_config of {model.name} is null, so its shapes are unknown; put the model's "
            "config.json there, or set weights=checkpoint"
        )
    method = (model.hf_config.get("quantization_config") or {}).get("quant_method")
    if method not in NATIVE_WEIGHTS:
        raise ConfigError(
            f"weights=random: model.hf_config of {model.name} has quant_method={method}, which is not drawn; allowed: "
            "none, mxfp4, fp8; or set weights=checkpoint"
        )
    return NATIVE_WEIGHTS[method]


def _parallelism(config: EngineConfig, model: Model) -> list[str]:
    """Flags for the layout over GPUs.

    Raises:
        ConfigError: If vLLM has no such layout.
    """
    layout = config.parallelism
    if layout.cp > 1 or layout.moe_tp is not None:
        raise ConfigError("parallelism.cp and parallelism.moe_tp are of engine=trtllm; leave them out with engine=vllm")
    if layout.attention_dp:
        raise ConfigError("parallelism.attention_dp=true: not supported with engine=vllm; set it to false")
    if layout.ep > 1 and model.num_experts == 0:
        raise ConfigError(f"parallelism.ep={layout.ep}: {model.name} has no experts; set it to 1")
    if layout.ep not in {1, layout.tp}:
        raise ConfigError(
            f"parallelism.ep={layout.ep}: vLLM spreads experts over all of tp or not; use 1 or {layout.tp}"
        )
    flags = ["--tensor-parallel-size", str(layout.tp), "--pipeline-parallel-size", str(layout.pp)]
    return [*flags, "--enable-expert-parallel"] if layout.ep > 1 else flags


def _batching(config: EngineConfig, study: Study) -> list[str]:
    """Flags for scheduler and KV cache.

    Raises:
        ConfigError: If the workload does not fit the model's context.
    """
    batching = config.batching
    prefix = "--enable-prefix-caching" if study.workload.shared_prefix_tokens else "--no-enable-prefix-caching"
    flags = ["--max-model-len", str(_max_model_len(study)), prefix]
    values = {
        "--max-num-seqs": batching.max_batch_size,
        "--max-num-batched-tokens": batching.max_num_tokens,
        "--gpu-memory-utilization": batching.kv_cache_fraction,
    }
    for flag, value in values.items():
        flags += [] if value is None else [flag, str(value)]
    if batching.chunked_prefill is not None:
        flags.append("--enable-chunked-prefill" if batching.chunked_prefill else "--no-enable-chunked-prefill")
    return flags


def _max_model_len(study: Study) -> int:
    """Tokens of context to provide for: what the workload can reach, and a margin.

    Raises:
        ConfigError: If that exceeds what the model can attend to.
    """
    reach, limit = study.workload.max_seq_len_tokens, study.model.max_context_tokens
    if reach > limit:
        raise ConfigError(f"workload={study.workload.name} reaches {reach} tokens; {study.model.name} takes {limit}")
    return min(limit, (-(-reach // MAX_MODEL_LEN_STEP) + 1) * MAX_MODEL_LEN_STEP)


def _knobs(config: EngineConfig) -> list[str]:
    """Flags for the knobs that are set.

    Raises:
        ConfigError: If a knob is unknown or has a value of another type.
    """
    flags = []
    for name, value in sorted(config.knobs.items()):
        _check_knob(name, value)
        option = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{option}" if value else f"--no-{option}")
        elif name == "cudagraph_capture_sizes":
            flags += [f"--{option}", *(str(load) for load in CONCURRENCY_GRID if load <= int(str(value)))]
        else:
            flags += [f"--{option}", str(value)]
    return flags


def _check_knob(name: str, value: Value) -> None:
    """Check name and type of a knob.

    Raises:
        ConfigError: If vLLM has no such knob, or the value is of another type or below 1.
    """
    if name not in KNOBS:
        raise ConfigError(f"engine.knobs.{name}: vllm has no such knob; allowed: {', '.join(sorted(KNOBS))}")
    kind = KNOBS[name]
    if type(value) is not kind or (isinstance(value, int) and not isinstance(value, bool) and value < 1):
        wanted = {bool: "true or false", int: "a whole number from 1 on", str: "a name as vLLM spells it"}[kind]
        raise ConfigError(f"engine.knobs.{name}={value}: takes {wanted}")
