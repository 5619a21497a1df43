"""Every runtime: what runs in it, sees, says, and that nothing of it is left. Docker and Enroot are stand-ins.

The stand-in for Docker has a daemon, so its containers are no descendants of the command and outlive it.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.engine import process as engine_process_module
from pipeline.engine.availability import installed_version
from pipeline.engine.process import EngineProcess
from pipeline.engine.protocol import Rendered
from pipeline.engine.runtime.ask import ask
from pipeline.engine.runtime.catalog import RUNTIMES, find_runtime
from pipeline.engine.runtime.protocol import Mount, Runtime
from pipeline.errors import EngineError
from pipeline.study import EngineSettings
from tests.engine.running import MARK, PLAIN_REQUEST, READY_S, alive, rendered_stand_in
from tests.engine.runtime.machine import Machine, machine
from tests.meter.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux")

ROOT = Path(__file__).parents[2]
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("m"), monkeypatch) as found:
        yield found


@pytest.fixture(params=RUNTIMES)
def settings(request: pytest.FixtureRequest, host: Machine) -> EngineSettings:
    return host.settings(request.param)


@pytest.fixture
def mark() -> Iterator[str]:
    """Marks every process of the test's engine; kills what is left of it."""
    value = uuid.uuid4().hex
    yield value
    for process in alive(value):
        process.kill()


def started(settings: EngineSettings, host: Machine, mark: str, *args: str) -> EngineProcess:
    """The stand-in engine in this runtime."""
    return EngineProcess(rendered_stand_in(*args, env={MARK: mark}), host.folder / "run", settings, {}, {})


def shown(
    settings: EngineSettings, host: Machine, rendered: Rendered, **more: object
) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment that a rendered command gets to see."""
    model = host.folder / "model"
    model.mkdir()
    run_dir = host.folder / "engines" / "e" / "trial"
    pin = {"CUDA_VISIBLE_DEVICES": "1,2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    process = EngineProcess(
        rendered, run_dir, settings, {"model": str(model)}, pin,
        engine_dir=run_dir.parent, gpus=("GPU-2", "GPU-3"), caches=(host.folder / "jit",),
    )  # fmt: skip
    with process as engine, suppress(EngineError):
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert (run_dir / "engine.log").read_text() == "\n".join(engine.log_lines()) + "\n"
    argv, env = json.loads(engine.log_lines()[-1])
    return argv, env


def test_it_satisfies_the_protocol(settings: EngineSettings) -> None:
    runtime: Runtime = find_runtime(settings)
    assert runtime.name == settings.runtime
    assert runtime.why_not() is None
    assert (runtime.image_id() is None) == (settings.runtime == "local")
    assert runtime.program("python") == settings.python
    assert runtime.program("trtllm-serve") == f"{runtime.bin_prefix}trtllm-serve"
    assert runtime.pids("tpw-none") == ()


def test_a_command_gets_arguments_variables_places_and_gpus(settings: EngineSettings, host: Machine) -> None:
    argv = ("{python}", "-c", SHOW, "{model}", "{dir}/config.yaml", "{engine_dir}", "{bin}/x", "a b", "'\"$HOME", "")
    env = {"CACHE": "{engine_dir}/cache.json", "WORDS": 'two words, {"json": "[1, 2]"}', "JIT": f"{host.folder}/jit"}
    rendered = Rendered(files={"config.yaml": "x: 1\n"}, argv=argv, env=env)
    seen, environ = shown(settings, host, rendered)
    engine_dir = host.folder / "engines" / "e"
    prefix = find_runtime(settings).bin_prefix
    assert seen == [
        f"{host.folder}/model", f"{engine_dir}/trial/config.yaml", str(engine_dir), f"{prefix}x", "a b", "'\"$HOME", "",
    ]  # fmt: skip
    assert environ["CACHE"] == f"{engine_dir}/cache.json"
    assert environ["WORDS"] == env["WORDS"]
    is_local = settings.runtime == "local"
    assert environ.get("NVIDIA_VISIBLE_DEVICES") == (None if is_local else "GPU-2,GPU-3")
    pin = {"local": "1,2", "docker": None, "enroot": "GPU-2,GPU-3"}[settings.runtime]
    assert environ.get("CUDA_VISIBLE_DEVICES") == pin
    assert ("XDG_CACHE_HOME" in environ) == is_local, "our own environment stays here"
    for name, value in find_runtime(settings).environ.items():
        if name != "PATH":
            assert environ[name] == value


def test_what_is_asked_is_answered_without_what_an_image_prints(settings: EngineSettings, host: Machine) -> None:
    script = "import sys; print('OUT', sys.stdin.read()); print('ERR', file=sys.stderr); sys.exit(3)"
    answer = ask(settings, ("python", "-c", script), timeout_s=READY_S, text_in="hello")
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "OUT hello\n", "ERR\n")
    missing = ask(settings, ("no-such-program",), timeout_s=READY_S)
    assert missing.returncode == 127
    folder = host.folder / "given"
    folder.mkdir()
    (folder / "file").write_text("content")
    mounts = (Mount(path=folder), Mount(path=host.folder / "not there"))
    read = ask(
        settings,
        ("python", "-c", "import sys; print(open(sys.argv[1]).read())", f"{folder}/file"),
        timeout_s=READY_S,
        mounts=mounts,
    )
    assert read.stdout == "content\n"


def test_a_question_without_an_answer_ends(settings: EngineSettings, mark: str, host: Machine) -> None:
    with pytest.raises(EngineError, match=rf"engine\.runtime={settings.runtime}: python gave no answer within 1\.5 s"):
        ask(settings, ("python", "-c", "import time; time.sleep(600)"), timeout_s=1.5, env={MARK: mark})
    wait_until(lambda: alive(mark) == [], "the end of the command")
    assert host.daemon.names == []


def test_the_version_is_that_of_the_runtime(settings: EngineSettings) -> None:
    found = installed_version(settings, "psutil", "do something")
    assert (found.version, found.why_not) == (psutil.__version__, None)
    missing = installed_version(settings, "tensorrt-llm", "do something")
    assert missing.version is None
    assert missing.why_not is not None
    assert missing.why_not.endswith(f"engine.python={sys.executable} has no tensorrt-llm; do something")
    assert (settings.image or "") in missing.why_not


def test_its_processes_are_seen_and_gone_when_it_ends(settings: EngineSettings, host: Machine, mark: str) -> None:
    with started(settings, host, mark, "--processes", "sessions") as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
        marked = {process.pid for process in alive(mark)}
        assert len(marked) >= 2
        assert marked <= set(engine.pids())
        assert len(engine.pids()) == len(set(engine.pids()))
        first = engine.log_lines()
    assert alive(mark) == []
    assert host.daemon.names == []
    assert "line 99" in first
    assert engine.log_lines() == first, "the end left a complaint"


def test_it_is_asked_before_it_is_killed(settings: EngineSettings, host: Machine, mark: str) -> None:
    show = "import signal, time\nsignal.signal(15, lambda *_: exit('asked'))\nprint('up', flush=True)\ntime.sleep(600)"
    rendered = Rendered(argv=("{python}", "-c", show), env={MARK: mark})
    with EngineProcess(rendered, host.folder / "run", settings, {}, {}) as engine:
        wait_until(lambda: "up" in engine.log_lines(), "the engine")
    assert engine.log_lines()[-2:] == ["up", "asked"]
    assert alive(mark) == []


def test_one_that_does_not_listen_is_killed(
    settings: EngineSettings, host: Machine, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process_module, "TERM_GRACE_S", 0.3)
    with started(settings, host, mark, "--processes", "deaf") as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert alive(mark) == []
    assert host.daemon.names == []


def test_its_end_is_noticed_with_its_status(settings: EngineSettings, host: Machine, mark: str) -> None:
    with (
        started(settings, host, mark, "--die-with=7") as engine,
        pytest.raises(EngineError, match=r"status 7$") as ended,
    ):
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert ended.value.log_tail[-1] == "line 99"
    assert alive(mark) == []


def test_a_program_that_is_not_there_is_an_early_end(settings: EngineSettings, host: Machine) -> None:
    with (
        EngineProcess(Rendered(argv=("{bin}/no-such",)), host.folder / "run", settings, {}, {}) as engine,
        pytest.raises(EngineError, match="ended with status"),
    ):
        engine.wait_ready(PLAIN_REQUEST, READY_S)


def test_nothing_is_left_when_our_process_is_killed(settings: EngineSettings, host: Machine, mark: str) -> None:
    image = (settings.runtime, settings.image) if settings.image else ()
    command = [sys.executable, "-m", "tests.engine.stand_in_trial", f"{host.folder}/run", "sessions", *image]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | {MARK: mark}
    ) as trial:
        assert trial.stdout is not None
        assert trial.stdout.readline() == "ready\n"
        assert len(alive(mark)) >= 4
        os.kill(trial.pid, signal.SIGKILL)
    wait_until(lambda: alive(mark) == [] and host.daemon.names == [], "the end of everything")


def test_two_run_side_by_side(settings: EngineSettings, host: Machine, mark: str) -> None:
    runs = [host.folder / name for name in "ab"]
    engines = [EngineProcess(rendered_stand_in(env={MARK: mark}), run, settings, {}, {}) for run in runs]
    with engines[0] as first, engines[1] as second:
        for engine in (first, second):
            engine.wait_ready(PLAIN_REQUEST, READY_S)
        assert not set(first.pids()) & set(second.pids())


def test_a_missing_tool_is_said_with_the_fix(settings: EngineSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    if settings.runtime == "local":
        settings = dataclasses.replace(settings, python="no-such-python")
    why_not = find_runtime(settings).why_not()
    assert why_not is not None
    assert "set engine." in why_not
    with pytest.raises(EngineError, match="engine\\."):
        ask(settings, ("python", "-c", "0"), timeout_s=READY_S)
    assert installed_version(settings, "x", "y").why_not == why_not
