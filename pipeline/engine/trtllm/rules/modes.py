"""Ways of running: torch.compile and graphs of prefill, sparse attention, encoders, early answers."""

from pipeline.engine.trtllm.rules.rule import Rule, any_knob, knob, shown, text
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

PREFILL = "prefill_cuda_graph_backend"

PIECEWISE = "torch_compile_config.enable_piecewise_cuda_graph"

TRAINED_SPARSE = {
    "DSA": ("DeepseekV32", "GlmMoeDsa"),
    "DEEPSEEK_V4": ("DeepseekV4",),
    "MINIMAX_M3": ("MiniMaxM3",),
    "QSA": ("Qwen",),
}
"""Sparse attention that the model itself was trained for, and the architectures that have its indexer."""


def _piecewise(config: EngineConfig, _: Study) -> str | None:
    backend = text(config, PREFILL)
    if knob(config, PIECEWISE) is True and backend not in {"", "PIECEWISE"}:
        return f"{shown(config, PIECEWISE)}: {PREFILL} is {backend.lower()}; set {PREFILL}=piecewise and leave it out"
    return None


def _breakable(config: EngineConfig, _: Study) -> str | None:
    compiled = any_knob(config, "torch_compile_config.")
    if text(config, PREFILL) != "BREAKABLE":
        return None
    if compiled is not None:
        return f"{shown(config, PREFILL)}: does not go with torch.compile; leave {compiled} out, or use piecewise"
    if knob(config, "enable_lora") is True or any_knob(config, "lora_config.") is not None:
        return f"{shown(config, PREFILL)}: does not go with LoRA; use piecewise"
    return None


def _capture_sizes(config: EngineConfig, _: Study) -> str | None:
    old, new = knob(config, "torch_compile_config.capture_num_tokens"), knob(config, "prefill_capture_num_tokens")
    if isinstance(old, tuple) and isinstance(new, tuple) and set(old) != set(new):
        return (
            f"{shown(config, 'prefill_capture_num_tokens')}: torch_compile_config.capture_num_tokens says otherwise; "
            "leave the latter out"
        )
    return None


def _capture_unused(config: EngineConfig, _: Study) -> str | None:
    is_captured = text(config, PREFILL, "DISABLED") != "DISABLED" or knob(config, PIECEWISE) is True
    for name in ("prefill_capture_num_tokens", "torch_compile_config.capture_num_tokens"):
        if knob(config, name) is not None and not is_captured:
            return f"{shown(config, name)}: has no effect without graphs of prefill; set {PREFILL}=piecewise"
    return None


def _fits_sparse(study: Study, algorithm: str) -> bool | None:
    """Whether a model has what trained sparse attention needs; None where its architecture is not known."""
    known = (study.model.hf_config or {}).get("architectures")
    wanted = TRAINED_SPARSE.get(algorithm)
    if wanted is None:
        return True
    return None if not known else any(str(name).startswith(wanted) for name in known)


def _sparse(config: EngineConfig, study: Study) -> str | None:
    name = "sparse_attention_config.algorithm"
    algorithm = text(config, name)
    if any_knob(config, "sparse_attention_config.") is not None and not algorithm:
        return f"engine.knobs.{any_knob(config, 'sparse_attention_config.')}: of which algorithm? set {name} too"
    if _fits_sparse(study, algorithm) is False:
        return (
            f"{shown(config, name)}: {study.model.name} has no indexer of that kind; leave it out, or use skip_softmax"
        )
    return None


def _sparse_unknown(config: EngineConfig, study: Study) -> str | None:
    name = "sparse_attention_config.algorithm"
    if _fits_sparse(study, text(config, name)) is None:
        return f"{shown(config, name)}: only a model trained with it has its indexer; leave it out unless this one has"
    if knob(config, "sparse_attention_config.target_sparsity") is not None:
        return (
            f"{shown(config, 'sparse_attention_config.target_sparsity')}: needs coefficients in the checkpoint's "
            "config.json; use threshold_scale_factor where it has none"
        )
    return None


def _encoder(config: EngineConfig, _: Study) -> str | None:
    for name in ("encode_only", "mm_encoder_only"):
        if knob(config, name) is True:
            return f"{shown(config, name)}: then it generates no text; leave it out"
    return None


def _early_token(config: EngineConfig, _: Study) -> str | None:
    name = "enable_early_first_token_response"
    if knob(config, name) is not True:
        return None
    if knob(config, "disable_overlap_scheduler") is True:
        return f"{shown(config, name)}: has no effect without the overlap scheduler; leave one of the two out"
    if knob(config, "cache_transceiver_config.backend") is not None:
        return f"{shown(config, name)}: has no effect on disaggregated servers; leave it out"
    return None


def _req_stats(config: EngineConfig, _: Study) -> str | None:
    if knob(config, "enable_iter_req_stats") is True and knob(config, "enable_iter_perf_stats") is not True:
        return f"{shown(config, 'enable_iter_req_stats')}: has no effect alone; set enable_iter_perf_stats=true too"
    return None


def _beam_history(config: EngineConfig, _: Study) -> str | None:
    name = "enable_speculative_beam_history_d2h"
    if knob(config, name) is True and knob(config, "sampler_force_async_worker") is True:
        return f"{shown(config, name)}: goes past the asynchronous sampler; leave sampler_force_async_worker out"
    return None


def _ray(config: EngineConfig, _: Study) -> str | None:
    name = any_knob(config, "ray_placement_config.")
    if name is not None and text(config, "orchestrator_type") != "RAY":
        return f"{shown(config, name)}: needs orchestrator_type=ray; leave it out"
    return None


def _model_kwargs(config: EngineConfig, study: Study) -> str | None:
    name = any_knob(config, "model_kwargs.")
    if name is not None:
        return f"{shown(config, name)}: makes another model of {study.model.name}; leave it out"
    return None


RULES = (
    Rule(
        name="model_kwargs", kind="refuses", check=_model_kwargs,
        source="llmapi/llm_args.py, BaseLlmArgs.model_kwargs: overrides the model's own config, 1.0 to newest",
    ),
    Rule(
        name="piecewise_graphs", kind="refuses", check=_piecewise,
        source="llmapi/llm_args.py, normalize_prefill_cuda_graph_config, newest",
    ),
    Rule(
        name="breakable_graphs", kind="refuses", check=_breakable,
        source="llmapi/llm_args.py, normalize_prefill_cuda_graph_config, newest",
    ),
    Rule(
        name="capture_sizes", kind="refuses", check=_capture_sizes,
        source="llmapi/llm_args.py, normalize_prefill_cuda_graph_config, newest",
    ),
    Rule(
        name="capture_unused", kind="warns", check=_capture_unused,
        source="llmapi/llm_args.py, normalize_prefill_cuda_graph_config, newest",
    ),
    Rule(
        name="sparse_attention", kind="refuses", check=_sparse,
        source="llmapi/llm_args.py, SparseAttentionConfig and QSASparseAttentionConfig.to_sparse_params, newest",
    ),
    Rule(
        name="sparse_attention_unknown", kind="warns", check=_sparse_unknown,
        source="llmapi/llm_args.py, SkipSoftmaxAttentionConfig.to_sparse_params and SparseAttentionConfig, newest",
    ),
    Rule(
        name="encoder_only", kind="refuses", check=_encoder,
        source="llmapi/llm_args.py, TorchLlmArgs.encode_only and mm_encoder_only, newest",
    ),
    Rule(
        name="early_first_token", kind="warns", check=_early_token,
        source="llmapi/llm_args.py, validate_early_first_token_response, newest",
    ),
    Rule(
        name="request_stats", kind="warns", check=_req_stats,
        source="llmapi/llm_args.py, TorchLlmArgs.enable_iter_req_stats, newest",
    ),
    Rule(
        name="beam_history", kind="refuses", check=_beam_history,
        source="llmapi/llm_args.py, validate_speculative_beam_history_d2h, newest",
    ),
    Rule(
        name="ray_placement", kind="refuses", check=_ray,
        source="llmapi/llm_args.py, validate_ray_placement_config, newest",
    ),
)  # fmt: skip
