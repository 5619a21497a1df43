"""Preflight against stand-ins of the package `tensorrt_llm` that validate as its releases do."""

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.engine.protocol import Rendered
from pipeline.engine.runtime.protocol import ALL_GPUS
from pipeline.engine.side.trtllm_llm_args import MARK
from pipeline.engine.trtllm import preflight as module
from pipeline.engine.trtllm.preflight import MAX_MESSAGE_CHARS, ask_llm_args, preflight
from pipeline.study import EngineSettings
from tests.builders import MODELLED, make_study

BANNER = """
import sys
__version__ = "9.8.7"
print("[TensorRT-LLM] TensorRT LLM version: 9.8.7", flush=True)
sys.stdout.write("half a line of some library")
"""

NOW = """
import os
from typing import Annotated, Literal, Union
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

class KvCacheConfig(Strict):
    dtype: str = "auto"
    free_gpu_memory_fraction: float = 0.9

    @field_validator("dtype")
    @classmethod
    def check_dtype(cls, v):
        if v not in ("auto", "fp8"):
            raise ValueError('kv_cache_config.dtype must be one of "auto", "fp8"')
        return v

class MoeConfig(Strict):
    backend: Literal["AUTO", "CUTLASS", "TRTLLM"] = "AUTO"

class Eagle3(Strict):
    decoding_type: Literal["Eagle3"]
    max_draft_len: PositiveInt

class MTP(Strict):
    decoding_type: Literal["MTP"]
    max_draft_len: PositiveInt = 1

class Parallel:
    def __init__(self, tp, moe_ep, gpus_per_node):
        self.tp, self.moe_ep, self.gpus_per_node = tp, moe_ep, gpus_per_node

    def to_mapping(self):
        if self.tp % self.moe_ep:
            raise ValueError(f"tp_size must equal to moe_tp_size * moe_ep_size, but got {self.tp} and {self.moe_ep}")

class TorchLlmArgs(Strict):
    model: str
    tensor_parallel_size: int = 1
    moe_expert_parallel_size: int = 1
    max_num_tokens: int = 8192
    stream_interval: PositiveInt = 1
    kv_cache_config: KvCacheConfig = KvCacheConfig()
    moe_config: MoeConfig = MoeConfig()
    speculative_config: Annotated[Union[Eagle3, MTP], Field(discriminator="decoding_type")] | None = None
    use_cute_dsl_bf16_gemm: bool = False
    load_balancer: str | None = None

    @model_validator(mode="after")
    def check(self):
        if self.use_cute_dsl_bf16_gemm:
            raise RuntimeError("No CUDA GPUs are available")
        if self.load_balancer:
            raise FileNotFoundError(f"MoE load balancer config file not found: {self.load_balancer}")
        assert self.max_num_tokens != 13, "13 is unlucky\\nin every release"
        return self

    @property
    def parallel_config(self):
        assert os.environ["TRT_LLM_NO_LIB_INIT"] == "1"
        return Parallel(self.tensor_parallel_size, self.moe_expert_parallel_size, int(os.environ.get("GPUS", "8")))

def update_llm_args_with_extra_dict(llm_args, llm_args_dict, extra_llm_api_options=None):
    for name, kind in {"kv_cache_config": KvCacheConfig, "moe_config": MoeConfig}.items():
        if name in llm_args_dict:
            llm_args_dict[name] = kind(**llm_args_dict[name])
    return llm_args | llm_args_dict
"""

FIRST = """
from pydantic import BaseModel, ConfigDict

class Ngram(BaseModel):
    max_draft_len: int

def from_dict(data):
    kind = data.pop("decoding_type")
    if kind != "NGram":
        raise ValueError(f"Invalid decoding type: {kind}")
    return Ngram(**data)

class TorchLlmArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    speculative_config: Ngram | None = None

def update_llm_args_with_extra_dict(llm_args, llm_args_dict, extra_llm_api_options=None):
    if "speculative_config" in llm_args_dict:
        llm_args_dict["speculative_config"] = from_dict(llm_args_dict["speculative_config"])
    return llm_args | llm_args_dict
"""
"""As in 1.0: a speculative config is made by its decoding_type before pydantic sees it; no parallel_config here."""


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_answers", {})


def install(folder: Path, llm_args: str, banner: str = BANNER) -> dict[str, str]:
    """A stand-in package; returns the environment that finds it."""
    (folder / "tensorrt_llm" / "llmapi").mkdir(parents=True)
    (folder / "tensorrt_llm" / "__init__.py").write_text(banner)
    (folder / "tensorrt_llm" / "llmapi" / "__init__.py").write_text("")
    (folder / "tensorrt_llm" / "llmapi" / "llm_args.py").write_text(llm_args)
    return {"PYTHONPATH": str(folder)}


def settings(python: str = sys.executable) -> EngineSettings:
    return EngineSettings(name="trtllm", python=python, ready_timeout_s=1)


def asked(args: Mapping[str, Any], env: Mapping[str, str]) -> module.Preflight:
    rendered = Rendered(files={"config.yaml": yaml.safe_dump(dict(args))}, env=dict(env))
    return ask_llm_args(rendered, settings(), {"model": "/models/x"})


def test_what_is_taken_is_no_problem_whatever_the_package_prints(tmp_path: Path) -> None:
    env = install(tmp_path, NOW)
    args = {
        "tensor_parallel_size": 4,
        "moe_expert_parallel_size": 2,
        "speculative_config": {"decoding_type": "MTP"},
        "kv_cache_config": {"dtype": "fp8"},
    }
    assert asked(args, env) == module.Preflight(version="9.8.7")


@pytest.mark.parametrize(
    ("args", "refused"),
    [
        ({"stream_interval": 0}, "stream_interval=0: Input should be greater than 0"),
        ({"moe_config": {"backend": "X"}}, "moe_config.backend=X: Input should be 'AUTO', 'CUTLASS' or 'TRTLLM'"),
        (
            {"kv_cache_config": {"dtype": "int3"}},
            'kv_cache_config.dtype=int3: kv_cache_config.dtype must be one of "auto", "fp8"',
        ),
        ({"kv_cache_config": {"fraction": 0.5}}, "kv_cache_config.fraction=0.5: there is no such key"),
        ({"tp_size": 2}, "tp_size=2: there is no such key"),
        (
            {"speculative_config": {"decoding_type": "Eagle3", "max_draft_len": 0}},
            "speculative_config.max_draft_len=0: Input should be greater than 0",
        ),
        (
            {"speculative_config": {"decoding_type": "Eagle3"}},
            "speculative_config.max_draft_len: Field required",
        ),
        ({"max_num_tokens": 13}, "13 is unlucky in every release"),
        ({"load_balancer": "/no"}, "MoE load balancer config file not found: /no"),
        (
            {"tensor_parallel_size": 4, "moe_expert_parallel_size": 3},
            "tp_size must equal to moe_tp_size * moe_ep_size, but got 4 and 3",
        ),
        (
            {"moe_config": None},
            "moe_config: tensorrt_llm.llmapi.llm_args.MoeConfig() argument after",
        ),
        (
            {"stream_interval": 0, "kv_cache_config": {"free_gpu_memory_fraction": "much"}},
            "kv_cache_config.free_gpu_memory_fraction=much: Input should be a valid number",
        ),
    ],
)
def test_a_refusal_is_one_line_with_key_value_and_what_is_allowed(
    tmp_path: Path, args: Mapping[str, Any], refused: str
) -> None:
    problem = asked(args, install(tmp_path, NOW)).problem
    assert problem is not None
    assert problem.startswith("TensorRT-LLM 9.8.7 refuses config.yaml: ")
    assert refused in problem
    assert "\n" not in problem


def test_many_refusals_stay_one_readable_line(tmp_path: Path) -> None:
    problem = asked({f"key_{number}": "x" * 1000 for number in range(9)}, install(tmp_path, NOW)).problem
    assert problem is not None
    assert problem.endswith("and 6 more")
    assert len(problem) < 3 * MAX_MESSAGE_CHARS


def test_the_first_release_takes_a_speculative_config_by_its_type(tmp_path: Path) -> None:
    env = install(tmp_path, FIRST)
    assert asked({"speculative_config": {"decoding_type": "NGram", "max_draft_len": 3}}, env).problem is None
    problem = asked({"speculative_config": {"decoding_type": "Eagle9", "max_draft_len": 3}}, env).problem
    assert problem is not None
    assert 'speculative_config={"decoding_type": "Eagle9", "max_draft_len": 3}: Invalid decoding type' in problem


@pytest.mark.parametrize(
    ("llm_args", "banner", "args", "unknown"),
    [
        (NOW, BANNER, {"use_cute_dsl_bf16_gemm": True}, "RuntimeError: No CUDA GPUs are available"),
        (NOW, "raise ImportError('libcuda.so.1: cannot open')", {}, "ImportError: libcuda.so.1: cannot open"),
        ("LlmArgs = None", BANNER, {}, "has no attribute 'TorchLlmArgs'"),
        (NOW, "import os; os.abort()", {}, "ended with status -6"),
        (NOW, "import sys; sys.exit('no licence')", {}, "ended with status 1: no licence"),
    ],
)
def test_what_cannot_be_told_is_no_problem_but_said(
    tmp_path: Path, llm_args: str, banner: str, args: Mapping[str, Any], unknown: str
) -> None:
    said = asked(args, install(tmp_path, llm_args, banner))
    assert said.problem is None
    assert said.unknown is not None
    assert unknown in said.unknown


def test_without_a_gpu_ranks_are_not_laid_out(tmp_path: Path) -> None:
    env = install(tmp_path, NOW) | {"GPUS": "0"}
    assert asked({"tensor_parallel_size": 4, "moe_expert_parallel_size": 3}, env).problem is None


def test_a_runtime_without_the_package_or_without_python_cannot_tell() -> None:
    rendered = Rendered(files={"config.yaml": "{}"})
    without = ask_llm_args(rendered, settings(), {"model": "m"})
    assert without.unknown == "ModuleNotFoundError: No module named 'tensorrt_llm'"
    gone = ask_llm_args(rendered, settings("/no/such/python"), {"model": "m"})
    assert gone.unknown is not None
    assert "/no/such/python" in gone.unknown


def test_it_is_asked_once_per_rendered_hash_and_places_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def ask(_: EngineSettings, argv: tuple[str, ...], **given: Any) -> subprocess.CompletedProcess[str]:
        calls.append({"argv": argv} | given)
        said = '{"version": "1", "problems": [{"key": "a", "value": [1, 2], "message": "no"}], "unknown": null}'
        return subprocess.CompletedProcess(argv, 0, f"noise\n{MARK} {said}\n", "")

    monkeypatch.setattr(module, "ask", ask)
    study = dataclasses.replace(make_study(*MODELLED), engine=settings())
    rendered = Rendered(files={"config.yaml": "draft: {draft}/x"}, env={"CACHE": "{engine_dir}/c"})
    places = {"model": "/models/m", "draft": "/models/d", "engine_dir": "/engines/e"}
    wanted = "TensorRT-LLM 1 refuses config.yaml: a=[1, 2]: no"
    assert preflight(rendered, study, places) == wanted
    assert preflight(rendered, study, places) == wanted
    (call,) = calls
    assert call["argv"][0] == "python"
    assert call["argv"][-1] == "/models/m"
    assert call["text_in"] == "draft: /models/d/x"
    assert call["env"]["CACHE"] == "/engines/e/c"
    assert call["gpus"] == ALL_GPUS  # without one there is no libcuda in a container
    assert {str(mount.path) for mount in call["mounts"]} == set(places.values())
    preflight(dataclasses.replace(rendered, files={"config.yaml": "draft: null"}), study, places)
    preflight(rendered, study, places | {"model": "/models/of-another-format"})
    assert len(calls) == 3
