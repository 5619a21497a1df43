import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine import process as engine_process_module
from pipeline.engine.protocol import Rendered
from pipeline.errors import ConfigError, EngineError
from tests.engine.running import MARK, PLAIN_REQUEST, READY_S, alive, engine_process, stand_in
from tests.meter.waiting import wait_until

ROOT = Path(__file__).parents[2]
NUM_PROCESSES = {"none": 2, "sessions": 3, "daemon": 3, "deaf": 3, "restless": 5}
"""Guard, engine, and what the engine started, at least."""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks every process that the test starts; kills what it leaves behind."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    yield value
    for process in alive(value):
        process.kill()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process_module, "TERM_GRACE_S", 0.3)


def wait_for_end(engine: engine_process_module.EngineProcess) -> EngineError:
    """The error that tells that the engine has ended."""

    def has_ended() -> bool:
        try:
            engine.check_alive()
        except EngineError:
            return True
        return False

    wait_until(has_ended, "the end of the engine")
    with pytest.raises(EngineError) as ended:
        engine.check_alive()
    return ended.value


# What is started


def test_placeholders_are_filled_in_files_argv_and_env(tmp_path: Path, mark: str) -> None:
    show = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['WHERE'], os.environ['GPUS']]))"
    rendered = Rendered(
        files={"config.yaml": "listen: {host}:{port}\nfolder: {dir}\nkeep: {unknown}\nmodel: {model} # é\n"},
        argv=(
            "{python}",
            "-c",
            show,
            "{host}:{port}",
            "{dir}/config.yaml",
            "{model}",
            "{bin}/python",
            "{embedded}",
            "{side}",
        ),
        env={"WHERE": "{dir}:{port}"},
    )
    run_dir = tmp_path / "not" / "yet"
    with engine_process(rendered, run_dir, places={"model": "/models/x"}, devices={"GPUS": "GPU-1"}) as engine:
        wait_for_end(engine)
    port = engine.url.rpartition(":")[2]
    assert engine.url == f"http://127.0.0.1:{port}"
    argv, where, gpus = json.loads(engine.log_lines()[-1])
    assert argv[:3] == [f"127.0.0.1:{port}", f"{run_dir}/config.yaml", "/models/x"]
    assert Path(argv[3]).exists()
    assert Path(argv[4], "server.py").exists()
    assert Path(argv[5]).is_dir()
    assert (where, gpus) == (f"{run_dir}:{port}", "GPU-1")
    written = (run_dir / "config.yaml").read_text(encoding="utf-8")
    assert written == f"listen: 127.0.0.1:{port}\nfolder: {run_dir}\nkeep: {{unknown}}\nmodel: /models/x # é\n"


def test_engine_inherits_our_environment_but_not_our_signals_or_input(tmp_path: Path, mark: str) -> None:
    show = "import os, signal, sys; print(os.environ['STAND_IN_MARK'], signal.getsignal(2), repr(sys.stdin.read()))"
    with engine_process(Rendered(argv=("{python}", "-c", show)), tmp_path) as engine:
        wait_for_end(engine)
    assert engine.log_lines() == [f"{mark} {signal.default_int_handler} ''"]


def test_rendered_hash_depends_on_what_is_rendered_alone(tmp_path: Path, mark: str) -> None:
    rendered = Rendered(files={"c": "{port}"}, argv=("{python}", "-c", "0", "{port}", "{dir}"), env={"A": "{port}"})
    before, ports = rendered.rendered_hash, set()
    for name in ("a", "b"):
        with engine_process(rendered, tmp_path / name) as engine:
            ports.add((engine.run_dir / "c").read_text())
        assert rendered.rendered_hash == before
    assert len(ports) == 2, "both ran on one port, so nothing was tested"
    others = [replace(rendered, files={"c": "x"}), replace(rendered, argv=("x",)), replace(rendered, env={"A": "x"})]
    assert len({before, *(other.rendered_hash for other in others)}) == 4


def test_environment_of_the_engine_does_not_reach_the_guard(tmp_path: Path, mark: str) -> None:
    rendered = Rendered(argv=("sh", "-c", 'echo "$PYTHONHOME"'), env={"PYTHONHOME": "/no/such/python"})
    with engine_process(rendered, tmp_path) as engine:
        wait_for_end(engine)
    assert engine.log_lines() == ["/no/such/python"]


# Address


def test_given_port_that_is_busy_is_a_config_error_with_the_fix(tmp_path: Path, mark: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"engine\.port={port}.*in use.*engine\.port=null"):
            stand_in(tmp_path, port=port).__enter__()
    assert alive(mark) == []


def test_given_port_is_used(tmp_path: Path, mark: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with stand_in(tmp_path, port=port) as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
        assert engine.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("port", [None, 65000])
def test_foreign_host_is_a_config_error(tmp_path: Path, port: int | None) -> None:
    with (
        pytest.raises(ConfigError, match=r"engine\.host"),
        engine_process(Rendered(), tmp_path, host="192.0.2.1", port=port),
    ):
        pass


# Ready, or not


def test_engine_that_answers_after_a_while_is_ready(tmp_path: Path, mark: str) -> None:
    with stand_in(tmp_path, "--num-unready", "2") as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
        engine.check_alive()
    assert sum('" 503' in line for line in engine.log_lines()) == 2


def test_ready_request_ignores_proxies(tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # urlopen keeps the proxies of its first call
    with stand_in(tmp_path) as engine:
        engine.wait_ready(PLAIN_REQUEST, 10.0)


@pytest.mark.parametrize(("die_with", "status"), [(7, 7), (0, 0), (-signal.SIGKILL, 128 + signal.SIGKILL)])
def test_engine_that_ends_early_is_an_error_with_its_last_lines(
    tmp_path: Path, mark: str, die_with: int, status: int
) -> None:
    with (
        stand_in(tmp_path, f"--die-with={die_with}") as engine,
        pytest.raises(EngineError, match=f"ended with status {status}$") as ended,
    ):
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert ended.value.log_tail == tuple(f"line {number}" for number in range(60, 100))
    assert alive(mark) == []


def test_command_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path, mark: str) -> None:
    with (
        engine_process(Rendered(argv=("no-such-engine", "serve")), tmp_path) as engine,
        pytest.raises(EngineError) as ended,
    ):
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert ended.value.log_tail == ("cannot start no-such-engine: No such file or directory",)


@pytest.mark.parametrize("args", [["--answer", "nothing"], ["--num-unready", "1000"]], ids=["hangs", "always busy"])
@pytest.mark.timeout(60)
def test_engine_that_does_not_generate_in_time(tmp_path: Path, mark: str, args: list[str]) -> None:
    with stand_in(tmp_path, *args) as engine, pytest.raises(TimeoutError):
        engine.wait_ready(PLAIN_REQUEST, 1.5)
    assert alive(mark) == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("refusal", "HTTP 400.*prompt is too long"),
        ("html", "no completion.*welcome"),
        ("error", "no completion.*no model"),
    ],
)
def test_engine_that_answers_nonsense_is_an_error(tmp_path: Path, mark: str, answer: str, error: str) -> None:
    with stand_in(tmp_path, "--answer", answer) as engine, pytest.raises(EngineError, match=error) as refused:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert "line 99" in refused.value.log_tail


def test_log_of_an_engine_that_never_started_is_empty(tmp_path: Path) -> None:
    assert stand_in(tmp_path / "none").log_tail() == ()


# Nothing is left


@linux_only
@pytest.mark.parametrize("processes", NUM_PROCESSES)
def test_nothing_is_left_outside(tmp_path: Path, mark: str, short_grace: None, processes: str) -> None:
    with stand_in(tmp_path, "--processes", processes) as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
        wait_until(lambda: len(alive(mark)) >= NUM_PROCESSES[processes], "all processes")
    assert alive(mark) == []


def test_nothing_is_left_when_the_trial_fails(tmp_path: Path, mark: str) -> None:
    with pytest.raises(ZeroDivisionError), stand_in(tmp_path):  # not even ready
        raise ZeroDivisionError
    assert alive(mark) == []


@linux_only
def test_engine_that_dies_takes_its_workers_along(tmp_path: Path, mark: str) -> None:
    with stand_in(tmp_path, "--processes", "daemon", "--die-with", "3") as engine:
        assert "status 3" in str(wait_for_end(engine))
        assert alive(mark) == []


def test_engine_is_asked_before_it_is_killed(tmp_path: Path, mark: str) -> None:
    show = "import signal, time\nsignal.signal(15, lambda *_: exit('asked'))\nprint('up', flush=True)\ntime.sleep(600)"
    with engine_process(Rendered(argv=("{python}", "-c", show)), tmp_path) as engine:
        wait_until(engine.log_lines, "the engine")
    assert engine.log_lines() == ["up", "asked"]


@pytest.fixture
def trial(tmp_path: Path, mark: str, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A trial in a process group of its own, as a shell's foreground job is, once its engine is ready."""
    command = [sys.executable, "-m", "tests.engine.stand_in_trial", str(tmp_path), request.param]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        wait_until(lambda: len(alive(mark)) == 1 + NUM_PROCESSES[request.param], "all processes")
        yield running
        running.kill()


@linux_only
@pytest.mark.parametrize("trial", ["sessions", "daemon"], indirect=True)
def test_kill_of_the_trial_ends_the_engine(trial: subprocess.Popen[str], mark: str) -> None:
    os.kill(trial.pid, signal.SIGKILL)
    trial.wait()
    wait_until(lambda: alive(mark) == [], "the end of the engine and its workers")


@pytest.mark.parametrize("trial", ["sessions"], indirect=True)
def test_interrupt_from_the_keyboard_leaves_the_engine_to_the_trial(trial: subprocess.Popen[str], mark: str) -> None:
    os.killpg(trial.pid, signal.SIGINT)
    output, _ = trial.communicate(timeout=READY_S)
    assert output == "engine still answers\n"
    assert trial.returncode == 0
    assert alive(mark) == []


def test_a_port_is_waited_for_while_closed_connections_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The side that closes first keeps the port, for a minute here: shorter than the patience, which is cut down."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    naps = list[float]()
    monkeypatch.setattr(engine_process_module, "TIME_WAIT_S", 0.3)
    monkeypatch.setattr(engine_process_module, "READY_POLL_S", 0.05)
    monkeypatch.setattr("time.sleep", naps.append)
    engine_process_module.check_port_free("127.0.0.1", port)
    engine_process_module.wait_port_free("127.0.0.1", port)
    assert naps


def test_a_port_that_somebody_listens_on_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ConfigError, match=r"engine\.port=\d+: cannot listen"),
    ):
        engine_process_module.wait_port_free("127.0.0.1", server.getsockname()[1])
