"""Experts: which backend has kernels for which weights on which GPU.

Until mid-2026 `create_moe.py` took the backend it was told, but for three that hand unknown formats to CUTLASS with a
warning; an unsupported pair died while loading or at the first step. Since then `moe_resolution.py` hands every
unsupported layer to CUTLASS, and dies if CUTLASS cannot either. A config that runs CUTLASS under another name is the
same as one that says so: it is refused, but where NVIDIA's own recipes rely on it.
"""

from pipeline.engine.trtllm.rules.rule import Rule, any_knob, is_gpt_oss, knob, number, shown, text, weight_format
from pipeline.engine.trtllm.versions import NEWEST
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

BACKEND = "moe_config.backend"

KERNELS: dict[str, dict[str, frozenset[str]]] = {
    "CUTLASS": {
        "hopper": frozenset({"bf16", "fp8", "fp8_block", "mxfp4"}),
        "blackwell": frozenset({"bf16", "fp8", "nvfp4", "mxfp4"}),
    },
    "TRTLLM": {"blackwell": frozenset({"fp8_block", "nvfp4", "mxfp4"})},
    "CUTEDSL": {"blackwell": frozenset({"nvfp4", "fp8_block"})},
    "DEEPGEMM": {"blackwell": frozenset({"fp8_block"})},
    "DENSEGEMM": {"blackwell": frozenset({"nvfp4"})},
    "TRITON": {"hopper": frozenset({"bf16", "fp8", "mxfp4"}), "blackwell": frozenset({"mxfp4"})},
    "MARLIN": {"hopper": frozenset({"nvfp4"})},
    "MEGAMOE_DEEPGEMM": {"blackwell": frozenset({"mxfp4"})},
    "MEGAMOE_CUTEDSL": {"blackwell": frozenset({"nvfp4"})},
}
"""Formats by backend and GPU. Source: fused_moe/fused_moe_{cutlass,trtllm_gen,cute_dsl,deepgemm,densegemm,triton,
marlin}.py and mega_moe/*.py, can_implement, 2026. VANILLA, the reference, takes everything."""

HANDED_OVER = {
    "TRTLLM": frozenset({"bf16", "fp8"}),
    "CUTEDSL": frozenset({"bf16", "fp8", "mxfp4"}),
    "DENSEGEMM": frozenset({"bf16", "fp8", "fp8_block", "mxfp4"}),
}
"""Formats that a backend gives to CUTLASS in every version. Source: fused_moe/create_moe.py, get_moe_cls."""

UNCERTAIN = {
    ("TRITON", "blackwell", "mxfp4"): "newer releases have it for Hopper only, and run CUTLASS",
    ("CUTLASS", "hopper", "mxfp4"): "newer releases lack gpt-oss's biases there, and do not start",
    ("CUTEDSL", "blackwell", "fp8_block"): "newer releases have it for NVFP4 only, and do not start",
}
"""Pairs that versions differ on. Source: can_implement of the three, 2026."""

BALANCED = frozenset({"", "AUTO", "CUTLASS", "TRTLLM", "CUTEDSL", "DEEPGEMM", "DENSEGEMM", "WIDEEP"})
"""Backends that the load balancer works with. Source: fused_moe/create_moe.py, create_moe_backend."""

BEST = {"fp8_block": {"hopper": "CUTLASS", "blackwell": "TRTLLM"}, "mxfp4": {"hopper": "TRITON", "blackwell": "TRTLLM"}}
"""Backend to name in messages where CUTLASS is not it. Source: _torch/model_config.py, resolve_moe_backend."""


def _is_handed_over(backend: str, weights: str | None) -> bool:
    return weights in HANDED_OVER.get(backend, frozenset())


def _backend(config: EngineConfig, study: Study) -> str | None:
    backend, weights, arch = text(config, BACKEND), weight_format(config, study), study.hardware.arch
    if backend not in KERNELS or weights is None or study.model.num_experts == 0 or _is_handed_over(backend, weights):
        return None
    if weights in KERNELS[backend].get(arch, frozenset()):
        return None
    return (
        f"{shown(config, BACKEND)}: has no kernels for {weights} experts on {study.hardware.name} ({arch}); "
        f"use {BEST.get(weights, {}).get(arch, 'CUTLASS')} or AUTO"
    )


def _gpt_oss(config: EngineConfig, study: Study) -> str | None:
    backend = text(config, BACKEND)
    if is_gpt_oss(study) and backend in {"VANILLA", "DEEPGEMM", "MARLIN", "MEGAMOE_DEEPGEMM", "MEGAMOE_CUTEDSL"}:
        return (
            f"{shown(config, BACKEND)}: cannot compute the biases of {study.model.name}'s experts; "
            f"use {BEST['mxfp4'].get(study.hardware.arch, 'CUTLASS')} or AUTO"
        )
    return None


def _handed_over(config: EngineConfig, study: Study) -> str | None:
    backend, weights = text(config, BACKEND), weight_format(config, study)
    if study.model.num_experts and _is_handed_over(backend, weights):
        return f"{shown(config, BACKEND)}: runs CUTLASS for {weights} experts; use CUTLASS to say so"
    return None


def _uncertain(config: EngineConfig, study: Study) -> str | None:
    weights = weight_format(config, study) or ""
    reason = UNCERTAIN.get((text(config, BACKEND), study.hardware.arch, weights))
    if reason is not None and study.model.num_experts:
        return f"{shown(config, BACKEND)}: {reason}; use {BEST.get(weights, {}).get(study.hardware.arch)} or AUTO"
    return None


def _auto(config: EngineConfig, study: Study) -> str | None:
    is_auto = text(config, BACKEND, "AUTO") == "AUTO"
    if is_auto and weight_format(config, study) == "fp8_block" and study.hardware.arch == "blackwell":
        return (
            "engine.knobs.moe_config.backend=AUTO: means CUTLASS up to 1.2, which has no kernels for fp8_block "
            "experts on Blackwell; use TRTLLM or DEEPGEMM"
        )
    return None


def _reference(config: EngineConfig, _: Study) -> str | None:
    if text(config, BACKEND) == "VANILLA":
        return f"{shown(config, BACKEND)}: is the slow reference in PyTorch; use AUTO"
    return None


def _combine(config: EngineConfig, study: Study) -> str | None:
    name = "moe_config.use_low_precision_moe_combine"
    if knob(config, name) is True and weight_format(config, study) != "nvfp4":
        return f"{shown(config, name)}: is for NVFP4 experts only, not {weight_format(config, study)}; leave it out"
    return None


def _combine_unused(config: EngineConfig, _: Study) -> str | None:
    name = "moe_config.use_low_precision_moe_combine"
    if knob(config, name) is True and not (config.parallelism.attention_dp and config.parallelism.tp > 1):
        return (
            f"{shown(config, name)}: experts exchange tokens only with attention data parallelism; "
            "set parallelism.attention_dp=true, or leave it out"
        )
    return None


def _slots(config: EngineConfig, study: Study) -> str | None:
    name = "moe_config.load_balancer.num_slots"
    slots = number(config, name)
    if slots is None:
        return None
    if slots % config.parallelism.ep or slots < study.model.num_experts:
        return (
            f"{shown(config, name)}: every expert needs one of {study.model.num_experts} slots at least, and "
            f"ep={config.parallelism.ep} must divide them; choose a multiple from {study.model.num_experts} on"
        )
    return None


def _balancer(config: EngineConfig, _: Study) -> str | None:
    name = any_knob(config, "moe_config.load_balancer")
    if name is not None and text(config, BACKEND) not in BALANCED:
        return f"{shown(config, BACKEND)}: has no load balancer; use CUTLASS, TRTLLM, CUTEDSL, DEEPGEMM or DENSEGEMM"
    return None


def _block_width(config: EngineConfig, study: Study) -> str | None:
    layout, model = config.parallelism, study.model
    moe_tp = layout.moe_tp or max(layout.tp // layout.ep, 1)
    width = model.expert_intermediate_size
    if weight_format(config, study) == "fp8_block" and width and (width // moe_tp % 128 or width % moe_tp):
        return (
            f"parallelism.tp={layout.tp}: divides the experts' {width} columns by {moe_tp}, which cuts through blocks "
            "of 128 that share a scale; raise ep"
        )
    return None


def _dense(config: EngineConfig, study: Study) -> str | None:
    name = any_knob(config, "moe_config.")
    if name is not None and study.model.num_experts == 0:
        return f"{shown(config, name)}: {study.model.name} has no experts; leave it out"
    return None


RULES = (
    Rule(
        name="moe_backend", kind="refuses", check=_backend,
        source="fused_moe/create_moe.py until mid-2026, fused_moe/moe_resolution.py since; PR 7101 for Hopper",
    ),
    Rule(
        name="moe_backend_gpt_oss", kind="refuses", check=_gpt_oss,
        source="fused_moe/create_moe.py: bias and swiglu assertions; can_implement: swiglu_gptoss_style, newest",
    ),
    Rule(
        name="moe_backend_handed_over", kind="warns", check=_handed_over,
        source="fused_moe/create_moe.py, get_moe_cls, 1.1 to newest",
    ),
    Rule(
        name="moe_backend_dropped", kind="refuses", check=_uncertain, since=NEWEST,
        source="fused_moe/fused_moe_{triton,cutlass,cute_dsl}.py, can_implement, newest",
    ),
    Rule(
        name="moe_backend_uncertain", kind="warns", check=_uncertain, until=NEWEST,
        source="fused_moe/fused_moe_{triton,cutlass,cute_dsl}.py, can_implement, 2026",
    ),
    Rule(
        name="moe_backend_auto", kind="warns", check=_auto, until=NEWEST,
        source="_torch/model_config.py, resolve_moe_backend: FP8 block scales mean TRTLLM in newest, not in 1.2",
    ),
    Rule(
        name="moe_backend_reference", kind="warns", check=_reference,
        source="fused_moe/moe_resolution.py: reference implementation, never preferred",
    ),
    Rule(
        name="moe_combine", kind="warns", check=_combine,
        source="llmapi/llm_args.py, MoeConfig.use_low_precision_moe_combine, 1.1 to newest; NVIDIA's recipe for "
        "DeepSeek-V4 sets it all the same",
    ),
    Rule(
        name="moe_combine_unused", kind="warns", check=_combine_unused,
        source="fused_moe/communication/communication_factory.py, create_strategy, newest",
    ),
    Rule(
        name="moe_slots", kind="refuses", check=_slots,
        source="llmapi/llm_args.py, MoeLoadBalancerConfig.setup, 1.0 to newest",
    ),
    Rule(
        name="moe_balancer", kind="refuses", check=_balancer,
        source="fused_moe/create_moe.py, create_moe_backend, 1.2 to newest",
    ),
    Rule(
        name="moe_block_width", kind="warns", check=_block_width,
        source="_torch/model_config.py, load_hf_quant_config: FP8 block scales are 128 x 128",
    ),
    Rule(
        name="moe_dense", kind="warns", check=_dense,
        source="llmapi/llm_args.py, MoeConfig: read by expert layers only",
    ),
)  # fmt: skip
