import os
import sys
from pathlib import Path

import pytest

from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.runtime.local import find_python
from pipeline.engine.runtime.protocol import Launch, Runtime
from pipeline.errors import ConfigError
from pipeline.study import EngineSettings
from tests.engine.runtime.machine import executable


def local(python: str, image: str | None = None) -> Runtime:
    return find_runtime(EngineSettings(name="trtllm", python=python, image=image, ready_timeout_s=1.0))


def environment(folder: Path) -> Path:
    """An environment whose interpreter is a link, as venv makes it."""
    python = folder / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return python


def test_programs_lie_beside_the_interpreter_whose_link_is_kept(tmp_path: Path) -> None:
    python = environment(tmp_path)
    runtime = local(str(python))
    assert runtime.program("python") == str(python)
    assert runtime.program("trtllm-serve") == f"{python.parent}/trtllm-serve"
    assert runtime.bin_prefix == f"{python.parent}/"


def test_a_program_that_is_not_beside_the_interpreter_is_the_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's container: /usr/bin/python3, /usr/local/bin/trtllm-serve."""
    python, elsewhere = environment(tmp_path), tmp_path / "elsewhere" / "trtllm-serve"
    executable(elsewhere, "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(elsewhere.parent))
    assert local(str(python)).program("trtllm-serve") == str(elsewhere)
    executable(python.parent / "trtllm-serve", "#!/bin/sh\n")
    assert local(str(python)).program("trtllm-serve") == f"{python.parent}/trtllm-serve"


def test_tools_of_the_environment_come_first_whatever_path_is_given(tmp_path: Path) -> None:
    python = environment(tmp_path)
    launch = Launch(argv=("x",), name="n", env={"A": "b"}, pin={"CUDA_VISIBLE_DEVICES": "1"}, gpus=("GPU-1",))
    env = local(str(python)).command(launch).env
    assert env["PATH"] == f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    assert (env["A"], env["CUDA_VISIBLE_DEVICES"]) == ("b", "1")
    own = local(str(python)).command(Launch(argv=("x",), name="n", env={"PATH": "/only"})).env
    assert own["PATH"] == f"{python.parent}{os.pathsep}/only"


def test_an_interpreter_is_found_by_name_and_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_python("env/bin/python") == str(python)
    monkeypatch.setenv("PATH", str(python.parent))
    assert find_python("python") == str(python)
    assert find_python("no-such-python") == "no-such-python"


def test_a_name_without_an_interpreter_leaves_the_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/somewhere")
    assert local("no-such-python").command(Launch(argv=("x",), name="n")).env["PATH"] == "/somewhere"


def test_why_it_cannot_be_run(tmp_path: Path) -> None:
    assert local(sys.executable).why_not() is None
    (tmp_path / "plain").write_text("")
    fix = "; set engine.python to the interpreter of the engine's environment"
    for python, problem in {
        "/no/python": "No such file or directory",
        f"{tmp_path}/plain": "Permission denied",
    }.items():
        assert local(python).why_not() == f"engine.python={python} cannot be run ({problem}){fix}"


def test_an_image_that_nothing_would_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine\.image=a@sha256:1: engine\.runtime=local runs no image; set"):
        local(sys.executable, image="a@sha256:1")
