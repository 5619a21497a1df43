"""One engine as a running process: start it from what was rendered, wait until it generates, stop all of it."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import psutil

from pipeline.engine.direct import FAILURES, as_object, post
from pipeline.engine.protocol import Rendered
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.runtime.protocol import Launch, Mount
from pipeline.engine.tree import tree
from pipeline.errors import ConfigError, EngineError
from pipeline.study import EngineSettings

HERE = Path(__file__).parent
OWN_PLACES = {"embedded": str(HERE / "embedded"), "side": str(HERE / "side")}
"""Placeholder -> folder of this package that an engine may run files of."""

_PROGRAM = re.compile(r"\{bin\}/([\w.-]+)")
"""A program of the engine's own environment."""

LOG_TAIL_LINES = 40
READY_POLL_S = 0.25
READY_REQUEST_TIMEOUT_S = 300.0
"""The first generation may compile kernels."""

TIME_WAIT_S = 65.0
"""Linux keeps a connection that its server closed first for 60 s (TCP_TIMEWAIT_LEN)."""

TERM_GRACE_S = 15.0
"""Time between SIGTERM and SIGKILL; vLLM needs several seconds to end its engine core and free the GPU."""


class EngineProcess:
    """A context manager: the engine runs inside, and nothing of it is left outside. Satisfies the Server protocol.

    Attributes:
        url: Base address of the server.
        run_dir: The engine's folder: rendered files and log.
        log_path: Everything the engine prints.
    """

    def __init__(
        self,
        rendered: Rendered,
        run_dir: Path,
        settings: EngineSettings,
        places: Mapping[str, str],
        pin: Mapping[str, str],
        *,
        engine_dir: Path | None = None,
        gpus: Sequence[str] = (),
        caches: Sequence[Path] = (),
    ) -> None:
        """Prepare; nothing runs before `__enter__`.

        Args:
            rendered: Files, argv and env with placeholders.
            run_dir: Made if missing; files and log go there.
            settings: Runtime of the engine's own environment, address and port (None for any free one).
            places: Values of the engine's own placeholders, e.g. {"model": "/models/x"}; paths are of this machine.
            pin: Environment that holds the engine to the metered devices where it could see all.
            engine_dir: What the starts of one engine share; `run_dir` if not given.
            gpus: UUIDs of the metered GPUs, which a container shows it.
            caches: Folders that it keeps compiled kernels in.

        Raises:
            ConfigError: If `engine.image` is not what the runtime takes, or the address is not ours.
        """
        self.run_dir = run_dir
        self.log_path = run_dir / "engine.log"
        self._rendered = rendered
        self._pin = pin
        self._caches = caches
        self._gpus = tuple(gpus)
        self._host = settings.host
        self._port = settings.port if settings.port is not None else free_port(settings.host)
        self.url = f"http://{self._host}:{self._port}"
        self._runtime = find_runtime(settings)
        self._name = f"tpw-{uuid.uuid4().hex[:12]}"
        self._written = (run_dir.resolve(), (engine_dir or run_dir).resolve())
        self._places = {
            "dir": str(self._written[0]),
            "engine_dir": str(self._written[1]), "host": self._host, "port": str(self._port),
            **OWN_PLACES, **places,
        }  # fmt: skip
        self._guard: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._roots: list[psutil.Process] = []

    def __enter__(self) -> Self:
        """Write the files and start the engine.

        Raises:
            ConfigError: If a given port is taken, or a folder that the engine writes to cannot be written.
        """
        wait_port_free(self._host, self._port)
        with writable(self.run_dir):
            self.run_dir.mkdir(parents=True, exist_ok=True)
            for name, content in self._rendered.files.items():
                (self.run_dir / name).write_text(self._fill(content), encoding="utf-8")
            self._log = self.log_path.open("wb")
        command = self._runtime.command(self._launch())
        # -E: variables that are meant for the engine's Python must not break the guard's
        guard = [sys.executable, "-EP", str(HERE / "guard.py"), str(TERM_GRACE_S), shlex.join(command.cleanup)]
        self._guard = subprocess.Popen(
            [*guard, *command.argv],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(command.env),
            start_new_session=True,
        )
        return self

    def _launch(self) -> Launch:
        """What is run: it sees the places that it names, and writes to its own folders."""
        rendered = self._rendered
        text = " ".join([*rendered.argv, *rendered.env.values(), *rendered.files.values()])
        named = (Path(value) for name, value in self._places.items() if "{" + name + "}" in text)
        return Launch(
            argv=tuple(self._fill(part) for part in rendered.argv),
            name=self._name,
            env={key: self._fill(value) for key, value in rendered.env.items()},
            gpus=self._gpus,
            pin=self._pin,
            mounts=(
                *(Mount(path=path) for path in named if path.is_absolute()),
                *(Mount(path=path, is_writable=True) for path in self._written),
                *(Mount(path=Path(self._fill(str(path))), is_writable=True) for path in self._caches),
            ),
        )

    def __exit__(self, *exc: object) -> None:
        """End the engine and everything it started."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
        if self._log is not None:
            self._log.close()

    def check_alive(self) -> None:
        """Notice a dead engine.

        Raises:
            EngineError: If it has ended; carries its last log lines.
        """
        status = self._guard.poll() if self._guard is not None else None
        if status is not None:
            raise EngineError(f"the engine ended with status {status}", self.log_tail())

    def wait_ready(self, body: Mapping[str, object], timeout_s: float) -> None:
        """Wait until the engine has really generated.

        Args:
            body: A small /v1/completions request.
            timeout_s: Patience.

        Raises:
            EngineError: If the engine ends first, refuses the request, or answers it with anything but a completion.
            TimeoutError: If it does not generate in time; says how it answered last.
        """
        deadline = time.monotonic() + timeout_s
        last = "no answer"
        while (left_s := deadline - time.monotonic()) > 0:
            self.check_alive()
            try:
                text = post(f"{self.url}/v1/completions", body, min(left_s, READY_REQUEST_TIMEOUT_S))
            except urllib.error.HTTPError as error:
                last = f"HTTP {error.code} {error.read(300).decode(errors='replace')}"
                if error.code < 500 and error.code not in {404, 429}:
                    raise EngineError(f"the engine refuses a plain request: {last}", self.log_tail()) from error
            except FAILURES:
                pass  # not listening yet
            else:
                if as_object(text).get("choices"):
                    return
                shown = text[:300].decode(errors="replace")
                raise EngineError(f"the engine's answer is no completion: {shown}", self.log_tail())
            time.sleep(READY_POLL_S)
        raise TimeoutError(f"last answer: {last}")

    def pids(self) -> tuple[int, ...]:
        """The guard and every process the engine has started, in a container too; the guard adopts orphans."""
        if self._guard is None:
            return ()
        if not self._roots or not all(root.is_running() for root in self._roots):
            self._roots = [root for root in map(_process, self._runtime.pids(self._name)) if root is not None]
        roots = (self._guard.pid, *(root.pid for root in self._roots))
        return tuple(dict.fromkeys(pid for root in roots for pid in tree(root)))

    def log_lines(self) -> list[str]:
        """Everything the engine has printed."""
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace").splitlines()
        return []

    def log_tail(self) -> tuple[str, ...]:
        """The engine's last log lines, oldest first."""
        return tuple(self.log_lines()[-LOG_TAIL_LINES:])

    def _fill(self, text: str) -> str:
        text = text.replace("{python}", self._runtime.program("python"))
        text = _PROGRAM.sub(lambda match: self._runtime.program(match[1]), text)
        for name, value in self._places.items():
            text = text.replace("{" + name + "}", value)
        return text


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say in one line that a folder of engines_dir cannot be written.

    Raises:
        ConfigError: If writing inside the block fails.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"engines_dir: {folder} cannot be written ({reason}); choose another engines_dir") from error


def free_port(host: str) -> int:
    """A port that is free at this moment.

    Raises:
        ConfigError: If the address is not ours.
    """
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise ConfigError(
                f"engine.host={host}: cannot listen there ({error.strerror}); set an address of this machine, "
                "such as 127.0.0.1"
            ) from error
        return int(probe.getsockname()[1])


def check_port_free(host: str, port: int) -> None:
    """Make sure that nobody listens on a port.

    Raises:
        ConfigError: If it is taken, or the address is not ours.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"engine.port={port}: cannot listen on {host}:{port} ({error.strerror}); stop what does, or leave "
                "engine.port=null for any free port; engine.host must be an address of this machine"
            ) from error


def wait_port_free(host: str, port: int) -> None:
    """Wait until nothing of an earlier server holds a port: connections that it closed first do so for a minute.

    `trtllm-serve` binds without SO_REUSEADDR (commands/serve.py) and would fail meanwhile.

    Raises:
        ConfigError: If somebody listens there, or the address is not ours.
    """
    check_port_free(host, port)
    deadline = time.monotonic() + TIME_WAIT_S
    while not _can_bind(host, port) and time.monotonic() < deadline:
        time.sleep(READY_POLL_S)


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind((host, port))
        return True
    return False
