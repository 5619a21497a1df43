"""What every engine adapter promises, whatever it adapts."""

import re

import pytest

from pipeline.engine.catalog import ENGINES, find_engine
from pipeline.engine.protocol import Engine
from pipeline.errors import ConfigError
from pipeline.record import TrialStatus
from pipeline.space import build_space, engine_default
from pipeline.study import EngineConfig, Study
from tests.builders import make_study

GPU = ("hardware=h100", "precision=auto", "parallelism=auto", "batching=auto", "workload=chat_1k_1k", "plan=quick")
STUDIES = {
    "openvino": make_study(),
    "vllm": make_study("model=llama-3.1-8b", "engine=vllm", "weights=random", *GPU),
    "trtllm": make_study("model=llama-3.1-8b", "engine=trtllm", *GPU),
}
PLACEHOLDERS = {"python", "bin", "dir", "host", "port", "embedded", "side", "model"}


@pytest.fixture(params=sorted(ENGINES))
def case(request: pytest.FixtureRequest) -> tuple[Engine, Study, list[EngineConfig]]:
    """An engine, a study of it, and configs it can render: its default and some of the space."""
    engine, study = ENGINES[request.param], STUDIES[request.param]
    space = build_space(study)
    return engine, study, [engine_default(study, space), *space.configs[:: max(1, len(space.configs) // 20)]]


def test_every_engine_has_a_case() -> None:
    assert set(STUDIES) == set(ENGINES)


def test_its_name_is_its_key(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, study, _ = case
    assert engine.name == study.engine.name
    assert find_engine(study) is engine


def test_rendering_is_pure(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, study, configs = case
    for config in configs:
        first, second = engine.render(config, study), engine.render(config, study)
        assert first == second
        assert first.rendered_hash == second.rendered_hash


def test_different_configs_render_differently(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, study, configs = case
    distinct = {config.config_hash: config for config in configs}
    assert len({engine.render(config, study).rendered_hash for config in distinct.values()}) >= len(distinct) / 2


def test_nothing_of_this_machine_is_rendered(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, study, configs = case
    for config in configs:
        rendered = engine.render(config, study)
        text = " ".join([*rendered.argv, *rendered.env.values(), *rendered.files.values()])
        assert not re.search(r"(?:^|[\s=\"])/\w", text), text
        assert "{port}" in text
        assert set(re.findall(r"\{(\w+)\}", " ".join(rendered.argv))) <= PLACEHOLDERS


def test_random_weights_say_how_they_were_drawn(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, study, configs = case
    assert (engine.render(configs[0], study).weights_init is not None) == (study.weights == "random")


def test_an_unknown_knob_is_refused_by_name(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, _, _ = case
    odd = make_study(f"engine={engine.name}", "+engine.knobs.no_such_knob=1")
    with pytest.raises(ConfigError, match=r"engine\.knobs\.no_such_knob"):
        find_engine(odd)
    assert "no_such_knob" not in engine.knobs


def test_an_empty_log_says_nothing(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, _, _ = case
    assert engine.effective_config([]) == {}
    assert engine.failure([]) is TrialStatus.START_FAILED


def test_the_ready_request_generates(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, study, _ = case
    body = engine.ready_request(study)
    assert body["model"] == study.model.name
    assert body["prompt"]
    assert isinstance(body["max_tokens"], int)
    assert body["max_tokens"] > 0


def test_a_missing_runtime_is_said_with_the_fix(case: tuple[Engine, Study, list[EngineConfig]]) -> None:
    engine, _, _ = case
    study = make_study(f"engine={engine.name}", "engine.python=/nowhere/bin/python")
    found = engine.availability(study)
    assert found.version is None
    assert found.why_not is not None
    assert "engine.python" in found.why_not
    assert "/nowhere/bin/python" in found.why_not
