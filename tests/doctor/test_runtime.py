"""The engine's environment: this Python stands for it, and answers stand for worse ones."""

import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.doctor import runtime as module
from pipeline.doctor.finding import Finding, State
from pipeline.doctor.gpus import Gpus
from pipeline.doctor.runtime import runtime_findings
from pipeline.engine.catalog import ENGINES
from pipeline.engine.protocol import Availability
from pipeline.engine.side.environment import MARK
from pipeline.errors import EngineError
from pipeline.meter.gpu_state import Driver, GpuState
from pipeline.meter.visible_gpus import Gpu
from pipeline.study import Study
from tests.builders import make_study

NO_GPUS = Gpus(findings=())
GPUS = Gpus(
    findings=(),
    states=(GpuState(gpu=Gpu(uuid="GPU-0", name="H100", index=0, memory_bytes=80 * 2**30, used_bytes=0)),),
    driver=Driver(version="580.1", cuda=(13, 0)),
)
FACTS: dict[str, Any] = {
    "num_gpus": 8, "cuda_error": None, "mpi": "Open MPI v4.1.7", "mpi_error": None, "shm_bytes": 2**34,
    "memlock_bytes": None, "nofile": 1_000_000,
}  # fmt: skip


def trtllm_study(*overrides: str) -> Study:
    return make_study(
        "model=gpt-oss-120b", "hardware=h100", "engine=trtllm", "precision=auto", "parallelism=auto", "batching=auto",
        "workload=chat_1k_1k", "study=test", f"engine.python={sys.executable}", *overrides,
    )  # fmt: skip


def by_subject(study: Study, gpus: Gpus = GPUS) -> dict[str, Finding]:
    return {finding.subject: finding for finding in runtime_findings(study, gpus)}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the environment answers, and the version it has; a test changes it."""
    given = {"facts": dict(FACTS), "availability": Availability(version="1.2.0"), "tested": True}

    def ask(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess((), 0, f"banner\n{MARK} {json.dumps(given['facts'])}\n", "")

    engine = ENGINES["trtllm"]
    monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(type(engine), "availability", lambda *_: given["availability"])
    monkeypatch.setattr(type(engine), "tested_version", lambda *_: given["tested"])
    return given


def test_a_good_environment_has_no_fault(answers: dict[str, Any]) -> None:
    found = by_subject(trtllm_study())
    assert {finding.state for finding in found.values()} == {State.OK}
    wanted = ["port", "runtime", "engine", "CUDA", "engine's GPUs", "MPI", "shared memory", "locked memory"]
    assert list(found) == [*wanted, "engine's files"]


@pytest.mark.parametrize(
    ("facts", "subject", "state", "text"),
    [
        ({"num_gpus": None, "cuda_error": "libcuda.so.1: no"}, "engine's GPUs", State.PROBLEM, "libcuda.so.1: no"),
        ({"num_gpus": 0}, "engine's GPUs", State.PROBLEM, "it counts 0"),
        ({"mpi": None, "mpi_error": "ImportError: libmpi.so.40"}, "MPI", State.PROBLEM, "libmpi.so.40"),
        ({"shm_bytes": 64 * 2**20}, "shared memory", State.WARNING, "64 MiB in /dev/shm"),
        ({"shm_bytes": None}, "shared memory", State.WARNING, "no /dev/shm"),
        ({"memlock_bytes": 2**23}, "locked memory", State.WARNING, "8 MiB"),
        ({"nofile": 511}, "engine's files", State.PROBLEM, "256 requests in flight need 512"),
        ({"nofile": None}, "engine's files", State.OK, "unlimited"),
    ],
)
def test_what_is_lacking_is_named(
    answers: dict[str, Any], facts: Mapping[str, Any], subject: str, state: State, text: str
) -> None:
    answers["facts"] |= facts
    finding = by_subject(trtllm_study())[subject]
    assert finding.state is state
    assert text in finding.text
    assert (finding.fix is None) == (state is State.OK)


def test_one_gpu_per_engine_needs_mpi_but_no_memory_between_ranks(answers: dict[str, Any]) -> None:
    answers["facts"] |= {"mpi": None, "shm_bytes": None, "memlock_bytes": 0}
    found = by_subject(trtllm_study("parallelism=single"))
    assert found["ranks"].state is State.NOT_APPLICABLE
    assert found["MPI"].state is State.PROBLEM
    assert not found.keys() & {"shared memory", "locked memory"}


@pytest.mark.parametrize(
    ("version", "driver_cuda", "state"),
    [
        ("1.0.0", (12, 4), State.OK),
        ("1.1.0", (12, 9), State.PROBLEM),
        ("1.2.1", (13, 0), State.OK),
        ("1.3.0rc21", (12, 9), State.PROBLEM),
        ("0.21.0", (13, 0), State.NOT_APPLICABLE),
    ],
)
def test_the_driver_must_run_the_cuda_of_the_release(
    answers: dict[str, Any], version: str, driver_cuda: tuple[int, int], state: State
) -> None:
    answers["availability"] = Availability(version=version)
    gpus = dataclasses.replace(GPUS, driver=Driver(version="x", cuda=driver_cuda))
    finding = by_subject(trtllm_study(), gpus)["CUDA"]
    assert finding.state is state
    assert finding.fix == ("install driver R580 or newer" if state is State.PROBLEM else None)


def test_in_a_container_an_old_driver_is_a_warning(answers: dict[str, Any]) -> None:
    gpus = dataclasses.replace(GPUS, driver=Driver(version="x", cuda=(12, 9)))
    study = trtllm_study()
    in_docker = dataclasses.replace(study, engine=dataclasses.replace(study.engine, runtime="docker"))
    assert module._cuda(in_docker, "1.2.0", 12).state is State.WARNING
    assert by_subject(study, gpus)["CUDA"].state is State.PROBLEM


def test_an_untested_or_unknown_version_is_a_warning(answers: dict[str, Any]) -> None:
    answers["tested"] = False
    assert "1.2.0 is not a version" in by_subject(trtllm_study())["engine"].text
    answers["availability"] = Availability()
    assert by_subject(trtllm_study())["engine"].state is State.WARNING


def test_a_version_that_the_runtime_does_not_have_is_a_problem(answers: dict[str, Any]) -> None:
    assert by_subject(trtllm_study("engine.version=1.2.0"))["engine"].state is State.OK
    finding = by_subject(trtllm_study("engine.version=1.1.0"))["engine"]
    assert finding.state is State.PROBLEM
    assert finding.text == "engine.version=1.1.0: the runtime has 1.2.0"


def test_an_engine_that_is_not_there_is_a_problem_with_its_remedy() -> None:
    finding = by_subject(trtllm_study(), NO_GPUS)["engine"]
    assert finding.state is State.PROBLEM
    assert "has no tensorrt_llm" in finding.text
    assert "engine.python" in (finding.fix or "")


def test_this_environment_is_asked_for_real() -> None:
    found = by_subject(trtllm_study(), NO_GPUS)
    assert found["engine's GPUs"].state is State.NOT_APPLICABLE
    assert "in /dev/shm" in found["shared memory"].text
    assert found["engine's files"].state in {State.OK, State.PROBLEM}


def test_without_an_interpreter_nothing_else_is_asked() -> None:
    found = by_subject(trtllm_study("engine.python=/no/such/python"))
    assert list(found) == ["port", "runtime"]
    assert found["runtime"].state is State.PROBLEM
    assert found["runtime"].fix


def test_an_environment_that_does_not_answer_is_a_problem(
    answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ask", lambda *_, **__: subprocess.CompletedProcess((), 3, "", "a\nno space left\n"))
    assert "status 3 there: no space left" in by_subject(trtllm_study())["environment"].text

    def hang(*_: Any, **__: Any) -> None:
        raise EngineError("python gave no answer within 180 s")

    monkeypatch.setattr(module, "ask", hang)
    assert "no answer" in by_subject(trtllm_study())["environment"].text


def test_a_port_that_is_taken_or_an_address_that_is_not_ours_is_a_problem(answers: dict[str, Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = by_subject(trtllm_study(f"engine.port={port}"))["port"]
    assert finding.state is State.PROBLEM
    assert f"engine.port={port}" in finding.text
    assert by_subject(trtllm_study("engine.host=192.0.2.1"))["port"].state is State.PROBLEM


def test_an_attached_server_has_no_runtime_here() -> None:
    study = trtllm_study()
    attached = dataclasses.replace(study, engine=dataclasses.replace(study.engine, name="attached"))
    assert [finding.state for finding in runtime_findings(attached, GPUS)] == [State.NOT_APPLICABLE]
