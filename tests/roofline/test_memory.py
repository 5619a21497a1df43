import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine_config import Batching
from pipeline.errors import ConfigError
from pipeline.roofline.memory import (
    device_weight_bytes,
    fits,
    kv_bytes,
    kv_capacity_tokens,
    kv_pool_bytes,
    requests_that_fit,
    weight_bytes,
)
from tests.roofline import facts


@given(st.sampled_from(facts.RUNNABLE), st.booleans(), st.sampled_from((1, 2, 4)))
def test_more_tensor_parallelism_means_fewer_weight_bytes_per_device(
    case: tuple[str, str, str], attention_dp: bool, tp: int
) -> None:
    model = facts.model(case[0])
    narrow = facts.engine_config(case[1], tp, attention_dp=attention_dp)
    wide = facts.engine_config(case[1], 2 * tp, attention_dp=attention_dp)
    assert device_weight_bytes(model, wide) < device_weight_bytes(model, narrow)


@given(st.sampled_from(facts.RUNNABLE), st.sampled_from((1, 2, 4, 8)), st.sampled_from((1, 2)))
def test_without_replication_the_devices_hold_one_checkpoint(case: tuple[str, str, str], tp: int, pp: int) -> None:
    model = facts.model(case[0])
    per_device = device_weight_bytes(model, facts.engine_config(case[1], tp, pp=pp))
    assert per_device * tp * pp == pytest.approx(model.checkpoints[case[1]].weight_bytes)


def test_attention_data_parallelism_replicates_attention_and_embeddings_only() -> None:
    model = facts.model("deepseek-r1")
    shared, replicated = (facts.engine_config("fp4", 8, attention_dp=adp) for adp in (False, True))
    part = weight_bytes(model, shared)
    own = part.attention + part.embedding + part.output
    assert device_weight_bytes(model, replicated) - device_weight_bytes(model, shared) == pytest.approx(own * 7 / 8)


def test_a_latent_cache_is_far_smaller_than_one_of_heads() -> None:
    model = facts.model("deepseek-r1")
    config = facts.engine_config("fp8")
    heads = dataclasses.replace(model, mla_kv_dim=None)
    assert kv_bytes(model, config, 4096) < kv_bytes(heads, config, 4096) / 50


def test_kv_bytes_of_known_models() -> None:
    # 2 (K and V) x 8 heads x 128 x 32 layers x 2 bytes; 576 x 61 layers x 2 bytes.
    assert kv_bytes(facts.model("llama-3.1-8b"), facts.engine_config("bf16"), 1) == 131_072
    assert kv_bytes(facts.model("deepseek-r1"), facts.engine_config("fp8"), 1) == 70_272


def test_kv_heads_are_spread_over_ranks_but_never_split() -> None:
    model = facts.model("qwen3-235b-a22b")
    per_device = [kv_bytes(model, facts.engine_config("bf16", tp), 1000) for tp in (1, 2, 4, 8)]
    assert per_device[0] == 2 * per_device[1] == 4 * per_device[2]
    assert per_device[3] == per_device[2]


def test_a_latent_is_held_once_per_request_only_with_attention_data_parallelism() -> None:
    model, gpu = facts.model("deepseek-r1"), facts.hardware("b200")
    shared, spread = (facts.engine_config("fp4", 8, attention_dp=adp) for adp in (False, True))
    assert kv_capacity_tokens(model, gpu, spread) > 3 * kv_capacity_tokens(model, gpu, shared)


@pytest.mark.parametrize(("engine", "follows"), [("trtllm", True), ("vllm", False)])
def test_cache_format_follows_the_checkpoint_where_the_engine_does_unless_set(engine: str, *, follows: bool) -> None:
    model = facts.model("llama-3.1-8b")
    auto, bf16, fp8 = (
        [kv_bytes(model, facts.engine_config(p, kv_cache=kind, engine=engine), 1) for p in ("bf16", "fp8", "fp4")]
        for kind in ("auto", "bf16", "fp8")
    )
    assert auto == ([bf16[0], *fp8[1:]] if follows else bf16)
    assert fp8[0] == bf16[0] / 2


def test_unknown_cache_format_names_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"precision\.kv_cache=int3: allowed are auto, .*fp8"):
        kv_bytes(facts.model("llama-3.1-8b"), facts.engine_config("bf16", kv_cache="int3"), 1)


def test_missing_precision_names_what_the_model_has() -> None:
    with pytest.raises(ConfigError, match=r"precision\.weights=bf16: gpt-oss-20b has weights in fp4"):
        weight_bytes(facts.model("gpt-oss-20b"), facts.engine_config("bf16"))


def test_what_is_known_to_fit_fits_and_the_rest_says_why_not() -> None:
    h100, load = facts.hardware("h100"), facts.workload()
    assert fits(facts.model("gpt-oss-120b"), h100, facts.engine_config("fp4"), load) is None
    assert fits(facts.model("llama-3.3-70b"), h100, facts.engine_config("bf16", 4), load) is None
    reason = fits(facts.model("llama-3.3-70b"), h100, facts.engine_config("bf16"), load)
    assert reason is not None
    assert "141.1 GB of weights" in reason
    assert "85.5 GB" in reason
    assert reason.endswith("; raise parallelism.tp or pp, or take a smaller precision.weights")


def test_a_context_longer_than_the_cache_does_not_fit() -> None:
    model, h100 = facts.model("gpt-oss-120b"), facts.hardware("h100")
    config = facts.engine_config("fp4", batching=Batching(max_num_tokens=16384, kv_cache_fraction=0.83))
    assert fits(model, h100, config, facts.workload(512, 512)) is None
    assert "one request of 131072 tokens" in str(fits(model, h100, config, facts.workload(65536, 65536)))


@given(st.floats(0.5, 0.9), st.floats(0.01, 0.1), st.sampled_from(("trtllm", "vllm")))
def test_a_larger_share_of_memory_holds_more(fraction: float, more: float, engine: str) -> None:
    model, gpu = facts.model("llama-3.1-8b"), facts.hardware("h100")
    small, large = (
        kv_pool_bytes(
            model, gpu, facts.engine_config("bf16", engine=engine, batching=Batching(kv_cache_fraction=share))
        )
        for share in (fraction, fraction + more)
    )
    assert small < large < 85.6e9


def test_an_engine_that_reserves_full_length_runs_fewer_requests_at_once() -> None:
    model, gpu, load = facts.model("llama-3.1-8b"), facts.hardware("h100"), facts.workload(256, 4096, 1.0)
    reserving, growing = (
        requests_that_fit(model, gpu, facts.engine_config("bf16", engine=engine), load) for engine in ("trtllm", "vllm")
    )
    assert 0 < reserving < growing


def test_a_cpu_and_an_unknown_engine_are_refused_with_a_way_out() -> None:
    model, config = facts.model("llama-3.1-8b"), facts.engine_config("bf16")
    with pytest.raises(ConfigError, match=r"hardware\.memory_bytes is not set for cpu.*hardware=h100"):
        kv_pool_bytes(model, facts.hardware("cpu"), config)
    with pytest.raises(ConfigError, match=r"engine\.name=openvino cannot be modelled.*trtllm, vllm"):
        kv_pool_bytes(model, facts.hardware("h100"), dataclasses.replace(config, engine="openvino"))
