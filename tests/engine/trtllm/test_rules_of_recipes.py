"""NVIDIA's own recipes break no rule on the GPU that they are for: a rule that refuses one is wrong.

Values copied from examples/configs of NVIDIA/TensorRT-LLM, licence Apache-2.0; `database` is measured, `curated` is
written by hand. Keys without influence on any rule (trust_remote_code, print_iter_log, max_seq_len's headroom) are left
out.
"""

import pytest

from pipeline.engine.trtllm.environment import problem
from pipeline.engine.trtllm.rules import broken_rule, doubts
from pipeline.engine_config import Value
from tests.engine.trtllm.rule_cases import config_of, study_of

Recipe = tuple[str, str, str, dict[str, Value]]

ADP: dict[str, Value] = {
    "attention_dp_config.batching_wait_iters": 0, "attention_dp_config.enable_balance": True,
    "attention_dp_config.timeout_iters": 60, "parallelism.attention_dp": True,
}  # fmt: skip

TP8: dict[str, Value] = {"parallelism.tp": 8, "parallelism.ep": 8}

GPT_OSS: dict[str, Value] = {
    "env.TRTLLM_ENABLE_PDL": 1, "cuda_graph_config.enable_padding": True, "batching.kv_cache_fraction": 0.85,
    "stream_interval": 20, "num_postprocess_workers": 4, "batching.max_num_tokens": 20000,
}  # fmt: skip

BLACKWELL: dict[str, Value] = {
    **GPT_OSS, "env.NCCL_GRAPH_REGISTER": 0, "moe_config.backend": "TRTLLM", "precision.kv_cache": "fp8",
}  # fmt: skip

HOPPER: dict[str, Value] = {**GPT_OSS, "moe_config.backend": "TRITON"}

MTP = "speculative_config.decoding_type"

RECIPES: dict[str, Recipe] = {
    "database gpt-oss-120b B200 1k1k_tp8_conc16384": (
        "gpt-oss-120b", "b200", "chat_1k_1k",
        {**BLACKWELL, **ADP, **TP8, "cuda_graph_config.max_batch_size": 16384, "max_seq_len": 2068},
    ),
    "database gpt-oss-120b B200 1k8k_tp2_conc64": (
        "gpt-oss-120b", "b200", "reasoning_1k_8k",
        {**BLACKWELL, "parallelism.tp": 2, "parallelism.ep": 2, "cuda_graph_config.max_batch_size": 64,
         "max_seq_len": 9236},
    ),
    "database gpt-oss-120b H200 8k1k_tp8_conc128": (
        "gpt-oss-120b", "h200", "rag_8k_1k",
        {**HOPPER, **TP8, "parallelism.attention_dp": True, "batching.max_batch_size": 16,
         "cuda_graph_config.max_batch_size": 16, "max_seq_len": 9236},
    ),
    "database gpt-oss-120b H200 1k1k_tp8_conc6144": (
        "gpt-oss-120b", "h200", "chat_1k_1k",
        {**HOPPER, **ADP, **TP8, "cuda_graph_config.max_batch_size": 6144, "max_seq_len": 2068},
    ),
    "database DeepSeek-R1-0528-FP4-v2 B200 1k1k_tp4_conc256": (
        "deepseek-r1", "b200", "chat_1k_1k",
        {**ADP, "parallelism.tp": 4, "parallelism.ep": 4, "batching.max_batch_size": 64,
         "cuda_graph_config.max_batch_size": 64, "cuda_graph_config.enable_padding": True, "precision.kv_cache": "fp8",
         "batching.kv_cache_fraction": 0.8, "moe_config.backend": "CUTLASS", MTP: "MTP",
         "speculative_config.max_draft_len": 1, "batching.max_num_tokens": 1216, "max_seq_len": 2304},
    ),
    "database DeepSeek-R1-0528 H200 1k1k_tp8_conc64": (
        "deepseek-r1", "h200", "chat_1k_1k",
        {**TP8, "precision.weights": "fp8", "batching.max_batch_size": 64, "cuda_graph_config.max_batch_size": 128,
         "cuda_graph_config.enable_padding": True, "precision.kv_cache": "fp8", "batching.kv_cache_fraction": 0.75,
         "moe_config.backend": "CUTLASS", MTP: "MTP", "speculative_config.max_draft_len": 3,
         "batching.max_num_tokens": 1344, "max_seq_len": 2304},
    ),
    "curated deepseek-r1-deepgemm": (
        "deepseek-r1", "b200", "chat_1k_1k",
        {**TP8, "precision.weights": "fp8", "parallelism.attention_dp": True, "batching.max_batch_size": 1024,
         "batching.max_num_tokens": 3200, "cuda_graph_config.max_batch_size": 128,
         "cuda_graph_config.enable_padding": True, "precision.kv_cache": "fp8", "batching.kv_cache_fraction": 0.8,
         MTP: "MTP", "speculative_config.num_nextn_predict_layers": 1, "moe_config.backend": "DEEPGEMM",
         "moe_config.max_num_tokens": 3200},
    ),
    "curated gpt-oss-120b-throughput": (
        "gpt-oss-120b", "b200", "chat_1k_1k",
        {"parallelism.tp": 2, "parallelism.ep": 2, "parallelism.attention_dp": True, "batching.max_batch_size": 720,
         "batching.max_num_tokens": 16384, "cuda_graph_config.max_batch_size": 720, "moe_config.backend": "TRTLLM",
         "cuda_graph_config.enable_padding": True, "stream_interval": 20, "num_postprocess_workers": 4,
         "attention_dp_config.enable_balance": True, "attention_dp_config.batching_wait_iters": 50,
         "attention_dp_config.timeout_iters": 1},
    ),
    "curated llama-3.3-70b": (
        "llama-3.3-70b", "b200", "chat_1k_1k",
        {"precision.weights": "fp8", "batching.max_batch_size": 1024, "batching.max_num_tokens": 2048,
         "cuda_graph_config.max_batch_size": 1024, "cuda_graph_config.enable_padding": True,
         "precision.kv_cache": "fp8", "batching.kv_cache_fraction": 0.9},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_breaks_no_rule_on_its_gpu(name: str) -> None:
    model, hardware, workload, given = RECIPES[name]
    assert broken_rule(config_of(given), study_of(model, hardware, workload)) is None


@pytest.mark.parametrize("name", [name for name in RECIPES if "1k8k_tp2_conc64" not in name])
def test_nothing_in_doubt_at_the_loads_that_it_is_for(name: str) -> None:
    model, hardware, workload, given = RECIPES[name]
    assert doubts(config_of(given), study_of(model, hardware, workload)) == []


def test_a_recipe_for_a_light_load_is_in_doubt_under_a_heavy_one() -> None:
    model, hardware, workload, given = RECIPES["database gpt-oss-120b B200 1k8k_tp2_conc64"]
    (doubt,) = doubts(config_of(given), study_of(model, hardware, workload))
    assert "set cuda_graph_config.max_batch_size=256" in doubt


@pytest.mark.parametrize("name", ["database gpt-oss-120b B200 1k1k_tp8_conc16384"])
def test_the_same_recipe_on_hopper_is_refused_for_its_kernels(name: str) -> None:
    model, _, workload, given = RECIPES[name]
    reason = broken_rule(config_of(given), study_of(model, "h200", workload))
    assert reason is not None
    assert reason.startswith("engine.knobs.moe_config.backend=TRTLLM: has no kernels for mxfp4 experts on h200")


@pytest.mark.parametrize("name", RECIPES)
def test_its_environment_is_worth_turning(name: str) -> None:
    for key, value in RECIPES[name][3].items():
        assert not key.startswith("env.") or problem(key, value) is None
