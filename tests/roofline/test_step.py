import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.roofline.power import board_power_w
from pipeline.roofline.step import Step, compute_rate_flops_per_s, iteration
from tests.roofline import facts


def test_a_lone_request_waits_for_memory_and_a_long_prompt_for_arithmetic() -> None:
    model, h100, config = facts.model("llama-3.3-70b"), facts.hardware("h100"), facts.engine_config("bf16", 4)
    decode = iteration(model, h100, config, batch=1, context_tokens=1000)
    prefill = iteration(model, h100, config, batch=1, context_tokens=1000, prefill_tokens=8000, isl_tokens=8000)
    assert decode.memory_s > decode.compute_s
    assert prefill.compute_s > prefill.memory_s


@given(
    case=st.sampled_from(facts.RUNNABLE),
    batch=st.floats(1, 4096),
    context=st.floats(1, 1e5),
    prefill=st.floats(0, 32768),
    more=st.floats(1, 100),
)
def test_more_work_never_takes_less_time(
    case: tuple[str, str, str], batch: float, context: float, prefill: float, more: float
) -> None:
    model, gpu, config = facts.model(case[0]), facts.hardware(case[2]), facts.engine_config(case[1], 2)

    def time_s(batch: float, context: float, prefill: float) -> float:
        return iteration(
            model, gpu, config, batch=batch, context_tokens=context, prefill_tokens=prefill, isl_tokens=1000
        ).time_s

    base = time_s(batch, context, prefill)
    assert base > 0
    assert time_s(batch * more, context, prefill) >= base
    assert time_s(batch, context * more, prefill) >= base
    assert time_s(batch, context, prefill * more) >= base


def test_pipeline_stages_share_the_weights_but_not_the_wait() -> None:
    model, gpu = facts.model("llama-3.3-70b"), facts.hardware("h200")
    whole, staged = (
        iteration(model, gpu, facts.engine_config("fp8", 2, pp=pp), batch=1, context_tokens=100) for pp in (1, 2)
    )
    assert staged.memory_s == pytest.approx(whole.memory_s, rel=0.01)


def test_experts_in_a_small_batch_are_read_only_where_needed() -> None:
    model, gpu, config = facts.model("gpt-oss-120b"), facts.hardware("h100"), facts.engine_config("fp4")
    small, large = (iteration(model, gpu, config, batch=batch, context_tokens=1).memory_s for batch in (1, 1000))
    assert large > 8 * small


def test_format_that_the_hardware_does_not_run_is_refused() -> None:
    model, config = facts.model("llama-3.1-8b"), facts.engine_config("fp4")
    with pytest.raises(ConfigError, match=r"is nvfp4, which h100 \(hopper\) does not run"):
        compute_rate_flops_per_s(model, facts.hardware("h100"), config)
    assert compute_rate_flops_per_s(model, facts.hardware("b200"), config) == 9e15


def test_mxfp4_runs_with_16_bit_activations_on_hopper_and_8_bit_on_blackwell() -> None:
    model, config = facts.model("gpt-oss-120b"), facts.engine_config("fp4")
    for name, precision in (("h100", "bf16"), ("b200", "fp8")):
        gpu = facts.hardware(name)
        assert compute_rate_flops_per_s(model, gpu, config) == gpu.flops_per_s[precision]


def test_tensor_parallelism_needs_a_link() -> None:
    model, gpu = (
        facts.model("llama-3.1-8b"),
        dataclasses.replace(facts.hardware("h100"), link_bandwidth_bytes_per_s=None),
    )
    iteration(model, gpu, facts.engine_config("bf16"), batch=1, context_tokens=1)
    with pytest.raises(ConfigError, match=r"hardware\.link_bandwidth_bytes_per_s is not set for h100"):
        iteration(model, gpu, facts.engine_config("bf16", 2), batch=1, context_tokens=1)


@given(st.sampled_from(("h100", "b200")), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_board_power_stays_between_idle_and_limit_and_grows_with_use(
    name: str, memory: float, compute: float, more: float
) -> None:
    gpu = facts.hardware(name)
    assert gpu.idle_power_w is not None
    assert gpu.board_power_w is not None
    power_w = board_power_w(gpu, Step(1, memory, compute))
    assert gpu.idle_power_w <= power_w <= gpu.board_power_w
    assert board_power_w(gpu, Step(1, min(1, memory + more), compute)) >= power_w
