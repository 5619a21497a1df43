import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.roofline.memory import kv_bytes, kv_pool_bytes
from pipeline.rules import LENGTH_MARGIN_TOKENS, RULES, longest_prompt_tokens, why_infeasible
from pipeline.space import MAX_CONFIGS, NUM_DRAWS, build_space, engine_default
from pipeline.study import Study
from tests.builders import MODELLED, make_study, with_axes
from tests.roofline import facts

DENSE = ("model=llama-3.1-8b", *MODELLED[1:])
MIXTURE = MODELLED
EMBEDDED = ("study=test",)
REPO = Path(__file__).parents[1]


def config(study: Study, **values: Value | None) -> EngineConfig:
    """A config of the study's engine, `group__name=value` standing for `group.name`; 4-bit weights unless said."""
    axes: dict[str, Value | None] = {"precision.weights": "fp4"}
    axes |= {key.replace("__", "."): value for key, value in values.items()}
    return EngineConfig.from_axes(study.engine.name, axes)


def on(study: Study, **changes: Any) -> Study:
    """A study with facts of its model, hardware, engine or workload changed: `hardware={"num_gpus": 4}`."""
    parts = {name: dataclasses.replace(getattr(study, name), **values) for name, values in changes.items()}
    return dataclasses.replace(study, **parts)


HOPPER = ("h100", "h200")
BLACKWELL = ("b200", "b300", "gb200_nvl72", "gb300_nvl72")


@pytest.mark.parametrize("gpu", HOPPER)
def test_nvfp4_is_refused_on_hopper(gpu: str) -> None:
    study = dataclasses.replace(make_study(*DENSE), hardware=facts.hardware(gpu))
    assert study.model.checkpoints["fp4"].format == "nvfp4"
    reason = why_infeasible(config(study), study)
    assert reason is not None
    assert "precision.weights=fp4" in reason
    assert "NVFP4, which needs Blackwell" in reason


@pytest.mark.parametrize("gpu", BLACKWELL)
def test_nvfp4_is_allowed_on_blackwell(gpu: str) -> None:
    study = dataclasses.replace(make_study(*DENSE), hardware=facts.hardware(gpu))
    assert why_infeasible(config(study), study) is None


@pytest.mark.parametrize("gpu", [*HOPPER, *BLACKWELL])
def test_mxfp4_is_allowed_everywhere(gpu: str) -> None:
    study = dataclasses.replace(make_study(*MIXTURE), hardware=facts.hardware(gpu))
    assert study.model.checkpoints["fp4"].format == "mxfp4"
    assert why_infeasible(config(study, parallelism__tp=2), study) is None


def test_weights_that_the_model_does_not_have_are_refused_with_those_it_has() -> None:
    study = make_study(*MIXTURE)
    reason = why_infeasible(config(study, precision__weights="bf16"), study)
    assert reason == "precision.weights=bf16: gpt-oss-120b has no bf16 weights, only fp4"


BROKEN: list[tuple[tuple[str, ...], dict[str, Any], dict[str, Value | None], str]] = [
    (DENSE, {}, {"parallelism.tp": 3}, "tp=3 does not divide the 32 attention heads"),
    (DENSE, {"hardware": {"num_gpus": 64}}, {"parallelism.tp": 64}, "tp=64 does not divide the 32 attention heads"),
    (DENSE, {}, {"parallelism.tp": 16}, "tp x pp = 16 GPUs, 8 present"),
    (DENSE, {}, {"parallelism.tp": 8, "parallelism.pp": 2}, "tp x pp = 16 GPUs, 8 present"),
    (DENSE, {"hardware": {"num_gpus": 1}}, {"parallelism.tp": 2}, "tp x pp = 2 GPUs, 1 present"),
    (DENSE, {"hardware": {"num_gpus": 64}}, {"parallelism.pp": 33}, "pp=33 exceeds the 32 layers"),
    (DENSE, {}, {"parallelism.tp": 2, "parallelism.ep": 2}, "ep=2: llama-3.1-8b has no experts"),
    (MIXTURE, {}, {"parallelism.tp": 2, "parallelism.ep": 4}, "ep=4 does not divide tp=2"),
    (MIXTURE, {}, {"parallelism.tp": 4, "parallelism.ep": 3}, "ep=3 does not divide tp=4"),
    (
        MIXTURE,
        {"model": {"num_experts": 6}},
        {"parallelism.tp": 4, "parallelism.ep": 4},
        "ep=4 does not divide the 6 experts",
    ),
    (
        MIXTURE,
        {"engine": {"name": "vllm"}},
        {"parallelism.tp": 4, "parallelism.ep": 2},
        "vLLM's expert parallelism is all of tp=4 or none",
    ),
    (
        DENSE,
        {"engine": {"name": "vllm"}},
        {"batching.max_num_tokens": 2048 + LENGTH_MARGIN_TOKENS - 1, "batching.chunked_prefill": False},
        "max_num_tokens=2079 without chunked prefill: a prompt of the first wave may need 2080 tokens",
    ),
    (
        DENSE,
        {},
        {"batching.max_num_tokens": 512, "batching.max_batch_size": 1024, "batching.chunked_prefill": True},
        "batching.max_batch_size=1024 exceeds batching.max_num_tokens=512",
    ),
    (DENSE, {}, {"engine.knobs.kv_cache_config.enable_block_reuse": True}, "prompts share nothing"),
    (EMBEDDED, {}, {"precision.weights": "bf16", "engine.knobs.enable_prefix_caching": True}, "prompts share nothing"),
    (
        DENSE,
        {"slo": {"tpot_p99_s": 0.04}},
        {"engine.knobs.stream_interval": 20},
        "stream_interval=20: users would wait for 20 tokens at a time",
    ),
    (EMBEDDED, {}, {"precision.weights": "bf16", "parallelism.tp": 2}, "a CPU engine is one device"),
    (EMBEDDED, {}, {"precision.weights": "bf16", "parallelism.pp": 2}, "a CPU engine is one device"),
    (
        EMBEDDED,
        {},
        {"precision.weights": "bf16", "batching.max_batch_size": 16, "batching.chunked_prefill": True},
        "max_batch_size has no effect under chunked prefill",
    ),
    (
        DENSE,
        {"hardware": {"memory_bytes": 5_000_000_000}},
        {},
        "does not fit b200: 6.0 GB of weights",
    ),
]


@pytest.mark.parametrize(("overrides", "changes", "axes", "reason"), BROKEN)
def test_a_broken_rule_says_what_is_wrong(
    overrides: tuple[str, ...], changes: dict[str, Any], axes: dict[str, Value | None], reason: str
) -> None:
    study = on(make_study(*overrides), **changes)
    found = why_infeasible(EngineConfig.from_axes(study.engine.name, {"precision.weights": "fp4"} | axes), study)
    assert found is not None
    assert reason in found
    assert "\n" not in found


ALLOWED: list[tuple[tuple[str, ...], dict[str, Any], dict[str, Value | None]]] = [
    (DENSE, {}, {"parallelism.tp": 8}),
    (DENSE, {}, {"parallelism.tp": 4, "parallelism.pp": 2}),
    (DENSE, {}, {"parallelism.tp": 2, "parallelism.attention_dp": True}),
    (DENSE, {"hardware": {"num_gpus": 32}}, {"parallelism.tp": 32}),
    # each rank has all heads
    (MIXTURE, {"hardware": {"num_gpus": 12}}, {"parallelism.tp": 6, "parallelism.attention_dp": True}),
    (MIXTURE, {}, {"parallelism.tp": 4, "parallelism.ep": 2}),
    (MIXTURE, {"engine": {"name": "vllm"}}, {"parallelism.tp": 4, "parallelism.ep": 4}),
    (
        DENSE,
        {"engine": {"name": "vllm"}},
        {"batching.max_num_tokens": 2048 + LENGTH_MARGIN_TOKENS, "batching.chunked_prefill": False},
    ),
    (DENSE, {}, {"engine.knobs.kv_cache_config.enable_block_reuse": False}),
    (DENSE, {"workload": {"shared_prefix_tokens": 64}}, {"engine.knobs.kv_cache_config.enable_block_reuse": True}),
    (DENSE, {}, {"engine.knobs.stream_interval": 20}),
    (DENSE, {"slo": {"tpot_p99_s": 0.04}}, {"engine.knobs.stream_interval": 1}),
    (DENSE, {}, {"batching.max_num_tokens": 512, "batching.chunked_prefill": True}),
    (DENSE, {}, {"batching.max_num_tokens": 512, "batching.max_batch_size": 512, "batching.chunked_prefill": True}),
    (DENSE, {}, {"batching.max_batch_size": 4096}),
    (EMBEDDED, {}, {"precision.weights": "bf16", "batching.max_batch_size": 16, "batching.chunked_prefill": False}),
    (EMBEDDED, {}, {"precision.weights": "bf16", "batching.max_batch_size": 4, "batching.chunked_prefill": True}),
]


@pytest.mark.parametrize(("overrides", "changes", "axes"), ALLOWED)
def test_the_nearest_possible_config_is_allowed(
    overrides: tuple[str, ...], changes: dict[str, Any], axes: dict[str, Value | None]
) -> None:
    study = on(make_study(*overrides), **changes)
    chosen = EngineConfig.from_axes(study.engine.name, {"precision.weights": "fp4"} | axes)
    assert why_infeasible(chosen, study) is None


SPACES = [
    MODELLED,
    (*MODELLED, "hardware=h100"),
    (*DENSE, "hardware=h200", "parallelism.attention_dp=[false,true]", "parallelism.pp=[1,2]", "batching=default"),
    (*MODELLED, "model=deepseek-r1", "engine=vllm", "batching.kv_cache_fraction=0.9"),
    EMBEDDED,
]


@pytest.mark.parametrize("overrides", SPACES)
def test_every_config_of_a_space_passes_every_rule_and_none_comes_twice(overrides: tuple[str, ...]) -> None:
    study = make_study(*overrides)
    space = build_space(study)
    for each in space.configs:
        assert [rule(each, study) for rule in RULES] == [None] * len(RULES)
    assert len({each.config_hash for each in space.configs}) == len(space.configs)
    total = math.prod(len(values) for values in study.axes.values())
    assert len(space.configs) + space.num_excluded <= total  # fewer: an axis without effect makes no further config
    assert all(reason and "\n" not in reason for reason in space.exclusions)
    default = engine_default(space)
    assert why_infeasible(default, study) is None


def test_equal_configs_of_different_spelling_come_once() -> None:
    study = with_axes(
        make_study(*MODELLED), precision__weights="fp4", parallelism__tp=(1, 2), parallelism__ep=(1, None),
        parallelism__attention_dp=(False, None), batching__kv_cache_fraction=(0.9, 1, 1.0),
    )  # fmt: skip
    space = build_space(study)
    assert len(space.configs) == 4
    assert space.num_excluded == 0


@pytest.mark.parametrize("sizes", [(4, 16, 64), (64, 16, 4), (None, 64), (64, None)])
def test_of_configs_that_the_embedded_engine_cannot_tell_apart_one_is_kept(sizes: tuple[int | None, ...]) -> None:
    study = with_axes(
        make_study(*EMBEDDED), batching__max_batch_size=sizes, batching__chunked_prefill=(True, False),
        batching__max_num_tokens=(256, 1024),
    )  # fmt: skip
    configs = build_space(study).configs
    chunked = [each for each in configs if each.batching.chunked_prefill]
    whole = [each for each in configs if not each.batching.chunked_prefill]
    assert len(chunked) == 2
    assert len(whole) == 2 * len(sizes)


def test_the_config_kept_is_one_that_breaks_no_other_rule() -> None:
    study = with_axes(
        make_study(*EMBEDDED), batching__max_batch_size=(64, 4), batching__max_num_tokens=32,
        batching__chunked_prefill=True,
    )  # fmt: skip
    (kept,) = build_space(study).configs
    assert kept.batching.max_batch_size == 4


def test_an_empty_space_names_its_reasons() -> None:
    study = with_axes(on(make_study(*DENSE), hardware={"arch": "hopper", "name": "h100"}), precision__weights="fp4")
    with pytest.raises(ConfigError, match=r"no feasible configuration for model=llama-3\.1-8b hardware=h100: .*NVFP4"):
        build_space(study)


def test_the_commonest_reasons_of_an_empty_space_come_first() -> None:
    study = with_axes(make_study(*MODELLED), precision__weights=("bf16", "fp8"), parallelism__tp=(1, 2, 4))
    with pytest.raises(ConfigError, match=r"has no bf16 weights, only fp4; .*has no fp8 weights, only fp4$"):
        build_space(study)


def test_the_engines_own_refusals_are_exclusions_after_the_rules() -> None:
    study = with_axes(make_study(*MODELLED), precision__weights=("fp4", "bf16"), parallelism__tp=(1, 2))
    space = build_space(study, lambda config: "no, says the engine" if config.parallelism.tp == 2 else None)
    assert [each.parallelism.tp for each in space.configs] == [1]
    assert space.exclusions["no, says the engine"] == 1
    with pytest.raises(ConfigError, match="no, says the engine"):
        build_space(study, lambda _: "no, says the engine")


def test_of_an_engines_refusals_that_of_the_plain_config_is_named_and_no_other() -> None:
    sizes = (None, *range(1, 10))
    study = with_axes(make_study(*MODELLED), precision__weights=("fp4", "bf16"), batching__max_batch_size=sizes)
    with pytest.raises(ConfigError, match=r"hardware=b200: no weights here$"):
        build_space(study, lambda config: "no such size" if config.batching.max_batch_size else "no weights here")


def test_a_baseline_that_cannot_be_is_refused_before_anything_else() -> None:
    study = with_axes(make_study(*MODELLED), precision__weights="fp4")
    wide = dataclasses.replace(study, baseline=config(study, parallelism__tp=16))
    with pytest.raises(ConfigError, match=r"^baseline: parallelism: tp x pp = 16 GPUs, 8 present$"):
        build_space(wide)
    other = dataclasses.replace(study, baseline=config(study, parallelism__tp=2))
    with pytest.raises(ConfigError, match=r"^baseline: not two$"):
        build_space(other, lambda each: "not two" if each.parallelism.tp == 2 else None)
    assert build_space(other).configs


def test_the_order_of_a_space_is_the_same_in_every_process() -> None:
    program = (
        "from tests.builders import MODELLED, make_study, with_axes; from pipeline.space import build_space; "
        "study = with_axes(make_study(*MODELLED), precision__weights='fp4', batching__max_num_tokens=(256, 512), "
        "batching__max_batch_size=(8, 16), batching__kv_cache_fraction=(0.8, 0.9)); "
        "print([each.config_hash for each in build_space(study).configs])"
    )
    printed = {
        subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, cwd=REPO,
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(printed) == 1


def test_of_too_many_configs_some_are_drawn_and_the_space_says_so() -> None:
    many = tuple(range(64, 64 + MAX_CONFIGS // 100 + 1))
    sizes = (None, *range(1, 100))
    fp4 = with_axes(make_study(*MODELLED), precision__weights="fp4")
    study = with_axes(fp4, batching__max_num_tokens=many, batching__max_batch_size=sizes)
    space = build_space(study)
    assert space.is_drawn
    assert space.num_combinations == len(many) * 100
    assert 100 < len(space.configs) <= NUM_DRAWS
    assert build_space(study).configs == space.configs
    assert all(why_infeasible(each, study) is None for each in space.configs)
    assert len({each.config_hash for each in space.configs}) == len(space.configs)


def test_a_drawn_space_allows_what_was_not_drawn_but_breaks_no_rule() -> None:
    tokens = tuple(range(64, 300_000))
    study = with_axes(make_study(*MODELLED), precision__weights="fp4", batching__max_num_tokens=tokens)
    space = build_space(study, lambda config: "odd" if (config.batching.max_num_tokens or 0) % 2 else None)
    drawn = {each.batching.max_num_tokens for each in space.configs}
    other = next(tokens for tokens in range(64, 300_000, 2) if tokens not in drawn)
    assert space.allows(config(study, batching__max_num_tokens=other))
    assert not space.allows(config(study, batching__max_num_tokens=other + 1))


def test_a_space_without_choice_has_one_config() -> None:
    study = with_axes(make_study(*MODELLED), precision__weights="fp4")
    assert len(build_space(study).configs) == 1


def test_the_default_sets_nothing_and_takes_the_fewest_gpus() -> None:
    study = dataclasses.replace(make_study(*MODELLED), hardware=facts.hardware("h100"))
    default = engine_default(build_space(study))
    assert not any(key.startswith(("batching.", "engine.")) for key in default.requested())
    fewer = [n for n in (1, 2, 4, 8) if n < default.parallelism.num_gpus]
    for tp in fewer:
        assert why_infeasible(config(study, parallelism__tp=tp, precision__kv_cache="auto"), study) is not None


def test_the_default_is_a_feasible_config_where_setting_nothing_is_not() -> None:
    study = make_study(*MODELLED)
    chosen = config(study)
    bare_does_not_fit = on(study, workload={"isl_tokens": 10_000_000})
    assert engine_default(dataclasses.replace(build_space(study), study=bare_does_not_fit, configs=(chosen,))) == chosen


def test_what_fits_is_what_the_roofline_says_to_the_byte() -> None:
    study = make_study(*DENSE)
    chosen = config(study, precision__weights="bf16")
    needed = kv_bytes(study.model, chosen, study.workload.max_seq_len_tokens)
    assert study.hardware.memory_bytes is not None
    spare = (kv_pool_bytes(study.model, study.hardware, chosen) - needed) / 0.9
    for spare_bytes, feasible in ((1e6, True), (-1e6, False)):
        memory_bytes = round(study.hardware.memory_bytes - spare + spare_bytes)
        found = why_infeasible(chosen, on(study, hardware={"memory_bytes": memory_bytes}))
        assert (found is None) is feasible


@pytest.mark.parametrize(
    ("engine", "batching", "limit_tokens"),
    [
        ("trtllm", {"batching.max_num_tokens": 1216}, 1216),
        ("trtllm", {}, 8192),
        ("trtllm", {"batching.max_num_tokens": 1216, "batching.chunked_prefill": True}, None),
        ("vllm", {"batching.max_num_tokens": 1216}, None),
        ("vllm", {"batching.max_num_tokens": 4096, "batching.chunked_prefill": False}, 4096),
    ],
)
def test_prompts_have_a_limit_where_they_go_through_whole(
    engine: str, batching: dict[str, Value | None], limit_tokens: int | None
) -> None:
    chosen = EngineConfig.from_axes(engine, {"precision.weights": "fp4", **batching})
    assert longest_prompt_tokens(chosen) == limit_tokens
