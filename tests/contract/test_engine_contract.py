"""What every engine adapter promises, whatever it adapts."""

import dataclasses
import functools
import re
from pathlib import Path

import pytest

from pipeline.engine.catalog import ENGINES, find_engine, refusal
from pipeline.engine.process import free_port
from pipeline.engine.protocol import Engine
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.space import build_space, engine_default
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from tests.builders import make_study

GPU = ("hardware=h100", "precision=auto", "parallelism=auto", "batching=auto", "workload=chat_1k_1k", "plan=quick")
STUDIES = {
    "openvino": make_study(),
    "vllm": make_study("model=llama-3.1-8b", "engine=vllm", "weights=random", *GPU),
    "trtllm": make_study("model=llama-3.1-8b", "engine=trtllm", *GPU),
    "attached": make_study("engine=attached"),
}
NOT_STARTED = "attached"
"""Is there already: nothing is rendered or looked for."""

PLACEHOLDERS = {"python", "bin", "dir", "host", "port", "embedded", "side", "model"}


Case = tuple[Engine, Study, list[EngineConfig]]
"""An engine, a study of it, and configs it can render: its default and some of the space."""


@functools.cache  # a large space takes seconds
def make_case(name: str) -> Case:
    engine, study = ENGINES[name], STUDIES[name]
    space = build_space(study, lambda config: refusal(engine, config, study))
    return engine, study, [engine_default(space), *space.configs[:: max(1, len(space.configs) // 20)]]


@pytest.fixture(params=sorted(ENGINES))
def case(request: pytest.FixtureRequest) -> Case:
    """Every engine."""
    return make_case(request.param)


@pytest.fixture(params=sorted(set(ENGINES) - {NOT_STARTED}))
def started(request: pytest.FixtureRequest) -> Case:
    """Every engine that we start."""
    return make_case(request.param)


def test_every_engine_has_a_case() -> None:
    assert set(STUDIES) == set(ENGINES)


def test_its_name_is_its_key(case: Case) -> None:
    engine, study, _ = case
    assert engine.name == study.engine.name
    assert find_engine(study) is engine


def test_rendering_is_pure(case: Case) -> None:
    engine, study, configs = case
    for config in configs:
        first, second = engine.render(config, study), engine.render(config, study)
        assert first == second
        assert first.rendered_hash == second.rendered_hash


def test_different_configs_render_differently(started: Case) -> None:
    engine, study, configs = started
    distinct = {config.config_hash: config for config in configs}
    assert len({engine.render(config, study).rendered_hash for config in distinct.values()}) >= len(distinct) / 2


def test_nothing_of_this_machine_is_rendered(started: Case) -> None:
    engine, study, configs = started
    for config in configs:
        rendered = engine.render(config, study)
        text = " ".join([*rendered.argv, *rendered.env.values(), *rendered.files.values()])
        assert not re.search(r"(?:^|[\s=\"])/\w", text), text
        assert "{port}" in text
        assert set(re.findall(r"\{(\w+)\}", " ".join(rendered.argv))) <= PLACEHOLDERS


def test_random_weights_say_how_they_were_drawn(case: Case) -> None:
    engine, study, configs = case
    assert (engine.render(configs[0], study).weights_init is not None) == (study.weights == "random")


def test_an_unknown_knob_is_refused_by_name(case: Case) -> None:
    engine, study, _ = case
    odd = make_study(f"engine={engine.name}", f"hardware={study.hardware.name}", "+engine.knobs.no_such_knob=1")
    with pytest.raises(ConfigError, match=r"engine\.knobs\.no_such_knob"):
        find_engine(odd)
    assert "no_such_knob" not in engine.knobs


def test_an_empty_log_says_nothing(case: Case) -> None:
    engine, _, _ = case
    assert engine.effective_config([]) == {}
    assert engine.failure([]) is TrialStatus.START_FAILED


def test_the_ready_request_generates(case: Case) -> None:
    engine, study, _ = case
    body = engine.ready_request(study)
    assert body["model"] == study.model.name
    assert body["prompt"]
    assert isinstance(body["max_tokens"], int)
    assert body["max_tokens"] > 0


def test_a_missing_runtime_is_said_with_the_fix(started: Case) -> None:
    engine, study, _ = started
    study = make_study(f"engine={engine.name}", f"hardware={study.hardware.name}", "engine.python=/nowhere/bin/python")
    found = engine.availability(study)
    assert found.version is None
    assert found.why_not is not None
    assert "engine.python" in found.why_not
    assert "/nowhere/bin/python" in found.why_not


def test_a_server_that_is_not_there_has_no_counters(case: Case) -> None:
    engine, _, _ = case
    assert engine.counters(f"http://127.0.0.1:{free_port('127.0.0.1')}") is None


def test_kernel_caches_follow_the_engines_environment_and_hold_none_twice(case: Case) -> None:
    engine, _, _ = case
    caches = engine.kernel_caches({"HOME": "/home/u", "TMPDIR": "/home/u/tmp"})
    assert all(path.is_relative_to("/home/u") for path in caches)
    assert not [path for path in caches if set(path.parents) & set(caches)]
    assert engine.kernel_caches({"HOME": "/home/v", "TMPDIR": "/home/v/tmp"}) == tuple(
        Path("/home/v") / path.relative_to("/home/u") for path in caches
    )


def test_an_ordinary_log_line_tells_of_no_kernel(case: Case) -> None:
    engine, _, _ = case
    for line in ("", "INFO: Application startup complete.", "Running: 64 reqs, Waiting: 0 reqs"):
        assert engine.compile_line is None or not engine.compile_line.search(line)


def test_weights_that_nobody_looked_at_are_not_called_constant(case: Case) -> None:
    engine, _, _ = case
    assert engine.constant_weights([]) is None


def test_another_seed_is_another_start_where_weights_are_random(started: Case) -> None:
    engine, study, configs = started
    plain, seeded = (engine.render(configs[0], dataclasses.replace(study, weights_seed=seed)) for seed in (0, 5))
    assert plain == engine.render(configs[0], study)
    assert (plain != seeded) == (study.weights == "random")
    assert seeded.weights_init is None or "seed 5" in seeded.weights_init


def test_a_shared_prefix_is_another_start(started: Case) -> None:
    engine, study, configs = started
    workload = dataclasses.replace(study.workload, shared_prefix_tokens=128)
    shared = engine.render(configs[0], dataclasses.replace(study, workload=workload))
    assert shared.rendered_hash != engine.render(configs[0], study).rendered_hash
