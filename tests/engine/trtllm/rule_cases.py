"""For every rule of TensorRT-LLM one config that breaks it, and one as like it as can be that does not.

A config is a dict: names with a group of axes (parallelism, batching, precision) are axes, all others are knobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.engine_config import EngineConfig, Value
from pipeline.study import Study
from tests.builders import make_study

AXES = ("parallelism.", "batching.", "precision.")

Given = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One rule's pair.

    Attributes:
        breaks: Config that breaks it on `model` and `on`.
        spares: Near miss, there or on `else_model` and `else_on`.
    """

    breaks: Given
    spares: Given
    model: str = "gpt-oss-120b"
    on: str = "b200"
    workload: str = "chat_1k_1k"
    weights: str = "checkpoint"
    else_model: str | None = None
    else_on: str | None = None
    else_weights: str | None = None
    always: Given = field(default_factory=dict)


def config_of(given: Given) -> EngineConfig:
    """The config; weights are fp4 unless given."""
    values = {name if name.startswith(AXES) else f"engine.knobs.{name}": value for name, value in given.items()}
    return EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", **values})


def study_of(
    model: str = "gpt-oss-120b", hardware: str = "b200", workload: str = "chat_1k_1k", weights: str = "checkpoint"
) -> Study:
    """A study of TensorRT-LLM for the newest version."""
    return make_study(
        f"model={model}", f"hardware={hardware}", "engine=trtllm", "precision=auto", f"workload={workload}",
        "plan=quick", f"weights={weights}",
    )  # fmt: skip


BACKEND = "moe_config.backend"
TYPE = "speculative_config.decoding_type"
LENGTH = "speculative_config.max_draft_len"
MODEL = "speculative_config.speculative_model"
POLICY = "scheduler_config.capacity_scheduler_policy"
GRAPH = "cuda_graph_config.max_batch_size"
SIZES = "cuda_graph_config.batch_sizes"
PADDING = "cuda_graph_config.enable_padding"
BLOCK = "kv_cache_config.tokens_per_block"
TP4_ADP: Given = {"parallelism.tp": 4, "parallelism.attention_dp": True}
HELIX: Given = {"parallelism.cp": 2, "cp_config.cp_type": "HELIX", "cache_transceiver_config.backend": "UCX"}
FP8: Given = {"precision.weights": "fp8"}
EAGLE: Given = {TYPE: "Eagle3", LENGTH: 3}

LAYOUT = {
    "limits": Case(breaks={"stream_interval": 0}, spares={"stream_interval": 1}),
    "moe_tp": Case(
        always={"parallelism.tp": 8, "parallelism.ep": 2}, breaks={"parallelism.moe_tp": 2},
        spares={"parallelism.moe_tp": 4},
    ),
    "cp_type": Case(always={"parallelism.cp": 2}, breaks={"cp_config.cp_type": "RING"}, spares={}),
    "cp_ulysses": Case(breaks={"parallelism.cp": 2}, spares=HELIX),
    "helix_blocks": Case(always={**HELIX, BLOCK: 64}, breaks={"cp_config.tokens_per_block": 32},
                         spares={"cp_config.tokens_per_block": 64}),
    "helix_prompts": Case(always=HELIX, breaks={BLOCK: 1024}, spares={BLOCK: 512}),
    "helix_alone": Case(breaks={name: value for name, value in HELIX.items() if "transceiver" not in name},
                        spares=HELIX),
    "pp_partition": Case(always={"parallelism.pp": 2}, breaks={"pp_partition": (20, 15)},
                         spares={"pp_partition": (20, 16)}),
    "decode_graphs": Case(breaks={GRAPH: 255}, spares={GRAPH: 256}),
    "attention_dp_waits": Case(
        always={**TP4_ADP, "attention_dp_config.batching_wait_iters": -1},
        breaks={"attention_dp_config.enable_balance": True}, spares={"attention_dp_config.enable_balance": False},
    ),
    "attention_dp_dense": Case(breaks=TP4_ADP, spares=TP4_ADP, model="llama-3.3-70b", else_model="gpt-oss-120b"),
    "lm_head_tp": Case(always={"enable_lm_head_tp_in_adp": True, "parallelism.tp": 4}, breaks={}, spares=TP4_ADP),
    "attention_dp_unused": Case(always={"attention_dp_config.timeout_iters": 60}, breaks={}, spares=TP4_ADP),
    "batch_waits_with_attention_dp": Case(always={"batch_wait_timeout_iters": 4}, breaks=TP4_ADP,
                                          spares={"parallelism.tp": 4}),
    "graph_sizes": Case(always={SIZES: (1, 2, 256)}, breaks={GRAPH: 512}, spares={GRAPH: 256}),
    "encoder_graphs": Case(breaks={"cuda_graph_config.mode": "encode"}, spares={"cuda_graph_config.mode": "decode"}),
    "prompt_length": Case(workload="rag_8k_1k", breaks={"batching.max_num_tokens": 4096},
                          spares={"batching.max_num_tokens": 4096, "batching.chunked_prefill": True}),
    "max_seq_len": Case(breaks={"max_seq_len": 2047}, spares={"max_seq_len": 2048}),
    "chunking_policy": Case(always={"scheduler_config.context_chunking_policy": "EQUAL_PROGRESS"}, breaks={},
                            spares={"batching.chunked_prefill": True}),
    "dynamic_batch": Case(breaks={"scheduler_config.dynamic_batch_config.enable_batch_size_tuning": True}, spares={}),
    "static_batch": Case(breaks={POLICY: "STATIC_BATCH"}, spares={POLICY: "MAX_UTILIZATION"}),
    "serve_frontends": Case(always={"num_serve_frontends": 2}, breaks={"orchestrator_type": "ray"}, spares={}),
    "kv_nvfp4": Case(breaks={"precision.kv_cache": "nvfp4"}, spares={"precision.kv_cache": "nvfp4"}, on="h200",
                     else_on="b200"),
    "kv_nvfp4_scales": Case(breaks={"precision.kv_cache": "nvfp4"}, spares={"precision.kv_cache": "fp8"}),
    "tokens_per_block": Case(breaks={BLOCK: 48}, spares={BLOCK: 64}),
    "flash_mla": Case(breaks={**FP8, BLOCK: 32}, spares={**FP8, BLOCK: 64}, model="deepseek-r1", on="h200"),
    "host_cache": Case(always={"kv_cache_config.host_cache_size": 2**30}, breaks={},
                       spares={"kv_cache_config.enable_block_reuse": True}),
    "disk_cache": Case(always={"kv_cache_config.disk_cache_size": 2**30}, breaks={},
                       spares={"kv_cache_config.disk_cache_path": "/scratch"}),
    "flashinfer_reuse": Case(always={"kv_cache_config.enable_block_reuse": True}, breaks={"attn_backend": "FLASHINFER"},
                             spares={"attn_backend": "TRTLLM"}),
    "cross_attention": Case(breaks={"kv_cache_config.cross_kv_cache_fraction": 0.5}, spares={}),
    "kv_connector": Case(always={"kv_connector_config.connector_module": "mine"}, breaks={POLICY: "MAX_UTILIZATION"},
                         spares={POLICY: "GUARANTEED_NO_EVICT"}),
}  # fmt: skip

KERNELS = {
    "cute_dsl_bf16": Case(breaks={"use_cute_dsl_bf16_gemm": True}, spares={"use_cute_dsl_bf16_gemm": True}, on="h100",
                          else_on="b200"),
    "cute_dsl_fp8": Case(always={"use_cute_dsl_blockscaling_mm": True}, breaks={}, spares=FP8, model="deepseek-r1"),
    "nvfp4_gemm": Case(breaks={"nvfp4_gemm_config.allowed_backends": ()},
                       spares={"nvfp4_gemm_config.allowed_backends": ("cutlass",)}),
    "nvfp4_gemm_unused": Case(always={"nvfp4_gemm_config.allowed_backends": ("cutlass",)}, breaks=FP8, spares={},
                              model="deepseek-r1"),
    "quant_override": Case(breaks={"env.OVERRIDE_QUANT_ALGO": "W4A8_MXFP4_MXFP8"},
                           spares={"env.OVERRIDE_QUANT_ALGO": "W4A8_MXFP4_FP8"}, on="h200"),
    "quant_override_unused": Case(breaks={"env.OVERRIDE_QUANT_ALGO": "W4A16_MXFP4"},
                                  spares={"env.OVERRIDE_QUANT_ALGO": "W4A16_MXFP4"}, model="deepseek-r1",
                                  else_model="gpt-oss-120b"),
    "mla_skip_correction": Case(breaks={"enable_mla_skip_correction": True},
                                spares={"enable_mla_skip_correction": True}, else_model="deepseek-r1"),
    "mla_skip_threshold": Case(always={"precision.kv_cache": "fp8"}, breaks={"mla_skip_correction_threshold": 9.0},
                               spares={"mla_skip_correction_threshold": 8.0}, model="deepseek-r1"),
    "attention_backend": Case(breaks={"attn_backend": "FLASHINFER"}, spares={"attn_backend": "FLASHINFER"},
                              else_model="llama-3.3-70b"),
    "min_latency": Case(breaks={"enable_min_latency": True}, spares={"enable_min_latency": False}),
    "moe_backend": Case(breaks={BACKEND: "TRTLLM"}, spares={BACKEND: "TRTLLM"}, on="h200", else_on="b200"),
    "moe_backend_gpt_oss": Case(breaks={BACKEND: "MEGAMOE_DEEPGEMM"}, spares={BACKEND: "TRITON"}),
    "moe_backend_handed_over": Case(breaks={BACKEND: "DENSEGEMM"}, spares={BACKEND: "CUTLASS"}),
    "moe_backend_dropped": Case(breaks={BACKEND: "CUTLASS"}, spares={BACKEND: "TRITON"}, on="h200"),
    "moe_backend_uncertain": Case(breaks={BACKEND: "TRITON"}, spares={BACKEND: "TRITON"}, else_on="h200"),
    "moe_backend_auto": Case(always=FP8, breaks={}, spares={BACKEND: "DEEPGEMM"}, model="deepseek-r1"),
    "moe_backend_reference": Case(breaks={BACKEND: "VANILLA"}, spares={BACKEND: "CUTLASS"}, model="deepseek-r1"),
    "moe_combine": Case(always={"moe_config.use_low_precision_moe_combine": True, **TP4_ADP}, breaks=FP8, spares={},
                        model="deepseek-r1"),
    "moe_combine_unused": Case(always={"moe_config.use_low_precision_moe_combine": True}, breaks={"parallelism.tp": 4},
                               spares=TP4_ADP, model="deepseek-r1"),
    "moe_slots": Case(always={"parallelism.tp": 8, "parallelism.ep": 8},
                      breaks={"moe_config.load_balancer.num_slots": 260},
                      spares={"moe_config.load_balancer.num_slots": 288}, model="deepseek-r1"),
    "moe_balancer": Case(always={"moe_config.load_balancer.num_slots": 128}, breaks={BACKEND: "TRITON"},
                         spares={BACKEND: "TRTLLM"}),
    "moe_block_width": Case(always={**FP8, "parallelism.tp": 8}, breaks={}, spares={"parallelism.ep": 8},
                            model="qwen3-235b-a22b"),
    "moe_dense": Case(breaks={BACKEND: "CUTLASS"}, spares={}, model="llama-3.1-8b"),
    "allreduce_ub": Case(always={"parallelism.tp": 2, "allreduce_strategy": "UB"}, breaks={},
                         spares={"torch_compile_config.enable_userbuffers": True}),
    "allreduce_mnnvl": Case(breaks={"parallelism.tp": 8, "allreduce_strategy": "MNNVL"},
                            spares={"parallelism.tp": 8, "allreduce_strategy": "MNNVL"}, else_on="gb200_nvl72"),
    "allreduce_lowprecision": Case(always={"parallelism.tp": 2}, breaks={"allreduce_strategy": "LOWPRECISION"},
                                   spares={"allreduce_strategy": "NCCL_SYMMETRIC"}),
    "allreduce_alone": Case(always={"allreduce_strategy": "ONESHOT"}, breaks={}, spares={"parallelism.tp": 2}),
}  # fmt: skip

SPECULATION = {
    "speculation_untyped": Case(breaks={LENGTH: 3}, spares=EAGLE),
    "speculation_random_weights": Case(breaks=EAGLE, spares=EAGLE, weights="random", else_weights="checkpoint"),
    "speculation_not_served": Case(breaks={TYPE: "SaveState"}, spares={TYPE: "NGram", LENGTH: 3}),
    "speculation_length": Case(breaks={TYPE: "Eagle3"}, spares=EAGLE),
    "speculation_draft_model": Case(breaks={TYPE: "Draft_Target", LENGTH: 3},
                                    spares={TYPE: "Draft_Target", LENGTH: 3, MODEL: "openai/gpt-oss-20b"}),
    "mtp": Case(breaks={TYPE: "MTP"}, spares={TYPE: "MTP"}, else_model="deepseek-r1"),
    "speculation_cutoffs": Case(always={**EAGLE, "speculative_config.draft_len_schedule.4": 3},
                                breaks={"speculative_config.max_concurrency": 8},
                                spares={"speculative_config.draft_len_schedule.8": 1}),
    "speculation_padding": Case(always={**EAGLE, PADDING: False}, breaks={"speculative_config.max_concurrency": 8},
                                spares={}),
    "rejection_sampling": Case(always={LENGTH: 3, "speculative_config.use_rejection_sampling": True},
                               breaks={TYPE: "NGram"}, spares={TYPE: "Eagle3"}),
    "draft_tree": Case(always={**EAGLE, "speculative_config.use_dynamic_tree": True}, breaks={},
                       spares={"speculative_config.dynamic_tree_max_topK": 4}),
    "matching_drafts": Case(always={LENGTH: 3}, breaks={TYPE: "SA", "speculative_config.max_matching_ngram_size": 0},
                            spares={TYPE: "SA", "speculative_config.max_matching_ngram_size": -1}),
    "ngram_overlap": Case(always={TYPE: "NGram", LENGTH: 3}, breaks={}, spares={"disable_overlap_scheduler": True}),
    "old_eagle": Case(breaks={TYPE: "Eagle", LENGTH: 3}, spares=EAGLE),
}  # fmt: skip

PREFILL = "prefill_cuda_graph_backend"
SPARSE = "sparse_attention_config.algorithm"

MODES = {
    "model_kwargs": Case(breaks={"model_kwargs.num_hidden_layers": 2}, spares={}),
    "piecewise_graphs": Case(always={"torch_compile_config.enable_piecewise_cuda_graph": True},
                             breaks={PREFILL: "breakable"}, spares={PREFILL: "piecewise"}),
    "breakable_graphs": Case(always={"torch_compile_config.enable_inductor": False}, breaks={PREFILL: "breakable"},
                             spares={PREFILL: "piecewise"}),
    "capture_sizes": Case(always={PREFILL: "piecewise", "prefill_capture_num_tokens": (1024, 2048)},
                          breaks={"torch_compile_config.capture_num_tokens": (1024,)},
                          spares={"torch_compile_config.capture_num_tokens": (2048, 1024)}),
    "capture_unused": Case(always={"prefill_capture_num_tokens": (1024,)}, breaks={}, spares={PREFILL: "piecewise"}),
    "sparse_attention": Case(breaks={SPARSE: "dsa"}, spares={SPARSE: "skip_softmax"}),
    "sparse_attention_unknown": Case(breaks={SPARSE: "dsa"}, spares={SPARSE: "skip_softmax"}, model="deepseek-r1"),
    "encoder_only": Case(breaks={"encode_only": True}, spares={"encode_only": False}),
    "early_first_token": Case(always={"enable_early_first_token_response": True},
                              breaks={"disable_overlap_scheduler": True}, spares={}),
    "request_stats": Case(always={"enable_iter_req_stats": True}, breaks={}, spares={"enable_iter_perf_stats": True}),
    "beam_history": Case(always={"enable_speculative_beam_history_d2h": True},
                         breaks={"sampler_force_async_worker": True}, spares={"sampler_force_async_worker": False}),
    "ray_placement": Case(always={"ray_placement_config.defer_workers_init": True}, breaks={},
                          spares={"orchestrator_type": "ray"}),
}  # fmt: skip

CASES = LAYOUT | KERNELS | SPECULATION | MODES
"""By the rule's name."""
