import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.roofline.bound import max_output_tokens_per_s
from pipeline.workload import OperatingPoint
from tests.roofline import facts


def bound(name: str, precision: str, gpu: str, tp: int, concurrency: int) -> float:
    limit = max_output_tokens_per_s(
        facts.model(name),
        facts.hardware(gpu),
        facts.engine_config(precision, tp),
        OperatingPoint(concurrency=concurrency),
    )
    assert limit is not None
    return limit


def test_one_request_cannot_outrun_the_reading_of_the_weights() -> None:
    # All weights but the input table: (16.06 GB - 1.05 GB) at 3.35 TB/s.
    assert bound("llama-3.1-8b", "bf16", "h100", 1, 1) == pytest.approx(3.35e12 / 15.01e9, rel=0.001)


def test_many_requests_cannot_outrun_the_tensor_cores() -> None:
    assert bound("llama-3.1-8b", "bf16", "h100", 1, 10**5) == pytest.approx(9.895e14 / (2 * 7.505e9), rel=0.001)


@given(st.sampled_from(facts.RUNNABLE), st.sampled_from((1, 2, 4, 8)), st.integers(1, 10**5), st.integers(1, 100))
def test_bound_grows_with_load_and_devices(case: tuple[str, str, str], tp: int, concurrency: int, more: int) -> None:
    limit = bound(*case, tp, concurrency)
    assert limit > 0
    assert bound(*case, tp, concurrency * more) >= limit
    assert bound(*case, 2 * tp, concurrency) == pytest.approx(2 * limit)


def test_speculation_lifts_the_memory_limit_only() -> None:
    model, gpu, point = facts.model("llama-3.1-8b"), facts.hardware("h100"), OperatingPoint(concurrency=1)
    config = dataclasses.replace(facts.engine_config("bf16"), knobs={"speculative_config.max_draft_len": 3})
    assert max_output_tokens_per_s(model, gpu, config, point) == bound("llama-3.1-8b", "bf16", "h100", 1, 10**5)


def test_hardware_without_a_rate_for_the_weights_is_refused() -> None:
    gpu = dataclasses.replace(facts.hardware("h100"), flops_per_s={"fp8": 1.0})
    with pytest.raises(ConfigError, match="no rate for bf16"):
        max_output_tokens_per_s(
            facts.model("llama-3.1-8b"), gpu, facts.engine_config("bf16"), OperatingPoint(concurrency=1)
        )
