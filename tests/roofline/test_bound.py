import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.roofline.bound import Limit, physical_limit
from pipeline.study import Hardware
from pipeline.workload import OperatingPoint, Workload
from tests.roofline import facts

SHORT = facts.workload(1, 1000, 1.0)


def bound(
    name: str,
    precision: str,
    gpu: str | Hardware,
    tp: int,
    concurrency: int | None,
    load: Workload = SHORT,
    num_drafts: int = 0,
) -> Limit:
    config = facts.engine_config(precision, tp)
    if num_drafts:
        config = dataclasses.replace(config, knobs={"speculative_config.max_draft_len": num_drafts})
    point = OperatingPoint(concurrency=concurrency)
    hardware = facts.hardware(gpu) if isinstance(gpu, str) else gpu
    limit = physical_limit(facts.model(name), hardware, load, config, point)
    assert limit is not None
    return limit


def test_one_request_cannot_outrun_the_reading_of_the_weights() -> None:
    # All weights but the input table: (16.06 GB - 1.05 GB) at 3.35 TB/s.
    limit = bound("llama-3.1-8b", "bf16", "h100", 1, 1).output_tokens_per_s
    assert limit == pytest.approx(3.35e12 / 15.01e9, rel=0.001)


def test_many_requests_cannot_outrun_the_tensor_cores() -> None:
    limit = bound("llama-3.1-8b", "bf16", "h100", 1, 10**5).output_tokens_per_s
    assert limit == pytest.approx(9.895e14 / (2 * 7.505e9), rel=0.001)


def test_every_request_reads_its_own_prompt() -> None:
    # 32 layers x 2 x 8 heads x 128 x 2 bytes = 131,072 bytes a token of the shortest prompt.
    limit = bound("llama-3.1-8b", "bf16", "h100", 1, 64, facts.workload(2000, 1000, 0.5)).output_tokens_per_s
    assert limit == pytest.approx(64 * 3.35e12 / (15.01e9 + 64 * 1000 * 131_072), rel=0.001)
    shared = dataclasses.replace(facts.workload(2000, 1000, 0.5), shared_prefix_tokens=999)
    assert bound("llama-3.1-8b", "bf16", "h100", 1, 64, shared) == bound("llama-3.1-8b", "bf16", "h100", 1, 64)


def test_no_board_draws_less_than_when_idle() -> None:
    limit = bound("llama-3.1-8b", "bf16", "h100", 2, 8)
    idle_w = facts.hardware("h100").idle_power_w
    assert idle_w is not None
    assert limit.output_tokens_per_joule == pytest.approx(limit.output_tokens_per_s / (2 * idle_w))
    unknown = dataclasses.replace(facts.hardware("h100"), idle_power_w=None)
    assert bound("llama-3.1-8b", "bf16", unknown, 2, 8).output_tokens_per_joule is None


@given(st.sampled_from(facts.RUNNABLE), st.sampled_from((1, 2, 4, 8)), st.integers(1, 10**5), st.integers(1, 100))
def test_bound_grows_with_load_and_devices(case: tuple[str, str, str], tp: int, concurrency: int, more: int) -> None:
    limit = bound(*case, tp, concurrency).output_tokens_per_s
    assert limit > 0
    assert bound(*case, tp, concurrency * more).output_tokens_per_s >= limit
    assert bound(*case, 2 * tp, concurrency).output_tokens_per_s == pytest.approx(2 * limit)


def test_speculation_and_open_loops_lift_the_memory_limit_only() -> None:
    compute_limit = bound("llama-3.1-8b", "bf16", "h100", 1, 10**5)
    assert bound("llama-3.1-8b", "bf16", "h100", 1, 1, num_drafts=3) == compute_limit
    assert bound("llama-3.1-8b", "bf16", "h100", 1, None) == compute_limit


def test_hardware_without_a_rate_for_the_weights_is_refused() -> None:
    gpu = dataclasses.replace(facts.hardware("h100"), flops_per_s={"fp8": 1.0})
    with pytest.raises(ConfigError, match="no rate for bf16"):
        bound("llama-3.1-8b", "bf16", gpu, 1, 1)
