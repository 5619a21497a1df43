import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine_config import Batching, EngineConfig
from pipeline.errors import ConfigError
from pipeline.roofline.bound import physical_limit
from pipeline.roofline.predict import Prediction, predict, predict_loads
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


def open_loop(name: str, precision: str, gpu: str, *rates_per_s: float, places: int | None = None) -> list[Prediction]:
    load = dataclasses.replace(facts.workload(), arrival="poisson", concurrency=(), request_rate_per_s=rates_per_s)
    config = facts.engine_config(precision, batching=Batching(max_batch_size=places))
    found = predict_loads(facts.model(name), facts.hardware(gpu), load, config, load.ladder)
    assert isinstance(found, list)
    return found


@given(st.sampled_from([("llama-3.1-8b", "bf16", "h100"), ("gpt-oss-120b", "fp4", "b200")]), st.floats(1e-3, 3.0))
def test_requests_in_an_open_loop_keep_littles_law(case: tuple[str, str, str], rate_per_s: float) -> None:
    (found,) = open_loop(*case, rate_per_s)
    osl_tokens = 1024 * 0.9
    assert found.output_tokens_per_s == pytest.approx(rate_per_s * osl_tokens, rel=0.005)
    assert found.running == pytest.approx(found.output_tokens_per_s * found.tpot_s)
    assert found.ttft_s is not None


@given(st.lists(st.floats(1e-3, 50), min_size=2, max_size=6, unique=True).map(sorted))
def test_more_requests_never_wait_less_nor_draw_less(rates_per_s: list[float]) -> None:
    found = open_loop("llama-3.1-8b", "bf16", "h100", *rates_per_s)
    for lighter, heavier in itertools.pairwise(found):
        assert heavier.tpot_s >= lighter.tpot_s * 0.99
        assert heavier.power_w >= lighter.power_w * 0.99
        assert heavier.output_tokens_per_s >= lighter.output_tokens_per_s * 0.99
        if heavier.ttft_s is not None:
            assert lighter.ttft_s is not None
            assert heavier.ttft_s >= lighter.ttft_s * 0.99


def test_an_engine_that_is_hardly_asked_idles() -> None:
    (found,) = open_loop("llama-3.1-8b", "bf16", "h100", 1e-4)
    assert found.power_w == pytest.approx(76, rel=0.01)
    assert found.running < 0.01


def test_more_than_an_engine_can_do_has_no_time_to_first_token() -> None:
    within, beyond = open_loop("llama-3.1-8b", "bf16", "h100", 2.0, 1e4, places=64)
    assert within.ttft_s is not None
    assert beyond.ttft_s is None
    assert beyond.running == pytest.approx(64)


def test_an_open_loop_that_keeps_a_batch_is_as_a_closed_one_of_it() -> None:
    closed = predict(
        facts.model("llama-3.1-8b"), facts.hardware("h100"), facts.workload(), facts.engine_config("bf16"),
        OperatingPoint(concurrency=64),
    )  # fmt: skip
    assert isinstance(closed, Prediction)
    (found,) = open_loop("llama-3.1-8b", "bf16", "h100", closed.output_tokens_per_s / (1024 * 0.9))
    assert found.running == pytest.approx(64, rel=0.01)
    assert found.tpot_s == pytest.approx(closed.tpot_s, rel=0.01)
    assert found.power_w == pytest.approx(closed.power_w, rel=0.01)


def test_the_loads_of_a_ladder_are_as_each_alone() -> None:
    case = (facts.model("gpt-oss-120b"), facts.hardware("b200"), facts.workload(), facts.engine_config("fp4"))
    points = [OperatingPoint(concurrency=n) for n in (1, 7, 64, 5000)]
    together = predict_loads(*case, points)
    assert together == [predict(*case, point) for point in points]


def test_a_cap_and_a_clock_are_those_of_the_hardware() -> None:
    model, load, config = facts.model("llama-3.1-8b"), facts.workload(), facts.engine_config("bf16")

    def at(power_cap_w: float | None = None, sm_clock_share: float = 1.0) -> Prediction:
        gpu = dataclasses.replace(facts.hardware("h100"), power_cap_w=power_cap_w, sm_clock_share=sm_clock_share)
        found = predict(model, gpu, load, config, OperatingPoint(concurrency=64))
        assert isinstance(found, Prediction)
        return found

    free, capped, slow = at(), at(power_cap_w=400.0), at(sm_clock_share=0.5)
    assert capped.power_w == pytest.approx(400, rel=0.001)
    assert free.output_tokens_per_s > capped.output_tokens_per_s > 0.8 * free.output_tokens_per_s
    assert capped.output_tokens_per_joule > free.output_tokens_per_joule
    assert slow.power_w < free.power_w
    assert at(power_cap_w=700.0) == free
