"""TensorRT-LLM's adapter: what a config becomes, and what is refused before a start."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.engine.catalog import find_engine
from pipeline.engine.model_dir import TOKENIZER_FILES
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine.trtllm.llm_args import ALIASES, llm_args
from pipeline.engine.trtllm.versions import NEWEST
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from tests.builders import make_study
from tests.engine.trtllm.stand_in.environment import stand_in_environment

ENGINE = TrtllmEngine()


def load(model: str, *overrides: str) -> Study:
    return make_study(
        f"model={model}", "hardware=b200", "engine=trtllm", "precision=auto", "parallelism=single", "batching=default",
        "workload=chat_1k_1k", "weights=checkpoint", f"engine.python={sys.executable}", *overrides,
    )  # fmt: skip


GPT_OSS = load("gpt-oss-120b")
LLAMA = load("llama-3.1-8b")


def at(study: Study, version: str | None, **changes: Any) -> Study:
    """A study for a version, with other engine settings changed too."""
    return dataclasses.replace(study, engine=dataclasses.replace(study.engine, version=version, **changes))


def config(knobs: dict[str, Value] | None = None, weights: str = "fp4", **axes: Value | None) -> EngineConfig:
    """A config with the given knobs and axes, these written with __ for the dot."""
    values = {"precision.weights": weights, **{key.replace("__", "."): value for key, value in axes.items()}}
    return EngineConfig.from_axes(
        "trtllm", values | {f"engine.knobs.{key}": value for key, value in (knobs or {}).items()}
    )


def test_the_command_line_carries_only_what_the_file_cannot() -> None:
    rendered = ENGINE.render(config(), GPT_OSS)
    assert rendered.argv == (
        "{bin}/trtllm-serve", "{model}", "--host", "{host}", "--port", "{port}", "--config", "{dir}/config.yaml",
    )  # fmt: skip
    assert rendered.weights_init is None
    assert (rendered.is_dummy_weights, rendered.is_instrumented) == (False, False)


def test_releases_before_the_short_option_get_the_long_one() -> None:
    assert "--extra_llm_api_options" in ENGINE.render(config(), at(GPT_OSS, "1.1.0")).argv
    assert "--config" in ENGINE.render(config(), at(GPT_OSS, "1.2.0")).argv


def test_the_file_holds_the_arguments() -> None:
    given = config({"moe_config.backend": "TRTLLM"}, parallelism__tp=2, batching__max_batch_size=64)
    assert yaml.safe_load(ENGINE.render(given, GPT_OSS).files["config.yaml"]) == llm_args(given, GPT_OSS)


def test_the_environment_is_ours_then_the_configs_then_the_users() -> None:
    study = at(GPT_OSS, None, env={"HF_HUB_OFFLINE": "0", "MORE": "x"})
    assert ENGINE.render(config({"env.TRTLLM_ENABLE_PDL": "0"}), study).env == {
        "HF_HUB_OFFLINE": "0",
        "TRTLLM_NO_USAGE_STATS": "1",
        "TLLM_AUTOTUNER_CACHE_PATH": "{engine_dir}/autotuner_cache.json",
        "TRTLLM_ENABLE_PDL": "0",
        "MORE": "x",
    }


def test_instrumented_is_another_start_that_says_so() -> None:
    plain, instrumented = (ENGINE.render(config(), at(GPT_OSS, None, instrumented=on)) for on in (False, True))
    assert instrumented.is_instrumented
    assert instrumented.rendered_hash != plain.rendered_hash


def test_random_weights_are_tensorrt_llms_dummies_and_say_so(tmp_path: Path) -> None:
    study = dataclasses.replace(GPT_OSS, weights="random", engines_dir=str(tmp_path))
    rendered = ENGINE.render(config(), study)
    assert yaml.safe_load(rendered.files["config.yaml"])["load_format"] == "dummy"
    assert rendered.is_dummy_weights
    assert "load_format=dummy" in (rendered.weights_init or "")
    folder = Path(ENGINE.places(config(), study)["model"])
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt_oss"


RANDOM = dataclasses.replace(GPT_OSS, weights="random")
BF16_ONLY = dataclasses.replace(
    LLAMA, model=dataclasses.replace(LLAMA.model, checkpoints={"bf16": LLAMA.model.checkpoints["bf16"]})
)


@pytest.mark.parametrize(
    ("study", "given", "message"),
    [
        (GPT_OSS, config(weights="bf16"), r"precision\.weights=bf16: no checkpoint.*allowed: fp4"),
        (BF16_ONLY, config(weights="fp8"), "no fp8 checkpoint, and engine=trtllm does not quantise"),
        (GPT_OSS, config({"moe_config.backend": "triton"}), r"moe_config\.backend=triton: allowed: AUTO, .*TRITON"),
        (GPT_OSS, config({"enforce_eager": True}), r"engine\.knobs\.enforce_eager: TensorRT-LLM .* has no such key"),
        (GPT_OSS, config({"env.TRTLLM_ENABLE_PDL": "2"}), r"env\.TRTLLM_ENABLE_PDL=2"),
        (GPT_OSS, config({"env.NO_SUCH": "1"}), r"env\.NO_SUCH"),
        (at(GPT_OSS, "0.21.0"), config(), r"engine\.version=0\.21\.0: .*use 1\.0\.0 or newer"),
        (at(GPT_OSS, "newest"), config(), r"engine\.version=newest: is no version of TensorRT-LLM"),
        (dataclasses.replace(RANDOM, weights_seed=3), config(), "weights_seed=3: .*always draws from seed 0; leave it"),
        (
            RANDOM,
            config({"speculative_config.decoding_type": "NGram", "speculative_config.max_draft_len": 3}),
            "decoding_type=NGram: with weights=random no draft would ever be accepted",
        ),
        (
            dataclasses.replace(LLAMA, weights="random"),
            config(weights="fp8"),
            r"precision\.weights=fp8: with weights=random .* model\.hf_config, which are bf16",
        ),
    ],
)
def test_what_tensorrt_llm_cannot_do_is_one_clear_message(study: Study, given: EngineConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ENGINE.render(given, study)


def test_a_broken_rule_of_tensorrt_llms_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.trtllm.adapter.broken_rule", lambda config, study: "x=1: why; the fix")
    with pytest.raises(ConfigError, match=r"^x=1: why; the fix$"):
        ENGINE.render(config(), GPT_OSS)


def test_what_is_unknown_passes_if_asked_for() -> None:
    study = at(GPT_OSS, None, allow_unknown=True)
    rendered = ENGINE.render(config({"newer_key": 1, "env.NEWER": True}), study)
    assert yaml.safe_load(rendered.files["config.yaml"])["newer_key"] == 1
    assert rendered.env["NEWER"] == "1"


@pytest.mark.parametrize(
    "knob",
    [
        "moe_config.backend", "cuda_graph_config", "env.TRTLLM_ENABLE_PDL", "model_kwargs.num_hidden_layers",
        "speculative_config.eagle3_one_model", *ALIASES,
    ],
)  # fmt: skip
def test_a_knob_is_any_argument_of_any_release(knob: str) -> None:
    assert knob in ENGINE.knobs


@pytest.mark.parametrize("knob", ["moe_config", "moe_config.backnd", "moe_config.backend.deep", "none.such", ""])
def test_nothing_else_is_a_knob(knob: str) -> None:
    assert knob not in ENGINE.knobs


def test_the_knobs_to_choose_from_are_knobs() -> None:
    names = list(ENGINE.knobs)
    assert len(names) == len(ENGINE.knobs) == len(set(names)) > 300
    assert all(name in ENGINE.knobs for name in names)
    assert "max_batch_size" not in names


def test_a_misspelt_knob_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match=r"moe_confg\.backend: trtllm has no such knob \(did you mean 'moe_config\.back"
    ):
        find_engine(load("gpt-oss-120b", "engine.knobs.moe_confg.backend=TRTLLM"))
    newer = load("gpt-oss-120b", "engine.knobs.moe_confg.backend=TRTLLM", "engine.allow_unknown=true")
    assert find_engine(newer).name == "trtllm"


def test_a_group_is_no_knob_and_its_keys_are_named() -> None:
    study = dataclasses.replace(GPT_OSS, axes={**GPT_OSS.axes, "engine.knobs.moe_config": ("TRTLLM",)})
    with pytest.raises(ConfigError, match=r"engine\.knobs\.moe_config: is a group; set its keys: moe_config\.backend"):
        find_engine(study)


def test_missing_weights_name_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="hf download openai/gpt-oss-120b"):
        ENGINE.places(config(), GPT_OSS)


def model_folder(folder: Path, quant_method: str | None = None) -> Path:
    """A folder that looks like a checkpoint without a tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": quant_method}}))
    (folder / "model.safetensors").touch()
    return folder


def test_a_model_folder_needs_a_tokenizer(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "mxfp4")
    study = dataclasses.replace(GPT_OSS, model=dataclasses.replace(GPT_OSS.model, path=str(folder)))
    with pytest.raises(
        ConfigError, match=r"model\.path=.*: no tokenizer \(none of tokenizer\.json, .*give a downloaded"
    ):
        ENGINE.places(config(), study)
    (folder / TOKENIZER_FILES[-1]).touch()
    assert ENGINE.places(config(), study) == {"model": str(folder)}


def test_a_draft_model_is_found_as_a_folder_or_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "model", "mxfp4")
    (folder / TOKENIZER_FILES[0]).touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    study = dataclasses.replace(
        GPT_OSS, model=dataclasses.replace(GPT_OSS.model, path=str(folder), draft_models={"Eagle3": "org/eagle"})
    )
    eagle: dict[str, Value] = {"speculative_config.decoding_type": "Eagle3", "speculative_config.max_draft_len": 3}
    with pytest.raises(ConfigError, match=r"draft model org/eagle: no such folder, nor in the .*run `hf download"):
        ENGINE.places(config(eagle), study)
    repository = tmp_path / "hub" / "models--org--eagle"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    snapshot = model_folder(repository / "snapshots" / "0123")
    assert ENGINE.places(config(eagle), study) == {"model": str(folder), "draft_model": str(snapshot)}
    own = config({**eagle, "speculative_config.speculative_model": str(snapshot)})
    assert ENGINE.places(own, study)["draft_model"] == str(snapshot)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no weight files"):
        ENGINE.places(own, study)


def test_only_releases_with_their_own_list_are_tested() -> None:
    assert ENGINE.tested_version(NEWEST)
    assert not ENGINE.tested_version("1.2.0")


def test_our_own_environment_has_no_tensorrt_llm() -> None:
    availability = ENGINE.availability(GPT_OSS)
    assert availability.version is None
    assert "has no tensorrt_llm; set engine.python" in (availability.why_not or "")


def test_on_this_machine_the_server_must_be_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = stand_in_environment(tmp_path / "env")
    here = dataclasses.replace(GPT_OSS, engine=dataclasses.replace(GPT_OSS.engine, python=str(python)))
    assert ENGINE.availability(here).version == "1.3.0rc29"
    (python.parent / "trtllm-serve").unlink()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    found = ENGINE.availability(here)
    assert found.version is None
    assert "trtllm-serve is neither beside it nor on the PATH; set engine.python" in (found.why_not or "")


def test_a_log_says_how_it_died() -> None:
    assert ENGINE.failure(["starting", "torch.OutOfMemoryError: CUDA out of memory."]) is TrialStatus.OUT_OF_MEMORY
    assert ENGINE.failure(["starting", "RuntimeError: Failed to bind socket"]) is TrialStatus.START_FAILED


def test_readiness_is_a_prefill_and_a_decode_step() -> None:
    body = ENGINE.ready_request(GPT_OSS)
    assert (body["max_tokens"], body["ignore_eos"]) == (2, True)
