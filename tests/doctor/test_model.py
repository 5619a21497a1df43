"""Weights, tokenizer and memory of a study's model."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.doctor import model as module
from pipeline.doctor.finding import Finding, State
from pipeline.doctor.gpus import Gpus
from pipeline.doctor.model import model_findings
from pipeline.engine.catalog import ENGINES
from pipeline.engine.protocol import Availability
from pipeline.engine.trtllm.preflight import Preflight
from pipeline.meter.gpu_state import GpuState
from pipeline.meter.visible_gpus import Gpu
from pipeline.study import Study
from tests.builders import make_study

GIB = 2**30


def study(*overrides: str, model: str = "gpt-oss-120b") -> Study:
    return make_study(
        f"model={model}", "hardware=h100", "engine=trtllm", "precision=auto", "parallelism=auto", "batching=auto",
        "workload=chat_1k_1k", "study=test", f"engine.python={sys.executable}", *overrides,
    )  # fmt: skip


def gpus(*free_gib: float) -> Gpus:
    states = [
        GpuState(
            gpu=Gpu(
                uuid=f"GPU-{index}", name="H100", index=index, memory_bytes=80 * GIB, used_bytes=int((80 - free) * GIB)
            )
        )
        for index, free in enumerate(free_gib)
    ]
    return Gpus(findings=(), states=tuple(states))


def found(study: Study, gpus: Gpus, *, has_runtime: bool = False) -> dict[str, Finding]:
    return {finding.subject: finding for finding in model_findings(study, gpus, has_runtime=has_runtime)}


def checkpoint(folder: Path, *files: str, method: str = "mxfp4") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    for name in files:
        (folder / name).write_text("{}")
    return folder


def test_a_whole_checkpoint_is_well(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "model.safetensors", "tokenizer.json")
    finding = found(study(f"model.path={folder}"), gpus(80))["weights fp4"]
    assert finding.state is State.OK
    assert str(folder) in finding.text


@pytest.mark.parametrize(
    ("files", "text"), [(("model.safetensors",), "no tokenizer"), (("tokenizer.json",), "no weight files")]
)
def test_what_a_checkpoint_lacks_is_named(tmp_path: Path, files: tuple[str, ...], text: str) -> None:
    folder = checkpoint(tmp_path / "m", *files)
    finding = found(study(f"model.path={folder}"), gpus(80))["weights fp4"]
    assert finding.state is State.PROBLEM
    assert text in finding.text


def test_missing_weights_say_how_to_get_them_and_whether_they_would_fit_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    fix = found(study(), gpus(80))["weights fp4"].fix or ""
    assert "hf download openai/gpt-oss-120b" in fix
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    fix = found(study(), gpus(80))["weights fp4"].fix or ""
    assert "1 GB free" in fix
    assert "HF_HUB_CACHE" in fix


def test_one_format_of_several_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    many = study(model="llama-3.3-70b")
    states = {name: finding.state for name, finding in found(many, gpus(80)).items() if name.startswith("weights")}
    assert len(states) > 1
    assert set(states.values()) == {State.PROBLEM}
    repo = many.model.checkpoints["fp8"].repo.replace("/", "--")
    checkpoint(tmp_path / f"models--{repo}" / "snapshots" / "abc", "model.safetensors", "tokenizer.json", method="fp8")
    refs = tmp_path / f"models--{repo}" / "refs"
    refs.mkdir()
    (refs / (many.model.checkpoints["fp8"].revision or "main")).write_text("abc")
    states = {name: finding.state for name, finding in found(many, gpus(80)).items() if name.startswith("weights")}
    assert states.pop("weights fp8") is State.OK
    assert set(states.values()) == {State.WARNING}


def test_random_weights_and_the_embedded_engine_need_no_checkpoint() -> None:
    assert found(study("weights=random"), gpus(80))["weights"].state is State.NOT_APPLICABLE
    embedded = found(make_study("study=test"), gpus())
    assert {finding.state for finding in embedded.values()} == {State.NOT_APPLICABLE}


def test_a_format_that_the_model_does_not_have_is_a_problem() -> None:
    finding = found(study("precision=bf16"), gpus(80))["weights"]
    assert finding.state is State.PROBLEM
    assert "fp4" in (finding.fix or "")


@pytest.mark.parametrize(
    ("free_gib", "state", "text"),
    [
        ((80.0,), State.OK, "from 1 GPU"),
        ((80.0, 55.0), State.WARNING, "from 2 GPU"),
        ((80.0, 3.0), State.PROBLEM, "does not fit"),
        ((), State.NOT_APPLICABLE, "no GPU here"),
    ],
)
def test_memory_is_what_the_fullest_gpu_has_free_now(free_gib: tuple[float, ...], state: State, text: str) -> None:
    finding = found(study("hardware.num_gpus=2"), gpus(*free_gib))["memory"]
    assert finding.state is state
    assert text in finding.text


def test_a_model_that_no_layout_holds_is_a_problem() -> None:
    finding = found(study("hardware.num_gpus=1", model="deepseek-r1"), gpus(80))["memory"]
    assert finding.state is State.PROBLEM
    assert finding.text.startswith("no layout of deepseek-r1 is possible on 1 x h100: does not fit h100")
    assert (finding.fix or "").startswith("raise parallelism.tp or pp")


def test_a_layout_that_another_rule_forbids_is_not_said_to_want_memory() -> None:
    finding = found(study("parallelism=single", "parallelism.tp=3"), gpus(80))["memory"]
    assert finding.state is State.PROBLEM
    assert "parallelism.tp=3 does not divide the 64 attention heads" in finding.text


@pytest.mark.parametrize(
    ("said", "state", "text"),
    [
        (Preflight(version="1.2.0"), State.OK, "TensorRT-LLM 1.2.0 takes"),
        (Preflight(version="1.2.0", problem="refuses it"), State.PROBLEM, "refuses it"),
        (Preflight(unknown="ImportError: libcuda.so.1"), State.WARNING, "libcuda.so.1"),
    ],
)
def test_the_runtime_is_asked_about_the_plainest_config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Preflight, state: State, text: str
) -> None:
    asked: list[Any] = []

    def answer(*given: Any) -> Preflight:
        asked.append(given)
        return said

    monkeypatch.setattr(module, "ask_llm_args", answer)
    monkeypatch.setattr(type(ENGINES["trtllm"]), "availability", lambda *_: Availability(version="1.2.0"))
    folder = checkpoint(tmp_path / "m", "model.safetensors", "tokenizer.json")
    one = study(f"model.path={folder}")
    finding = found(one, gpus(80), has_runtime=True)["config"]
    assert finding.state is state
    assert text in finding.text
    ((rendered, settings, places),) = asked
    assert settings == dataclasses.replace(one.engine, version="1.2.0")
    assert places["model"] == str(folder)
    assert "config.yaml" in rendered.files


def test_a_version_that_cannot_be_rendered_for_is_a_problem(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "model.safetensors", "tokenizer.json")
    finding = found(study(f"model.path={folder}", "engine.version=0.9.0"), gpus(80), has_runtime=True)["config"]
    assert finding.state is State.PROBLEM
    assert "engine.version=0.9.0" in finding.text


def test_without_weights_no_config_is_asked_about(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert found(study(), gpus(80), has_runtime=True)["config"].state is State.NOT_APPLICABLE
    vllm = dataclasses.replace(study(), engine=dataclasses.replace(study().engine, name="vllm"))
    assert "not asked" in found(vllm, gpus(80), has_runtime=True)["config"].text
