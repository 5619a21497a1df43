"""`tpw doctor` prints one line per check, what to do below it, and fails where there is a problem."""

import contextlib
import io
import json
import re
import resource
from collections.abc import Iterator, Sequence

import pytest
import typer
from rich.console import Console

from pipeline.cli import doctor as module
from pipeline.cli.doctor import TEXT_AT, compose, doctor, print_finding
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.errors import ConfigError, MeterError
from pipeline.meter.visible_gpus import Gpu
from pipeline.study import Study


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """The command raises the limit of open files, as a sweep does."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def examined(monkeypatch: pytest.MonkeyPatch, *found: Finding) -> None:
    monkeypatch.setattr(module, "examine", lambda _: iter(found))


def with_gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    gpus = tuple(Gpu(uuid=f"GPU-{i}", name=name, index=i, memory_bytes=2**36) for i, name in enumerate(names))
    monkeypatch.setattr(module, "visible_gpus", lambda: gpus)


def test_on_this_machine_it_says_what_for_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(typer.Exit):  # where the embedded engine is not installed
        doctor(["study=test"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "for engine=openvino model=tiny-llama hardware=cpu"
    assert said[1].startswith("ok      python")
    assert re.fullmatch(r"\d+ problems?, \d+ warnings?, \d+ ok, \d+ not applicable", said[-1])


def test_a_problem_is_exit_status_1_and_a_warning_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examined(monkeypatch, ok("a", "fine"), warning("b", "worse", "better it"))
    doctor([])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "ok      a               fine",
        "warning b               worse",
        "                        do: better it",
        "0 problems, 1 warning, 1 ok, 0 not applicable",
    ]
    examined(monkeypatch, problem("c", "bad", None))
    with pytest.raises(typer.Exit) as ended:
        doctor([])
    assert ended.value.exit_code == 1


def test_json_is_all_that_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    examined(monkeypatch, problem("a", "bad", "mend it"))
    with pytest.raises(typer.Exit):
        doctor([], as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {"subject": "a", "state": "problem", "text": "bad", "fix": "mend it"}
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal_and_are_aligned(width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    print_finding(console, problem("locked memory", "at most 8 MiB " * 20, "ulimit -l unlimited " * 10))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert all(line[:TEXT_AT].isspace() for line in lines[1:])
    assert len(lines) > 2


def composed(overrides: Sequence[str]) -> Study:
    return compose(overrides)[0]


def test_without_gpus_it_is_for_the_embedded_engine_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch)
    assert composed([]).engine.name == "openvino"
    named = composed(["engine=trtllm"])
    assert (named.engine.name, named.model.name, named.hardware.name) == ("trtllm", "gpt-oss-120b", "b200")
    assert composed(["model=llama-3.1-8b"]).engine.name == "trtllm"
    assert composed(["hardware=h100"]).hardware.name == "h100"


def test_with_gpus_it_is_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3")
    study = composed([])
    assert (study.engine.name, study.hardware.name, study.hardware.num_gpus) == ("trtllm", "h100", 2)
    assert composed(["model=tiny-llama"]).engine.name == "openvino"
    assert composed(["engine=openvino"]).engine.name == "openvino"
    assert composed(["engine=vllm", "hardware.num_gpus=1"]).hardware.num_gpus == 1


def test_a_gpu_of_an_unknown_kind_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, "NVIDIA T4")
    _, (finding,) = compose([])
    assert "NVIDIA T4" in finding.text
    assert finding.fix


@pytest.mark.parametrize("error", [MeterError("NVML is broken"), ConfigError("CUDA_VISIBLE_DEVICES=x")])
def test_gpus_that_cannot_be_asked_do_not_keep_it_from_examining(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse() -> tuple[Gpu, ...]:
        raise error

    monkeypatch.setattr(module, "visible_gpus", refuse)
    assert composed(["engine=trtllm"]).hardware.name == "b200"


def test_wrong_overrides_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch)
    with pytest.raises(ConfigError, match="model=nope"):
        compose(["model=nope"])
