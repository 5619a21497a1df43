"""Split deployments as values: their axes, their size and their identity."""

import dataclasses

import pytest

from pipeline.disaggregation import Disaggregation, deployments, num_servers, shared_axes
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.held import held
from pipeline.study import Study
from tests.builders import MODELLED, make_study

SPLIT = (*MODELLED, "disaggregation=split")


def split_of(study: Study) -> Disaggregation:
    assert study.disaggregation is not None
    return study.disaggregation


def test_without_it_nothing_changes() -> None:
    study = make_study(*MODELLED)
    assert study.disaggregation is None
    assert not [key for key in held(study) if "disaggregation" in key]
    assert make_study(*MODELLED, "disaggregation=none") == study


def test_a_server_has_the_shared_formats_and_its_own_axes() -> None:
    study = make_study(
        *SPLIT, "disaggregation.num_context_servers=[1,3]", "disaggregation.num_generation_servers=2",
        "disaggregation.context.parallelism.tp=2", "disaggregation.generation.parallelism.tp=[4,8]",
        "disaggregation.generation.knobs.moe_config.backend=TRTLLM", "precision.kv_cache=fp8", "precision.weights=fp4",
    )  # fmt: skip
    found = list(deployments("trtllm", study.axes, split_of(study)))
    assert {d.num_context_servers for d in found} == {1, 3}
    assert {d.num_generation_servers for d in found} == {2}
    assert {d.context.parallelism.tp for d in found} == {2}
    assert {d.generation.parallelism.tp for d in found} == {4, 8}
    assert {(d.context.precision, d.generation.precision) for d in found} == {(found[0].context.precision,) * 2}
    assert {d.generation.knobs.get("moe_config.backend") for d in found} == {"TRTLLM"}
    assert not [d for d in found if "moe_config.backend" in d.context.knobs]
    assert all(d.num_gpus == d.num_context_servers * 2 + 2 * d.generation.parallelism.tp for d in found)
    assert len({d.config_hash for d in found}) == len(found)


def test_a_knob_of_the_engine_with_one_value_is_of_both_kinds_and_a_servers_own_wins() -> None:
    study = make_study(
        *SPLIT, "engine.knobs.attn_backend=FLASHINFER", "engine.knobs.enable_autotuner=[true,false]",
        "engine.knobs.disable_overlap_scheduler=false",
    )  # fmt: skip
    shared = shared_axes(study.axes)
    assert shared["engine.knobs.attn_backend"] == ("FLASHINFER",)
    assert "engine.knobs.enable_autotuner" not in shared
    assert not [key for key in shared if key.startswith(("parallelism.", "batching."))]
    first = next(deployments("trtllm", study.axes, split_of(study)))
    assert first.context.knobs["disable_overlap_scheduler"] is True
    assert first.generation.knobs["disable_overlap_scheduler"] is False


def test_impossible_servers_are_left_out_before_they_are_combined() -> None:
    study = make_study(*SPLIT)
    asked: list[tuple[str, EngineConfig]] = []

    def is_possible(kind: str, config: EngineConfig) -> bool:
        asked.append((kind, config))
        return config.parallelism.tp == (1 if kind == "context" else 8)

    found = list(deployments("trtllm", study.axes, split_of(study), is_possible))
    assert {(d.context.parallelism.tp, d.generation.parallelism.tp) for d in found} == {(1, 8)}
    per_kind = max(sum(kind == asked_kind for asked_kind, _ in asked) for kind in ("context", "generation"))
    assert per_kind == num_servers(study.axes, split_of(study))


def test_identity_is_that_of_both_configs_and_how_often_each_is_there() -> None:
    study = make_study(*SPLIT)
    one = next(deployments("trtllm", study.axes, split_of(study)))
    assert one.requested()["context.parallelism.tp"] == 1
    assert one.requested()["num_generation_servers"] == 1
    swapped = dataclasses.replace(one, context=one.generation, generation=one.context)
    more = dataclasses.replace(one, num_context_servers=2)
    assert len({one.config_hash, swapped.config_hash, more.config_hash, one.context.config_hash}) == 4


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["disaggregation=spilt"], ["did you mean 'split'?", "allowed: none, split"]),
        (["disaggregation=split", "engine=vllm"], ["engine=trtllm", "disaggregation=split"]),
        (["disaggregation.context.knobs.max_beam_width=1"], ["disaggregation=split"]),
        (["disaggregation=split", "disaggregation.num_context_servers=0"], ["num_context_servers", "greater than 0"]),
        (["disaggregation=split", "disaggregation.num_context_servers=[]"], ["num_context_servers", "at least 1"]),
        (["disaggregation=split", "disaggregation.context.parallelism.tp=two"], ["disaggregation.context", "tp='two'"]),
        (["disaggregation=split", "disaggregation.router=best"], ["disaggregation.router='best'", "round_robin"]),
        (["disaggregation=split", "disaggregation.cache_transceiver.backend=MPI"], ["backend='MPI'", "NIXL"]),
        (["disaggregation=split", "disaggregation.contex.parallelism.tp=1"], ["unknown key", "did you mean"]),
    ],
)
def test_what_is_wrong_is_named(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        make_study(*MODELLED, *overrides)
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)
