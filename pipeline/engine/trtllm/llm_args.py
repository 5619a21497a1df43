"""What a config becomes in TensorRT-LLM's YAML file: the arguments of its `TorchLlmArgs`, axes and knobs together.

A knob's name is the dotted path of its argument, so that a recipe of NVIDIA's is a config. Two forms are special:
`cuda_graph_config` false switches CUDA graphs off, and `env.NAME` is no argument but a variable of the environment.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.engine.trtllm.manifest import Manifest, find_manifest
from pipeline.engine.trtllm.versions import name_in
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.study import Study

AXES = {
    "tensor_parallel_size": "parallelism.tp",
    "pipeline_parallel_size": "parallelism.pp",
    "context_parallel_size": "parallelism.cp",
    "moe_expert_parallel_size": "parallelism.ep",
    "moe_tensor_parallel_size": "parallelism.moe_tp",
    "enable_attention_dp": "parallelism.attention_dp",
    "max_batch_size": "batching.max_batch_size",
    "max_num_tokens": "batching.max_num_tokens",
    "enable_chunked_prefill": "batching.chunked_prefill",
    "kv_cache_config.free_gpu_memory_fraction": "batching.kv_cache_fraction",
    "kv_cache_config.dtype": "precision.kv_cache",
    "model": "model.path",
    "load_format": "weights",
    "backend": "engine",
    "env_overrides": "engine.knobs.env.NAME",
}
"""Arguments that are no knobs, and what sets them."""

ALIASES = {"moe_backend": "moe_config.backend", "cuda_graph_max_batch_size": "cuda_graph_config.max_batch_size"}
"""Earlier names of two knobs."""

ENV = "env."
"""Knobs of this prefix are environment variables of the server."""

GRAPHS = "cuda_graph_config"
DECODING_TYPE = "speculative_config.decoding_type"
DRAFT = "speculative_config.speculative_model"
NEEDS_DRAFT = frozenset({"Eagle3", "Eagle", "Draft_Target", "PARD", "DFlash"})
WITHOUT_DRAFT = frozenset({"MTP", "NGram", "SA"})
"""Ways to speculate that draft with a model of their own, and with none. Source: llmapi/llm_args.py."""

KV_CACHE_DTYPES = {None: "auto", "auto": "auto", "bf16": "auto", "fp8": "fp8", "nvfp4": "nvfp4"}
"""auto is what the checkpoint says, else its activations' type. Any other is refused as the model loads:
_torch/pyexecutor/model_loader.py, validate_and_set_kv_cache_quant."""

INSTRUMENTS: dict[str, Value] = {
    "enable_energy_metrics": True,  # /energy_metrics, PR 11855
    "enable_iter_perf_stats": True,  # gauges of /prometheus/metrics
    "return_perf_metrics": True,  # /prometheus/metrics
}
"""Where a version has them, and the study asks for them."""


def llm_args(config: EngineConfig, study: Study) -> dict[str, Any]:
    """The YAML file's content: only what is set, or must not be left to a default.

    Under attention data parallelism TensorRT-LLM takes `max_batch_size` per rank, and so does ours. A draft model is
    the placeholder {draft_model}.

    Raises:
        ConfigError: If the version has no such argument, or does not take the value.
    """
    manifest = find_manifest(study.engine.version)
    knobs = yaml_knobs(config)
    if not study.engine.allow_unknown:
        _check(knobs, config, manifest)
    decoding_type = knobs.get(DECODING_TYPE)
    flat = _axes(config, study) | _defaults(config, study, knobs, manifest) | knobs
    if draft_model(config, study) is not None:
        flat[DRAFT] = "{draft_model}"
    args: dict[str, Any] = {}
    for key, value in flat.items():
        if value is not None:
            _put(args, name_in(manifest.version, key, decoding_type), value)
    if knobs.get(GRAPHS) is False:
        args[GRAPHS] = None
    return args


def yaml_knobs(config: EngineConfig) -> dict[str, Value]:
    """The knobs that are arguments, under their present names, sorted.

    Raises:
        ConfigError: If one is given under two names, or is set by an axis.
    """
    knobs: dict[str, Value] = {}
    for given in sorted(config.knobs):
        name = ALIASES.get(given, given)
        if name in knobs:
            raise ConfigError(f"engine.knobs.{given}: is {name} by an earlier name, which is set too; give one of them")
        if (owner := AXES.get(name) or AXES.get(name.partition(".")[0])) is not None:
            raise ConfigError(f"engine.knobs.{name}: is no knob here; set {owner}")
        if not name.startswith(ENV):
            knobs[name] = config.knobs[given]
    inner = [name for name in knobs if name.startswith(f"{GRAPHS}.")]
    if GRAPHS in knobs and inner:
        raise ConfigError(f"engine.knobs.{GRAPHS}={_word(knobs[GRAPHS])}: and {inner[0]} is set too; leave one out")
    return knobs


def draft_model(config: EngineConfig, study: Study) -> str | None:
    """Repository or folder of the model that drafts; None where none does.

    Raises:
        ConfigError: If the way to speculate needs one and none is known, or has no use for the one given.
    """
    given, decoding_type = config.knobs.get(DRAFT), config.knobs.get(DECODING_TYPE)
    if given is not None and decoding_type in WITHOUT_DRAFT:
        raise ConfigError(f"engine.knobs.{DRAFT}={given}: {decoding_type} needs no draft model; leave it out")
    if given is None and decoding_type in NEEDS_DRAFT:
        given = study.model.draft_models.get(str(decoding_type))
        if given is None:
            raise ConfigError(
                f"engine.knobs.{DECODING_TYPE}={decoding_type}: needs a draft model, and model.draft_models of "
                f"{study.model.name} has none for it; set engine.knobs.{DRAFT} to a repository or a folder"
            )
    return None if given is None else str(given)


def leaves(args: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything that a file's content sets."""
    for key, value in args.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _axes(config: EngineConfig, study: Study) -> dict[str, Value | None]:
    layout, batching, kv_cache = config.parallelism, config.batching, config.precision.kv_cache
    if kv_cache not in KV_CACHE_DTYPES:
        allowed = ", ".join(key for key in KV_CACHE_DTYPES if key)
        raise ConfigError(f"precision.kv_cache={kv_cache}: engine=trtllm takes {allowed}")
    return {
        "tensor_parallel_size": layout.tp,
        "pipeline_parallel_size": layout.pp,
        "context_parallel_size": layout.cp if layout.cp > 1 else None,
        "moe_expert_parallel_size": layout.ep if layout.ep > 1 or layout.moe_tp is not None else None,
        "moe_tensor_parallel_size": layout.moe_tp,
        "enable_attention_dp": layout.attention_dp or None,
        "max_batch_size": batching.max_batch_size,
        "max_num_tokens": batching.max_num_tokens,
        "kv_cache_config.dtype": KV_CACHE_DTYPES[kv_cache],
        "kv_cache_config.free_gpu_memory_fraction": batching.kv_cache_fraction,
        "enable_chunked_prefill": batching.chunked_prefill,
        "load_format": "dummy" if study.weights == "random" else None,
    }


def _defaults(
    config: EngineConfig, study: Study, knobs: Mapping[str, Value], manifest: Manifest
) -> dict[str, Value | None]:
    """What every config gets unless a knob says otherwise."""
    args: dict[str, Value | None] = {
        "max_seq_len": study.workload.max_seq_len_tokens,
        "stream_interval": 1,
        "kv_cache_config.enable_block_reuse": study.workload.shared_prefix_tokens > 0,
    }
    if knobs.get(f"{GRAPHS}.enable_padding") is True and f"{GRAPHS}.batch_sizes" not in knobs:
        # TensorRT-LLM's own largest graph is 128, whatever the batch: llmapi/llm_args.py, CudaGraphConfig
        args[f"{GRAPHS}.max_batch_size"] = config.batching.max_batch_size
    known = {"telemetry_config.disabled": True} | (INSTRUMENTS if study.engine.instrumented else {})
    return args | {key: value for key, value in known.items() if key in manifest.arguments}


def _check(knobs: Mapping[str, Value], config: EngineConfig, manifest: Manifest) -> None:
    for name, value in knobs.items():
        key = name_in(manifest.version, name, knobs.get(DECODING_TYPE))
        if not (name == GRAPHS and value is False) and (problem := manifest.problem(key, value)) is not None:
            given = next((old for old, new in ALIASES.items() if new == name and old in config.knobs), key)
            problem = given + problem.removeprefix(key)
            raise ConfigError(f"engine.knobs.{problem}; engine.allow_unknown=true passes it on")


def _put(args: dict[str, Any], key: str, value: Value) -> None:
    *groups, name = key.split(".")
    for group in groups:
        args = args.setdefault(group, {})
        if not isinstance(args, dict):
            raise ConfigError(f"engine.knobs.{key}={_word(value)}: and {group} itself is set too; leave one out")
    args[name] = list(value) if isinstance(value, tuple) else value


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
