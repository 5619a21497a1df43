"""Axes without effect are left out of a config, and never silently where a user fixed them."""

import dataclasses

import pytest

from pipeline.axes import COMBINE, HOST_CACHE, REUSE, bears, is_dependent, without_inert
from pipeline.engine_config import Value
from pipeline.study import Study
from tests.builders import MODELLED, make_study, with_axes

ADP = "engine.knobs.attention_dp_config.enable_balance"
DRAFT = "engine.knobs.speculative_config.max_draft_len"
TYPE = "engine.knobs.speculative_config.decoding_type"
NGRAM = "engine.knobs.speculative_config.max_matching_ngram_size"
MOE = "engine.knobs.moe_config.backend"
GRAPH = "engine.knobs.cuda_graph_config.max_batch_size"
ALLREDUCE = "engine.knobs.allreduce_strategy"
WAIT = "engine.knobs.batch_wait_timeout_iters"
CHUNKS = "engine.knobs.scheduler_config.context_chunking_policy"


def study(key: str, *axis: Value | None, model: str = "gpt-oss-120b") -> Study:
    return with_axes(make_study(*MODELLED, f"model={model}"), **{key.replace(".", "__"): axis})


CASES: list[tuple[str, tuple[Value | None, ...], dict[str, Value | None], bool]] = [
    (ADP, (None, True), {"parallelism.attention_dp": True}, True),
    (ADP, (None, True), {"parallelism.attention_dp": False}, False),
    (DRAFT, (1, 3), {TYPE: "MTP"}, True),
    (DRAFT, (1, 3), {TYPE: None}, False),
    (DRAFT, (1, 3), {}, False),
    (NGRAM, (2, 4), {TYPE: "NGram"}, True),
    (NGRAM, (2, 4), {TYPE: "MTP"}, False),
    (GRAPH, (32, 64), {}, True),
    (GRAPH, (32, 64), {"engine.knobs.cuda_graph_config": False}, False),
    (ALLREDUCE, (None, "NCCL"), {"parallelism.tp": 2}, True),
    (ALLREDUCE, (None, "NCCL"), {"parallelism.tp": 1}, False),
    (WAIT, (None, 4), {"parallelism.attention_dp": False}, True),
    (WAIT, (None, 4), {"parallelism.attention_dp": True}, False),
    (CHUNKS, (None, "EQUAL_PROGRESS"), {"batching.chunked_prefill": True}, True),
    (CHUNKS, (None, "EQUAL_PROGRESS"), {"batching.chunked_prefill": False}, False),
    (TYPE, (None, "MTP"), {TYPE: None}, True),
    (MOE, (None, "CUTLASS"), {}, True),
]


@pytest.mark.parametrize(("key", "axis", "values", "has_effect"), CASES)
def test_an_axis_bears_where_its_switch_is_on(
    key: str, axis: tuple[Value | None, ...], values: dict[str, Value | None], has_effect: bool
) -> None:
    kept = without_inert({**values, key: axis[-1]}, study(key, *axis))
    assert (key in kept) is has_effect
    assert values.keys() <= kept.keys()


def test_knobs_of_experts_are_left_out_on_a_dense_model_unless_the_user_fixed_one() -> None:
    dense = study(MOE, None, "TRTLLM", model="llama-3.1-8b")
    assert not bears(MOE, {MOE: "TRTLLM"}, dense)
    fixed = study(MOE, "TRTLLM", model="llama-3.1-8b")
    assert bears(MOE, {MOE: "TRTLLM"}, fixed)


def test_a_cache_of_blocks_is_left_out_where_prompts_share_nothing() -> None:
    for key, values in {REUSE: (None, False), HOST_CACHE: (None, 2**34)}.items():
        apart = study(key, *values)
        assert not bears(key, {}, apart)
        sharing = dataclasses.replace(apart, workload=dataclasses.replace(apart.workload, shared_prefix_tokens=64))
        assert bears(key, {}, sharing)
    sharing = dataclasses.replace(sharing, axes=sharing.axes | {REUSE: (None, False)})
    assert not bears(HOST_CACHE, {REUSE: False}, sharing)


def test_experts_answers_are_combined_in_fewer_bits_only_of_nvfp4_weights_and_between_ranks() -> None:
    spread: dict[str, Value | None] = {"parallelism.tp": 4, "parallelism.attention_dp": True}
    assert not bears(COMBINE, spread, study(COMBINE, None, True))  # mxfp4
    nvfp4 = study(COMBINE, None, True, model="deepseek-r1")
    nvfp4 = dataclasses.replace(nvfp4, axes=nvfp4.axes | {"precision.weights": ("fp8", "fp4")})
    assert bears(COMBINE, spread, nvfp4)
    assert not bears(COMBINE, {"parallelism.tp": 4, "parallelism.attention_dp": False}, nvfp4)


def test_a_fixed_knob_stays_where_no_config_of_the_study_could_use_it() -> None:
    never = with_axes(make_study(*MODELLED), parallelism__attention_dp=(False,), **{ADP.replace(".", "__"): (True,)})
    assert bears(ADP, {"parallelism.attention_dp": False}, never)
    sometimes = with_axes(
        make_study(*MODELLED), parallelism__attention_dp=(False, True), **{ADP.replace(".", "__"): (True,)}
    )
    assert not bears(ADP, {"parallelism.attention_dp": False}, sometimes)


def test_switches_come_before_what_depends_on_them() -> None:
    ordered = sorted([DRAFT, TYPE, NGRAM, GRAPH, MOE], key=is_dependent)
    assert ordered.index(TYPE) < min(ordered.index(DRAFT), ordered.index(NGRAM))
