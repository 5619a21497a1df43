"""The embedded engine's adapter: what a config becomes, and what the engine's log says."""

import dataclasses
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_study
from pipeline.engine.gguf_model import prepare_model
from pipeline.engine.openvino import OpenvinoEngine
from pipeline.engine_config import EngineConfig, Scalar
from pipeline.errors import ConfigError, EngineError
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from tests.engine.embedded_engine import ENGINE_PYTHON, SMALL

ENGINE = OpenvinoEngine()

LOG = """loading /models/model.gguf
Model: OV Tokenizer
  INFERENCE_NUM_THREADS: 9
EXECUTION_DEVICES:
 CPU: AMD EPYC
Model: LLM with Paged Attention
  INFERENCE_NUM_THREADS: 2
  MODEL_DISTRIBUTION_POLICY: 
  KV_CACHE_PRECISION: f16
EXECUTION_DEVICES:
 CPU: AMD EPYC
effective: {"openvino_genai": "2026.4.1", "scheduler": {"cache_size": 1, "dynamic_split_fuse": true}, "plugin": {}}
ready: http://127.0.0.1:8000/v1 serves tiny-llama
"""  # noqa: W291  # a log of OpenVINO GenAI 2026.4.1, shortened; it does end the line of an empty property so


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("engines")
    return load_study([f"engines_dir={folder}", f"engine.python={ENGINE_PYTHON}"])


def config(**values: Scalar | None) -> EngineConfig:
    """A config with the given axes, written with __ for the dot."""
    axes = {"precision.weights": "bf16", **{key.replace("__", "."): value for key, value in values.items()}}
    return EngineConfig.from_axes("openvino", axes)


def small(study: Study, **changes: Any) -> Study:
    """The study with a model that is written in no time."""
    model = dataclasses.replace(
        study.model,
        num_layers=SMALL["layers"],
        hidden_size=SMALL["hidden"],
        num_heads=SMALL["heads"],
        num_kv_heads=SMALL["kv-heads"],
        head_dim=SMALL["hidden"] // SMALL["heads"],
        intermediate_size=SMALL["intermediate"],
        vocab_size=SMALL["vocab"],
    )
    return dataclasses.replace(study, model=dataclasses.replace(model, **changes))


def settings(study: Study, **values: Scalar | None) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Scheduler and plugin settings that a config becomes."""
    argv = ENGINE.render(config(**values), study).argv
    return json.loads(argv[argv.index("--scheduler") + 1]), json.loads(argv[argv.index("--plugin") + 1])


def test_render_is_stable_and_knows_no_place(study: Study) -> None:
    elsewhere = dataclasses.replace(study, engines_dir="/elsewhere", results_dir="/elsewhere")
    rendered = ENGINE.render(config(), study)
    assert rendered == ENGINE.render(config(), elsewhere)
    assert rendered.argv[:4] == ("{python}", "{embedded}/server.py", "--model", "{model}")
    assert rendered.argv[rendered.argv.index("--port") + 1] == "{port}"
    assert rendered.argv[rendered.argv.index("--host") + 1] == "{host}"
    text = json.dumps([rendered.files, rendered.argv])
    assert str(study.engines_dir) not in text
    assert str(Path(__file__).parents[2]) not in text


def test_only_what_is_set_is_passed_on(study: Study) -> None:
    assert settings(study) == ({"cache_size": 1}, {"INFERENCE_PRECISION_HINT": "bf16"})


@pytest.mark.parametrize(
    ("key", "value", "scheduler", "plugin"),
    [
        ("batching__max_batch_size", 4, {"max_num_seqs": 4}, {}),
        ("batching__max_num_tokens", 64, {"max_num_batched_tokens": 64}, {}),
        ("batching__chunked_prefill", True, {"dynamic_split_fuse": True}, {}),
        ("batching__chunked_prefill", False, {"dynamic_split_fuse": False}, {}),
        ("precision__weights", "fp32", {}, {"INFERENCE_PRECISION_HINT": "f32"}),
        ("precision__kv_cache", "u8", {}, {"KV_CACHE_PRECISION": "u8"}),
        ("precision__kv_cache", "auto", {}, {}),
        ("engine.knobs__num_threads", 2, {}, {"INFERENCE_NUM_THREADS": 2}),
        ("engine.knobs__cache_size_gb", 3, {"cache_size": 3}, {}),
        ("engine.knobs__enable_prefix_caching", False, {"enable_prefix_caching": False}, {}),
    ],
)
def test_each_axis_becomes_its_setting(
    study: Study, key: str, value: Scalar, scheduler: dict[str, Scalar], plugin: dict[str, Scalar]
) -> None:
    expected = ({"cache_size": 1} | scheduler, {"INFERENCE_PRECISION_HINT": "bf16"} | plugin)
    assert settings(study, **{key: value}) == expected


def test_every_difference_shows_in_the_hash(study: Study) -> None:
    variants = [
        config(),
        config(batching__max_batch_size=4),
        config(batching__max_num_tokens=64),
        config(batching__chunked_prefill=False),
        config(precision__weights="fp32"),
        config(precision__kv_cache="u8"),
        config(**{"engine.knobs__num_threads": 1}),
    ]
    hashes = [ENGINE.render(variant, study).rendered_hash for variant in variants]
    hashes += [ENGINE.render(config(), small(study)).rendered_hash]
    hashes += [
        ENGINE.render(
            config(), dataclasses.replace(study, engine=dataclasses.replace(study.engine, env={"X": "1"}))
        ).rendered_hash
    ]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"parallelism__tp": 2}, "parallelism"),
        ({"precision__weights": "fp8"}, "precision.weights=fp8"),
        ({"precision__kv_cache": "fp8"}, "precision.kv_cache=fp8"),
        ({"batching__kv_cache_fraction": 0.9}, "engine.knobs.cache_size_gb"),
        ({"engine.knobs__streams": 2}, "allowed: cache_size_gb, enable_prefix_caching, num_threads"),
        ({"engine.knobs__num_threads": 0}, "engine.knobs.num_threads=0"),
        ({"engine.knobs__num_threads": True}, "engine.knobs.num_threads=True"),
        ({"engine.knobs__enable_prefix_caching": 1}, "engine.knobs.enable_prefix_caching=1"),
        ({"batching__chunked_prefill": False, "batching__max_num_tokens": 64}, "batching.max_num_tokens=64"),
        ({"batching__chunked_prefill": False, "batching__max_batch_size": 512}, "batching.max_batch_size=512"),
    ],
)
def test_what_the_engine_lacks_is_refused_by_name(study: Study, values: dict[str, Scalar], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ENGINE.render(config(**values), study)


def test_random_weights_say_how_they_are_drawn(study: Study, tmp_path: Path) -> None:
    assert ENGINE.render(config(), study).weights_init == "normal(0, 0.02), seed 0"
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    own = dataclasses.replace(small(study, path=str(tmp_path / "own.gguf")), weights="checkpoint")
    assert ENGINE.render(config(), own).weights_init is None
    assert ENGINE.places(config(), own) == {"model": str(tmp_path / "own.gguf")}


def test_openvino_folder_is_a_checkpoint(study: Study, tmp_path: Path) -> None:
    (tmp_path / "openvino_model.bin").write_bytes(b"12345")
    own = dataclasses.replace(small(study, path=str(tmp_path)), weights="checkpoint")
    assert prepare_model(own) == tmp_path
    assert json.loads(ENGINE.render(config(), own).files["model.json"]) == {"file": "openvino_model.bin", "bytes": 5}


@pytest.mark.parametrize("path", [None, "missing.gguf", "."])
def test_missing_weights_name_the_ways_out(study: Study, path: str | None, tmp_path: Path) -> None:
    own = small(study, path=None if path is None else str(tmp_path / path))
    with pytest.raises(ConfigError, match=r"model\.path.*\.gguf.*weights=random"):
        ENGINE.render(config(), dataclasses.replace(own, weights="checkpoint"))
    with pytest.raises(ConfigError, match=r"weights=none.*weights=random"):
        prepare_model(dataclasses.replace(own, weights="none"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_experts": 8, "num_experts_per_token": 2, "expert_intermediate_size": 64}, "experts"),
        ({"mla_kv_dim": 64}, "latent"),
        ({"head_dim": 8}, r"model\.head_dim 8"),
    ],
)
def test_architectures_that_cannot_be_drawn_are_refused(study: Study, changes: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        prepare_model(small(study, **changes))


def test_random_model_is_written_once_per_architecture(study: Study) -> None:
    first = prepare_model(small(study))
    written_ns = first.stat().st_mtime_ns
    assert first.name == "model.gguf"
    assert first.parent.parent == Path(study.engines_dir) / "models"
    assert prepare_model(small(study)) == first
    assert first.stat().st_mtime_ns == written_ns
    assert prepare_model(small(study, num_layers=1)) != first


def test_another_seed_draws_another_model_in_another_folder(study: Study) -> None:
    plain, seeded = small(study), dataclasses.replace(small(study), weights_seed=1)
    assert prepare_model(plain).read_bytes() != prepare_model(seeded).read_bytes()
    assert "seed1" in str(prepare_model(seeded).parent)
    rendered = ENGINE.render(config(), seeded)
    assert rendered.weights_init == "normal(0, 0.02), seed 1"
    assert rendered.rendered_hash != ENGINE.render(config(), plain).rendered_hash


def test_prefix_caching_is_on_where_prompts_share_a_prefix_unless_the_knob_says_otherwise(study: Study) -> None:
    shared = dataclasses.replace(study, workload=dataclasses.replace(study.workload, shared_prefix_tokens=32))
    knob = "engine.knobs__enable_prefix_caching"
    assert "enable_prefix_caching" not in settings(study)[0]
    assert settings(shared)[0]["enable_prefix_caching"] is True
    assert settings(shared, **{knob: False})[0]["enable_prefix_caching"] is False
    assert settings(study, **{knob: True})[0]["enable_prefix_caching"] is True


def test_unwritable_model_carries_the_reason(study: Study) -> None:
    no_python = dataclasses.replace(study.engine, python="/no/such/python")
    with pytest.raises(EngineError, match="/no/such/python"):
        prepare_model(dataclasses.replace(small(study, num_layers=3), engine=no_python))


def test_available_where_the_engine_is_installed(study: Study) -> None:
    found = ENGINE.availability(study)
    assert found.why_not is None, found.why_not
    assert found.version is not None
    assert found.version[:2] == "20"


def test_unavailable_names_key_reason_and_fix(study: Study, tmp_path: Path) -> None:
    not_executable = tmp_path / "python"
    not_executable.write_text("")
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nexit 3\n")
    failing.chmod(failing.stat().st_mode | stat.S_IXUSR)
    for python, reason in {
        "/no/such/python": "No such file",
        str(not_executable): "Permission denied",
        str(failing): "exit status 3",
        sys.executable: "ModuleNotFoundError",
    }.items():
        found = ENGINE.availability(dataclasses.replace(study, engine=dataclasses.replace(study.engine, python=python)))
        assert found.version is None
        assert found.why_not is not None
        assert f"engine.python={python}" in found.why_not
        assert reason in found.why_not
        assert "make .venv-openvino" in found.why_not


def test_effective_config_is_what_server_and_compiled_model_say() -> None:
    assert ENGINE.effective_config(LOG.splitlines()) == {
        "openvino_genai": "2026.4.1",
        "scheduler.cache_size": "1",
        "scheduler.dynamic_split_fuse": "True",
        "compiled.INFERENCE_NUM_THREADS": "2",
        "compiled.MODEL_DISTRIBUTION_POLICY": "",
        "compiled.KV_CACHE_PRECISION": "f16",
    }
    assert ENGINE.effective_config(LOG.splitlines()[:1]) == {}
    assert ENGINE.effective_config([]) == {}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("error: the generator process was killed by SIGKILL", TrialStatus.OUT_OF_MEMORY),
        ("RuntimeError: Requested cache size is larger than available memory size", TrialStatus.OUT_OF_MEMORY),
        ("std::bad_alloc", TrialStatus.OUT_OF_MEMORY),
        ("error: the generator process was killed by SIGSEGV", TrialStatus.START_FAILED),
        ("error: no model at /x.gguf", TrialStatus.START_FAILED),
    ],
)
def test_failure_is_read_off_the_log(line: str, status: TrialStatus) -> None:
    assert ENGINE.failure(["loading", line]) is status


def test_ready_request_makes_tokens(study: Study) -> None:
    body = ENGINE.ready_request(study)
    assert body["model"] == study.model.name
    assert body["max_tokens"] == 2
    assert body["ignore_eos"] is True
