import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine_config import Batching
from pipeline.roofline.calibration import CONSTANTS, SHIPPED, Calibration
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.step import MIN_CLOCK_SHARE, Step, capped_step, step
from pipeline.roofline.work import Work, stack, work
from tests.roofline import facts


def done(case: tuple[str, str, str], tp: int = 2, running: float = 1, isl: float = 1000, osl: float = 1000) -> Step:
    model, gpu, config = facts.model(case[0]), facts.hardware(case[2]), facts.engine_config(case[1], tp)
    return step(work(model, gpu, config, MeanLengths.equal(isl, osl), running), SHIPPED)


def test_a_lone_request_waits_for_memory_and_many_long_prompts_for_arithmetic() -> None:
    case = ("llama-3.3-70b", "bf16", "h100")
    alone, prompts = done(case, 4, osl=2000), done(case, 4, running=64, isl=8000, osl=10)
    assert alone.memory_s > alone.compute_s
    assert prompts.compute_s > prompts.memory_s


@given(
    case=st.sampled_from(facts.RUNNABLE),
    running=st.floats(1, 4096),
    isl=st.floats(1, 1e5),
    osl=st.floats(2, 1e4),
    more=st.floats(1, 100),
)
def test_more_work_never_takes_less_time(
    case: tuple[str, str, str], running: float, isl: float, osl: float, more: float
) -> None:
    base = float(done(case, running=running, isl=isl, osl=osl).time_s)
    assert base > 0
    assert float(done(case, running=running * more, isl=isl, osl=osl).time_s) >= base * (1 - 1e-9)
    assert float(done(case, running=running, isl=isl * more, osl=osl).time_s) >= base * (1 - 1e-9)


def test_pipeline_stages_share_the_weights_but_not_the_wait() -> None:
    model, gpu = facts.model("llama-3.3-70b"), facts.hardware("h200")
    whole, staged = (
        step(work(model, gpu, facts.engine_config("fp8", 2, pp=pp), MeanLengths.equal(1, 100), 1), SHIPPED)
        for pp in (1, 2)
    )
    assert staged.memory_s == pytest.approx(whole.memory_s, rel=0.01)


def test_prompts_that_fill_iterations_make_tokens_wait() -> None:
    model, gpu = facts.model("llama-3.1-8b"), facts.hardware("h100")
    few, many = (
        work(
            model,
            gpu,
            facts.engine_config("bf16", batching=Batching(max_num_tokens=tokens)),
            MeanLengths.equal(8000, 100),
            64,
        )
        for tokens in (512, 8192)
    )
    assert few.iterations == pytest.approx(64 / 100 * 8000 / (512 - 64))
    assert many.iterations == 1


def test_only_vllm_ranks_wait_for_each_others_prompts() -> None:
    model, gpu = facts.model("deepseek-r1"), facts.hardware("b200")
    lengths = MeanLengths.equal(1000, 1000)
    marks = [
        work(
            model, gpu, facts.engine_config("fp8", 8, attention_dp=adp, engine=engine), lengths, 64
        ).is_divided_by_rank
        for engine, adp in (("vllm", True), ("vllm", False), ("trtllm", True))
    ]  # fmt: skip
    assert marks == [1, 0, 0]


@given(st.lists(st.tuples(st.sampled_from(facts.RUNNABLE), st.floats(1, 1000)), min_size=1, max_size=5))
def test_many_points_at_once_are_as_each_alone(points: list[tuple[tuple[str, str, str], float]]) -> None:
    lengths = MeanLengths.equal(500, 500)
    works = [
        work(
            facts.model(name), facts.hardware(gpu), facts.engine_config(precision, 2), lengths, running
        )
        for (name, precision, gpu), running in points
    ]  # fmt: skip
    together = step(stack(works), SHIPPED)
    for index, each in enumerate(works):
        alone = step(each, SHIPPED)
        assert together.time_s[index] == pytest.approx(float(alone.time_s))
        assert together.power_w[index] == pytest.approx(float(alone.power_w))


def test_the_loads_of_a_config_can_be_an_array() -> None:
    model, gpu, config = facts.model("gpt-oss-120b"), facts.hardware("b200"), facts.engine_config("fp4")
    loads = np.array([1.0, 8.0, 64.0, 512.0])
    together = step(work(model, gpu, config, MeanLengths.equal(1000, 1000), loads), SHIPPED)
    alone = [step(work(model, gpu, config, MeanLengths.equal(1000, 1000), n), SHIPPED) for n in loads]
    assert together.time_s == pytest.approx([float(each.time_s) for each in alone])


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    drawn: dict[str, Any] = {name: draw(st.floats(low, high)) for name, (_, low, high) in CONSTANTS.items()}
    return Calibration(id="drawn", **drawn)


@given(st.sampled_from(facts.RUNNABLE), st.floats(1, 4096), calibrations())
def test_board_power_stays_between_idle_and_limit_whatever_the_constants(
    case: tuple[str, str, str], running: float, constants: Calibration
) -> None:
    model, gpu, config = facts.model(case[0]), facts.hardware(case[2]), facts.engine_config(case[1], 2)
    found: Work = work(model, gpu, config, MeanLengths.equal(1000, 1000), running)
    assert gpu.idle_power_w is not None
    assert gpu.board_power_w is not None
    assert gpu.idle_power_w <= float(step(found, constants).power_w) <= gpu.board_power_w


def test_the_shipped_constants_lie_within_their_bounds() -> None:
    for name, (start, low, high) in CONSTANTS.items():
        assert low <= start <= high
        assert low <= getattr(SHIPPED, name) <= high


def test_a_share_of_one_more_efficient_part_never_slows() -> None:
    model, gpu, config = facts.model("gpt-oss-120b"), facts.hardware("h100"), facts.engine_config("fp4")
    found = work(model, gpu, config, MeanLengths.equal(1000, 1000), 64)
    better = dataclasses.replace(SHIPPED, expert_share=0.95)
    assert float(step(found, better).time_s) < float(step(found, SHIPPED).time_s)


@given(
    st.sampled_from(facts.RUNNABLE), st.floats(1, 1024), st.floats(MIN_CLOCK_SHARE, 1), st.floats(MIN_CLOCK_SHARE, 1)
)
def test_a_lower_clock_is_never_faster_and_never_draws_more(
    case: tuple[str, str, str], running: float, one: float, other: float
) -> None:
    model, gpu, config = facts.model(case[0]), facts.hardware(case[2]), facts.engine_config(case[1], 2)
    todo = work(model, gpu, config, MeanLengths.equal(1000, 1000), running)
    low, high = (step(todo, SHIPPED, clock) for clock in sorted((one, other)))
    assert low.time_s >= high.time_s * (1 - 1e-9)
    assert low.power_w <= high.power_w * (1 + 1e-9)


@given(st.sampled_from(facts.RUNNABLE), st.floats(1, 1024), st.floats(0.3, 1))
def test_a_cap_is_kept_wherever_the_lowest_clock_can(case: tuple[str, str, str], running: float, share: float) -> None:
    model, gpu, config = facts.model(case[0]), facts.hardware(case[2]), facts.engine_config(case[1], 2)
    assert gpu.board_power_w is not None
    todo = work(model, gpu, config, MeanLengths.equal(1000, 1000), running)
    cap_w = share * gpu.board_power_w
    capped, lowest, free = capped_step(todo, SHIPPED, cap_w), step(todo, SHIPPED, MIN_CLOCK_SHARE), step(todo, SHIPPED)
    if free.power_w <= cap_w:
        assert (capped.time_s, capped.power_w) == (free.time_s, free.power_w)
    elif lowest.power_w <= cap_w:
        assert capped.power_w == pytest.approx(cap_w, rel=1e-3)
    else:
        assert capped.power_w == pytest.approx(lowest.power_w)
