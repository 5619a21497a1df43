"""Attach to the real embedded server, and to servers that are dead, odd or elsewhere."""

import json
import os
import socket
from collections.abc import Iterator

import psutil
import pytest

from pipeline.engine.attached import AttachedServer, _listener
from pipeline.engine.attached_engine import AttachedEngine
from pipeline.engine.process import EngineProcess, free_port
from pipeline.engine.protocol import Rendered
from pipeline.engine.server import Server
from pipeline.errors import ConfigError, EngineError
from tests.engine.embedded_engine import ENGINE_PYTHON, write_small_model
from tests.engine.http_server import Answer, serving
from tests.engine.running import engine_process

MODEL = "small"
READY_S = 60.0
COMPLETION = {"choices": [{"text": "x"}], "usage": {"completion_tokens": 2}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """The embedded server, started by someone."""
    folder = tmp_path_factory.mktemp("engine")
    done = write_small_model(folder / "small.gguf")
    assert done.returncode == 0, done.stderr
    argv = (str(ENGINE_PYTHON), "{embedded}/server.py", "--model", str(folder / "small.gguf"), "--model-name", MODEL,
            "--host", "{host}", "--port", "{port}", "--scheduler", '{"cache_size": 1}')  # fmt: skip
    with engine_process(Rendered(argv=argv), folder / "run") as process:
        process.wait_ready({"model": MODEL, "prompt": [5], "max_tokens": 1}, READY_S)
        yield process


# A server as it should be


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", " "])
def test_a_running_server_says_what_it_is_and_what_it_serves(engine: EngineProcess, tail: str) -> None:
    with AttachedServer(engine.url + tail) as attached:
        server: Server = attached
        assert server.url == engine.url
        server.check_alive()
        assert attached.served_model() == MODEL
        assert attached.served_model(MODEL) == MODEL
        attached.check_generates(MODEL)
        version = attached.version()
        assert version is not None
        assert version.startswith("20")
    engine.check_alive()  # it was left alone


def test_its_processes_are_found_by_its_port(engine: EngineProcess) -> None:
    with AttachedServer(engine.url.replace("127.0.0.1", "localhost")) as attached:
        pids = attached.pids()
    assert pids is not None
    assert len(pids) == 2  # server and generator
    assert set(pids) < set(engine.pids())


def test_its_counters_are_read_whatever_it_is(engine: EngineProcess) -> None:
    before = AttachedEngine().counters(engine.url)
    with AttachedServer(engine.url) as attached:
        attached.check_generates(MODEL)
    after = AttachedEngine().counters(engine.url)
    assert before is not None
    assert after is not None
    assert before.output_tokens is not None
    assert after.output_tokens == before.output_tokens + 2
    assert after.t_ns > before.t_ns
    assert (after.num_running, after.num_waiting, after.num_preemptions) == (0.0, 0.0, None)
    assert after.kv_cache_use is not None
    assert 0 < after.kv_cache_use < 0.1


def test_it_has_no_log(engine: EngineProcess) -> None:
    attached = AttachedServer(engine.url)
    assert (attached.log_path, attached.log_lines(), attached.log_tail()) == (None, [], ())


# Addresses


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "localhost", "https://h:1", "ftp://h:1", "http://", "http://:80", "http://h:0", "http://h:x",
     "http://h:70000", "http://h:1/v2", "http://h:1/v1/completions", "http://h:1?q=1", "http://h:1#f",
     "http://user@h:1", "http://[::1:80"],
)  # fmt: skip
def test_what_is_no_address_of_a_server_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^url=.*allowed: http://HOST:PORT") as refused:
        AttachedServer(url)
    assert url in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://Host", "http://host:80"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_addresses_have_one_form(url: str, expected: str) -> None:
    assert AttachedServer(url).url == expected


# A server as it should not be


def test_nobody_there_is_an_error_with_the_address() -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(EngineError, match=f"url={url}: no server there"), AttachedServer(url):
        pass


def test_a_server_that_goes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.attached.ALIVE_PERIOD_S", 0.0)
    with serving({}) as url:
        attached = AttachedServer(url)
        attached.check_alive()
    with pytest.raises(EngineError, match="no server there"):
        attached.check_alive()


def test_it_is_not_asked_all_the_time_whether_it_is_there() -> None:
    with serving({}) as url:
        attached = AttachedServer(url)
        attached.check_alive()
    attached.check_alive()  # within the second


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (401, "HTTP 401.*API key"),
        (404, "HTTP 404"),
        (500, "HTTP 500"),
        ("<html>", "lists no model"),
        ("[]", "lists no model"),
        ('{"data": []}', "lists no model"),
        ('{"data": [{"name": "m"}]}', "lists no model"),
        (b"\xff", "lists no model"),
    ],
)
def test_a_server_that_lists_no_model_is_an_error_that_says_so(answer: Answer, said: str) -> None:
    with serving({"/v1/models": answer}) as url, pytest.raises(EngineError, match=f"url={url}: .*{said}"):
        AttachedServer(url).served_model()


def test_of_several_models_one_must_be_named() -> None:
    listed = json.dumps({"data": [{"id": "base"}, {"id": "adapter"}]})
    with serving({"/v1/models": listed}) as url:
        attached = AttachedServer(url)
        assert attached.served_model("adapter") == "adapter"
        with pytest.raises(ConfigError, match=r"several models \(base, adapter\)"):
            attached.served_model()
        with pytest.raises(ConfigError, match="no model named other; it serves base, adapter"):
            attached.served_model("other")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (400, "HTTP 400"),
        (403, "HTTP 403.*API key"),
        (422, "HTTP 422"),
        ("<html>", "no completion"),
        ('{"error": "no"}', "no completion"),
        (json.dumps(COMPLETION | {"usage": None}), "usage says None"),
        (json.dumps(COMPLETION | {"usage": {"completion_tokens": 1}}), "usage says 1"),
    ],
)
def test_a_server_that_cannot_be_measured_is_refused(answer: Answer, said: str) -> None:
    with serving({"/v1/completions": answer}) as url, pytest.raises(EngineError, match=f"url={url}: .*{said}"):
        AttachedServer(url).check_generates("m")


def test_one_that_does_complete_passes() -> None:
    with serving({"/v1/completions": json.dumps(COMPLETION)}) as url:
        AttachedServer(url).check_generates("m")


def test_a_server_that_hangs_up_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        attached = AttachedServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        attached.check_alive()
    with pytest.raises(EngineError, match="/v1/models does not answer"):
        attached.served_model()
    assert attached.version() is None


# Whose processes


def test_a_server_of_this_very_process_is_found() -> None:
    with serving({}) as url, AttachedServer(url) as attached:
        pids = attached.pids()
    assert pids is not None
    assert pids[0] == os.getpid()


@pytest.mark.parametrize("error", [psutil.AccessDenied(), OSError()])
def test_processes_that_may_not_be_seen_are_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def denied(kind: str) -> None:
        raise error

    monkeypatch.setattr(psutil, "net_connections", denied)
    with serving({}) as url, AttachedServer(url) as attached:
        assert attached.pids() is None


def test_a_forwarder_is_not_taken_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.attached.FORWARDERS", frozenset({psutil.Process().name()}))
    with serving({}) as url, AttachedServer(url) as attached:
        assert attached.pids() is None


def test_an_address_of_another_machine_has_no_process_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is one that is listened on here, too."""
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))]
    with serving({}) as url:
        port = int(url.rpartition(":")[2])
        assert _listener("127.0.0.1", port) == os.getpid()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: elsewhere)
        assert _listener("elsewhere", port) is None
