"""What aiconfigurator is asked, and what its answers become with our watts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine_config import EngineConfig
from pipeline.roofline.aiconfigurator import Answer, at_speed, combined, disagreement, request
from tests.search.prior_cases import asked, config, prediction, study

positive = st.floats(1e-3, 1e6)


@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.sampled_from([1, 2]),
    ep=st.sampled_from([1, 2, 4, 8]),
    attention_dp=st.booleans(),
    num_running=st.integers(1, 4096),
    max_num_tokens=st.integers(1, 16384),
)
def test_a_request_covers_the_devices_and_the_requests_that_run(
    tp: int, pp: int, ep: int, attention_dp: bool, num_running: int, max_num_tokens: int
) -> None:
    of = config(tp=tp, pp=pp, ep=min(ep, tp), attention_dp=attention_dp, max_num_tokens=max_num_tokens)
    found = asked(study(), of, num_running)
    assert found.tp * found.attention_dp * found.pp == of.parallelism.num_gpus
    assert found.ep is not None
    assert found.moe_tp is not None
    assert found.ep * found.moe_tp == tp
    assert num_running <= found.num_running < num_running + found.attention_dp * pp
    assert 1 <= found.prompt_tokens <= max_num_tokens


def test_prompts_fill_an_iteration_as_they_arrive() -> None:
    held = study()
    assert asked(held, config(), 64).prompt_tokens == asked(held, config(), 64).isl_tokens == 922
    assert asked(held, config(), 2 * 922).prompt_tokens == 2 * 922
    assert asked(held, config(max_num_tokens=512), 64).prompt_tokens == 512 - 64


@pytest.mark.parametrize(
    ("hardware", "kv_cache", "experts", "kv_name"),
    [("h100", "auto", "w4a16_mxfp4", "bfloat16"), ("b200", "fp8", "w4a8_mxfp4_mxfp8", "fp8")],
)
def test_formats_are_those_that_the_gpu_computes_in(hardware: str, kv_cache: str, experts: str, kv_name: str) -> None:
    found = asked(study(f"hardware={hardware}"), config(kv_cache=kv_cache))
    assert (found.linear, found.experts, found.kv_cache) == ("bfloat16", experts, kv_name)


@pytest.mark.parametrize("overrides", ["hardware.power_cap_w=500", "hardware.sm_clock_share=0.8"])
def test_power_states_are_not_asked_about(overrides: str) -> None:
    held = study(overrides)
    assert "capped power" in str(request(held.model, held.hardware, held.workload, config(), 1))


def test_open_loops_are_not_asked_about() -> None:
    held = study("workload.arrival=poisson", "workload.request_rate_per_s=[1]")
    assert "open loops" in str(request(held.model, held.hardware, held.workload, config(), 1))


def test_a_dense_model_has_no_degrees_of_experts() -> None:
    held = study("model=llama-3.1-8b")
    found = asked(held, config(tp=2))
    assert (found.ep, found.moe_tp, found.model) == (None, None, "meta-llama/Meta-Llama-3.1-8B")


@pytest.mark.parametrize(
    ("of", "reason"), [(config(cp=2), "context parallelism"), (config(kv_cache="nvfp4"), "KV cache nvfp4")]
)
def test_what_cannot_be_asked_says_why(of: EngineConfig, reason: str) -> None:
    held = study()
    found = request(held.model, held.hardware, held.workload, of, 1)
    assert isinstance(found, str)
    assert reason in found


@given(tokens_per_s=positive, ttft_s=positive, tpot_s=positive, num_waiting=st.integers(0, 1000))
def test_throughput_and_latency_are_theirs(tokens_per_s: float, ttft_s: float, tpot_s: float, num_waiting: int) -> None:
    held, of = study(), config(tp=4, attention_dp=True)
    ours = prediction(held, of, 6)
    answer = Answer(output_tokens_per_s=tokens_per_s, ttft_s=ttft_s, tpot_s=tpot_s)
    theirs = combined(ours, asked(held, of, ours.running), answer, held.hardware, num_waiting=num_waiting)
    assert theirs.output_tokens_per_s == pytest.approx(tokens_per_s * 6 / 8)  # 4 ranks hold 8 where 6 run
    assert theirs.tpot_s == tpot_s
    assert theirs.ttft_s == pytest.approx(ttft_s + num_waiting * 922 / theirs.output_tokens_per_s)
    assert (theirs.running, theirs.bound) == (ours.running, ours.bound)


@given(ratio=st.floats(0.01, 10), num_gpus=st.sampled_from([1, 4]), concurrency=st.sampled_from([1, 16, 256]))
def test_joules_above_idle_of_a_token_stay_ours_up_to_the_limit(ratio: float, num_gpus: int, concurrency: int) -> None:
    held = study()
    idle_w, limit_w = held.hardware.idle_power_w, held.hardware.board_power_w
    assert idle_w is not None
    assert limit_w is not None
    ours = prediction(held, config(tp=num_gpus), concurrency)
    moved = at_speed(ours, ratio, held.hardware, num_gpus)
    above_j = (ours.power_w - num_gpus * idle_w) / ours.output_tokens_per_s
    moved_j = (moved.power_w - num_gpus * idle_w) / moved.output_tokens_per_s
    assert num_gpus * idle_w <= moved.power_w <= num_gpus * limit_w
    assert moved_j == pytest.approx(above_j) or (moved.power_w == num_gpus * limit_w and moved_j < above_j)
    ratios = disagreement(ours, moved)
    assert ratios["output_tokens_per_s"] == pytest.approx(ratio)
    assert ratios["output_tokens_per_joule"] * ratios["power_w"] == pytest.approx(ratio)
    assert ratios["tpot_s"] * ratio == pytest.approx(1)
    # A faster engine never costs more joules a token, nor a slower one less.
    assert (ratios["output_tokens_per_joule"] - 1) * (ratio - 1) >= -1e-9
