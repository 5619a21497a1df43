import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine_config import Batching, EngineConfig
from pipeline.errors import ConfigError
from pipeline.roofline.bound import physical_limit
from pipeline.roofline.predict import Prediction, predict
from pipeline.study import Hardware, Model
from pipeline.workload import OperatingPoint, Workload
from tests.roofline import facts

Case = tuple[Model, Hardware, Workload, EngineConfig, int]


def predicted(case: Case) -> Prediction | str:
    model, gpu, load, config, concurrency = case
    return predict(model, gpu, load, config, OperatingPoint(concurrency=concurrency))


@given(facts.cases())
def test_a_prediction_is_physical(case: Case) -> None:
    model, gpu, load, config, concurrency = case
    result = predicted(case)
    if isinstance(result, str):
        assert "does not fit" in result
        return
    assert gpu.idle_power_w is not None
    assert gpu.board_power_w is not None
    devices = config.parallelism.num_gpus
    assert gpu.idle_power_w * devices <= result.power_w <= gpu.board_power_w * devices
    assert result.output_tokens_per_joule > 0
    assert result.output_tokens_per_joule == pytest.approx(result.output_tokens_per_s / result.power_w)
    assert result.total_tokens_per_s > result.output_tokens_per_s
    assert 1 <= result.running <= concurrency
    assert result.output_tokens_per_s == pytest.approx(result.running / result.tpot_s)
    assert result.ttft_s is not None
    assert result.ttft_s > 0
    limit = physical_limit(model, gpu, load, config, OperatingPoint(concurrency=concurrency))
    assert limit is not None
    assert limit.output_tokens_per_joule is not None
    assert result.output_tokens_per_s <= limit.output_tokens_per_s * (1 + 1e-9)
    assert result.output_tokens_per_joule <= limit.output_tokens_per_joule * (1 + 1e-9)


@given(facts.cases(), st.floats(1, 10))
def test_more_bandwidth_never_costs_throughput(case: Case, factor: float) -> None:
    model, gpu, load, config, concurrency = case
    assert gpu.memory_bandwidth_bytes_per_s is not None
    faster = dataclasses.replace(gpu, memory_bandwidth_bytes_per_s=gpu.memory_bandwidth_bytes_per_s * factor)
    slow, fast = predicted(case), predicted((model, faster, load, config, concurrency))
    if isinstance(slow, Prediction) and isinstance(fast, Prediction):
        assert fast.output_tokens_per_s >= slow.output_tokens_per_s * (1 - 1e-9)
    else:
        assert slow == fast


@given(facts.cases())
def test_load_beyond_the_places_only_waits(case: Case) -> None:
    model, gpu, load, config, concurrency = case
    result = predicted(case)
    if isinstance(result, Prediction) and result.running < concurrency:
        more = predicted((model, gpu, load, config, 2 * concurrency))
        assert isinstance(more, Prediction)
        assert more.output_tokens_per_s == pytest.approx(result.output_tokens_per_s)
        assert (more.ttft_s or 0) > (result.ttft_s or 0)


def test_a_batch_limit_caps_what_runs() -> None:
    case = (facts.model("llama-3.1-8b"), facts.hardware("h100"), facts.workload())
    point = OperatingPoint(concurrency=64)
    free = predict(*case, facts.engine_config("bf16"), point)
    capped = predict(*case, facts.engine_config("bf16", batching=Batching(max_batch_size=16)), point)
    assert isinstance(free, Prediction)
    assert isinstance(capped, Prediction)
    assert (free.running, capped.running) == (64, 16)
    assert capped.tpot_s < free.tpot_s
    assert (capped.ttft_s or 0) > (free.ttft_s or 0)
    assert capped.output_tokens_per_s < free.output_tokens_per_s


def test_batch_limits_count_per_attention_rank() -> None:
    case = (facts.model("deepseek-r1"), facts.hardware("b200"), facts.workload())
    limited = Batching(max_batch_size=8)
    running = [
        result.running
        for adp in (False, True)
        if isinstance(
            result := predict(
                *case,
                facts.engine_config("fp4", 8, attention_dp=adp, batching=limited, engine="trtllm"),
                OperatingPoint(concurrency=256),
            ),
            Prediction,
        )
    ]
    assert running == [8, 64]


def test_what_does_not_fit_says_so_with_numbers() -> None:
    reason = predict(
        facts.model("deepseek-r1"),
        facts.hardware("h100"),
        facts.workload(),
        facts.engine_config("fp8", 8),
        OperatingPoint(concurrency=1),
    )
    assert isinstance(reason, str)
    assert "84.1 GB of weights" in reason


def test_a_cpu_has_no_prediction_and_no_bound() -> None:
    cpu, config, point = facts.hardware("cpu"), facts.engine_config("bf16"), OperatingPoint(concurrency=1)
    with pytest.raises(ConfigError, match="cpu"):
        predict(facts.model("tiny-llama"), cpu, facts.workload(), config, point)
    assert physical_limit(facts.model("tiny-llama"), cpu, facts.workload(), config, point) is None


PUBLISHED = [
    ("llama-3.1-8b", "bf16", "h100", 1, 8, 250, 389, 1069.6, 486.4),
    ("llama-3.1-8b", "bf16", "h100", 1, 128, 250, 405, 7036.5, 669.2),
    ("llama-3.3-70b", "bf16", "h100", 4, 64, 250, 409, 2563.8, 2108.3),
    ("llama-3.3-70b", "bf16", "b200", 2, 256, 250, 410, 5515.2, 1942.2),
    ("qwen3-235b-a22b", "fp8", "h100", 8, 128, 250, 879, 2840.0, 3874.1),
    ("gpt-oss-120b", "fp4", "h100", 1, 64, 300, 1739, 2571.9, 688.2),
    ("gpt-oss-120b", "fp4", "b200", 1, 256, 300, 1861, 11888.6, 952.1),
]
"""model, precision, GPU, tp, batch, ISL (assumed), OSL, tokens/s, W. Source: ML.ENERGY leaderboard v3, vLLM 0.11.1."""


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[2]}-{row[4]}")
def test_published_measurements_are_met_within_a_third(
    row: tuple[str, str, str, int, int, int, int, float, float],
) -> None:
    name, precision, gpu, tp, batch, isl, osl, tokens_per_s, power_w = row
    config = facts.engine_config(precision, tp, batching=Batching(max_batch_size=batch))
    load = facts.workload(isl, osl, 1.0)
    point = OperatingPoint(concurrency=batch)
    result = predict(facts.model(name), facts.hardware(gpu), load, config, point)
    assert isinstance(result, Prediction)
    assert result.output_tokens_per_s == pytest.approx(tokens_per_s, rel=0.33)
    assert result.power_w == pytest.approx(power_w, rel=0.33)
    limit = physical_limit(facts.model(name), facts.hardware(gpu), load, config, point)
    assert limit is not None
    assert limit.output_tokens_per_joule is not None
    assert tokens_per_s < limit.output_tokens_per_s
    assert tokens_per_s / power_w < limit.output_tokens_per_joule
