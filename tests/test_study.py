import dataclasses
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline.engine_config import Batching, EngineConfig, Parallelism, Precision, canonical_json, content_hash
from pipeline.resume import study_json
from pipeline.study import Checkpoint, Plan, Study
from pipeline.workload import CONCURRENCY_GRID, OperatingPoint
from tests.builders import MODELLED, make_study

scalars = st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=4)
configs = st.builds(
    EngineConfig,
    engine=st.sampled_from(["trtllm", "vllm", "openvino"]),
    precision=st.builds(Precision, weights=st.sampled_from(["bf16", "fp4"]), kv_cache=st.none() | st.just("fp8")),
    parallelism=st.builds(
        Parallelism, tp=st.integers(1, 8), pp=st.integers(1, 4), ep=st.integers(1, 8), attention_dp=st.booleans()
    ),
    batching=st.builds(
        Batching,
        max_batch_size=st.none() | st.integers(1, 512),
        max_num_tokens=st.none() | st.integers(1, 9999),
        kv_cache_fraction=st.none() | st.floats(0.1, 1),
        chunked_prefill=st.none() | st.booleans(),
    ),
    knobs=st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), scalars, max_size=3),
)
CONFIG = EngineConfig(engine="trtllm", precision=Precision(weights="fp4"))


@given(configs)
def test_requested_is_the_inverse_of_from_axes(config: EngineConfig) -> None:
    again = EngineConfig.from_axes(config.engine, config.requested())
    assert again == config
    assert again.config_hash == config.config_hash


@given(configs)
def test_a_config_survives_its_json(config: EngineConfig) -> None:
    stored = json.loads(canonical_json(config.requested()))
    assert EngineConfig.from_axes(config.engine, stored).config_hash == config.config_hash


@given(configs)
def test_what_is_not_set_is_not_part_of_the_identity(config: EngineConfig) -> None:
    unset: dict[str, Any] = dict.fromkeys(("engine.knobs.added_next_year", "batching.max_batch_size"))
    requested = config.requested()
    again = EngineConfig.from_axes(config.engine, {**unset, **requested})
    assert again.config_hash == config.config_hash
    assert None not in requested.values()


@given(configs, configs)
def test_equal_hashes_mean_equal_configs(one: EngineConfig, other: EngineConfig) -> None:
    assert (one.config_hash == other.config_hash) == (
        (one.engine, canonical_json(one.requested())) == (other.engine, canonical_json(other.requested()))
    )


def test_hashes_that_rows_were_stored_under_stay() -> None:
    full = EngineConfig.from_axes("trtllm", {
        "precision.weights": "fp4", "precision.kv_cache": "fp8", "parallelism.tp": 8, "parallelism.ep": 4,
        "batching.max_batch_size": 256, "batching.kv_cache_fraction": 0.9, "engine.knobs.moe_backend": "CUTLASS",
    })  # fmt: skip
    assert CONFIG.config_hash == content_hash({"engine": "trtllm", "precision.weights": "fp4", "parallelism.tp": 1})
    assert CONFIG.config_hash == "30ffad655f72dbb7"
    assert full.config_hash == "32ef0b6a93f3bf74"


def test_the_type_of_a_knob_is_part_of_the_identity() -> None:
    hashes = {EngineConfig.from_axes("x", {"precision.weights": "bf16", "engine.knobs.k": value}).config_hash
              for value in (1, 1.0, True, "1")}  # fmt: skip
    assert len(hashes) == 4


@pytest.mark.parametrize(
    "axes",
    [
        {"precision.weights": "fp4", "precision.bits": 4},
        {"precision.weights": "fp4", "speed.warp": 9},
        {"precision.weights": "fp4", "parallelism.tp": 0},
        {"precision.weights": "fp4", "batching.kv_cache_fraction": 1.5},
        {"parallelism.tp": 2},
    ],
)
def test_impossible_axes_are_refused(axes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EngineConfig.from_axes("trtllm", axes)


def test_the_grid_of_loads_is_the_documented_one() -> None:
    assert CONCURRENCY_GRID[:9] == (1, 2, 3, 4, 6, 8, 12, 16, 24)
    assert list(CONCURRENCY_GRID) == sorted(set(CONCURRENCY_GRID))
    assert all(later / earlier <= 2 for earlier, later in pairwise(CONCURRENCY_GRID))


def case(study: Study, config: EngineConfig = CONFIG, concurrency: int = 4) -> str:
    return study.case_id(config, OperatingPoint(concurrency=concurrency))


def test_a_case_is_the_same_whatever_software_runs_it() -> None:
    study = make_study(*MODELLED)
    elsewhere = dataclasses.replace(
        study, id="another", results_dir="/elsewhere", rig="served", meter="rapl",
        engine=dataclasses.replace(study.engine, python="/opt/engine-1.2.3/bin/python"),
        search=dataclasses.replace(study.search, seed=7), plan=dataclasses.replace(study.plan, name="another"),
        workload=dataclasses.replace(study.workload, concurrency=(1,)),
    )  # fmt: skip
    assert case(elsewhere) == case(study)


def test_a_case_differs_with_all_that_makes_it_another_case() -> None:
    study = make_study(*MODELLED)
    checkpoint = study.model.checkpoints["fp4"]
    model = dataclasses.replace(study.model, name="another")
    revised = dataclasses.replace(study.model, checkpoints={"fp4": dataclasses.replace(checkpoint, revision="abc")})
    load = study.workload
    others = [
        case(dataclasses.replace(study, model=model)),
        case(dataclasses.replace(study, model=revised)),
        case(dataclasses.replace(study, weights="random")),
        case(dataclasses.replace(study, hardware=dataclasses.replace(study.hardware, name="b300"))),
        case(dataclasses.replace(study, workload=dataclasses.replace(load, isl_tokens=7))),
        case(dataclasses.replace(study, workload=dataclasses.replace(load, osl_tokens=7))),
        case(dataclasses.replace(study, workload=dataclasses.replace(load, length_ratio_min=0.5))),
        case(dataclasses.replace(study, workload=dataclasses.replace(load, seed=5))),
        case(study, concurrency=8),
        case(study, dataclasses.replace(CONFIG, precision=Precision(weights="fp4", kv_cache="fp8"))),
        case(study, dataclasses.replace(CONFIG, parallelism=Parallelism(tp=2))),
        case(study, dataclasses.replace(CONFIG, engine="vllm")),
        case(dataclasses.replace(study, hardware=dataclasses.replace(study.hardware, power_cap_w=500.0))),
        case(dataclasses.replace(study, hardware=dataclasses.replace(study.hardware, sm_clock_share=0.5))),
        case(study),
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"num_kv_heads": 7}, "num_kv_heads=7 does not divide num_heads=64"),
        ({"num_dense_layers": 37}, "num_dense_layers and num_sliding_layers are among num_layers=36"),
        ({"sliding_window_tokens": None}, "num_sliding_layers=18 need sliding_window_tokens"),
        ({"num_experts_per_token": 129}, "num_experts=128 need expert_intermediate_size and num_experts_per_token"),
        ({"num_experts_per_token": 0}, r"at most as many \(here 2880 and 0\)"),
        ({"expert_intermediate_size": 0}, "num_experts=128 need expert_intermediate_size"),
        ({"num_experts": 0, "intermediate_size": 0}, "intermediate_size is 0, and there are layers without experts"),
        ({"active_params": 10**13}, "active_params=10000000000000 exceed total_params="),
    ],
)
def test_facts_that_contradict_each_other_are_refused(facts: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        dataclasses.replace(make_study(*MODELLED).model, **facts)


def test_a_study_survives_its_json() -> None:
    study = dataclasses.replace(make_study(*MODELLED), baseline=CONFIG)
    again = TypeAdapter(Study).validate_json(study_json(study))
    assert again == study
    assert study_json(again) == study_json(study)
    assert [type(value) for value in again.axes["batching.chunked_prefill"]] == [bool] * 2
    assert [type(value) for value in again.axes["parallelism.tp"]] == [int] * 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_setting_is_infinite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        dataclasses.replace(make_study(*MODELLED).plan, window_s=value)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        TypeAdapter(Plan).validate_python({**dataclasses.asdict(make_study(*MODELLED).plan), "colour": "red"})
    with pytest.raises(ValidationError):
        Checkpoint(repo="a", format="bf16", weight_bytes=0, source="b")


@given(st.dictionaries(st.text(max_size=3), scalars, max_size=4))
def test_equal_values_have_equal_json_whatever_their_order(values: dict[str, Any]) -> None:
    backwards = dict(reversed(list(values.items())))
    assert canonical_json(values) == canonical_json(backwards)
    assert content_hash(values) == content_hash(backwards)
    assert len(content_hash(values)) == 16
