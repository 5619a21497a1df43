"""A server that someone else runs: checked, asked what it serves, watched where it can be seen; never started, stopped.

It must answer /v1/models, and /v1/completions for prompts of token ids, and say how many tokens it made.
"""

import socket
import time
import urllib.error
import urllib.parse
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from pipeline.engine.direct import FAILURES, as_object, get, post
from pipeline.engine.tree import tree
from pipeline.errors import ConfigError, EngineError

CONNECT_TIMEOUT_S = 5.0
ALIVE_PERIOD_S = 1.0
ANSWER_TIMEOUT_S = 30.0
GENERATE_TIMEOUT_S = 300.0
"""The first generation may compile kernels."""

NUM_CHECK_TOKENS = 2
FORWARDERS = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "ssh", "sshd", "kubectl"})
"""Programs that listen in place of a server that runs elsewhere or in another namespace."""


class AttachedServer:
    """A context manager around nothing: the server was there before and stays. Satisfies the Server protocol.

    Attributes:
        url: Base address, http://host:port.
        log_path: None; the log is someone else's.
    """

    log_path: Path | None = None

    def __init__(self, url: str) -> None:
        """Check the address; nothing is asked before `__enter__`.

        Raises:
            ConfigError: If it is no address of a server.
        """
        self._host, self._port = _address(url)
        self.url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        self._checked_s = -ALIVE_PERIOD_S
        self._listener: int | None = None

    def __enter__(self) -> Self:
        """Make sure that it is there.

        Raises:
            EngineError: If nobody listens.
        """
        self.check_alive()
        self._listener = _listener(self._host, self._port)
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave it alone."""

    def check_alive(self) -> None:
        """Connect, at most once a second.

        Raises:
            EngineError: If nobody listens any more.
        """
        if time.monotonic() - self._checked_s < ALIVE_PERIOD_S:
            return
        try:
            socket.create_connection((self._host, self._port), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise EngineError(f"url={self.url}: no server there ({error.strerror or error})") from error
        self._checked_s = time.monotonic()

    def check_generates(self, model: str) -> None:
        """Have it complete a prompt of token ids, as the load client will.

        Raises:
            EngineError: If it refuses, gives no completion, or does not say how many tokens it made.
        """
        body = {"model": model, "prompt": list(range(8)), "max_tokens": NUM_CHECK_TOKENS, "temperature": 0.0}
        answer = self._ask("/v1/completions", body | {"ignore_eos": True})
        if not answer.get("choices"):
            raise EngineError(f"url={self.url}: the answer of /v1/completions is no completion")
        usage = answer.get("usage")
        made = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if made != NUM_CHECK_TOKENS:
            raise EngineError(
                f"url={self.url}: asked for {NUM_CHECK_TOKENS} tokens with ignore_eos, its usage says {made}; "
                "tokens cannot be counted on this server"
            )

    def served_model(self, wanted: str | None = None) -> str:
        """Name of the model to ask for.

        Args:
            wanted: One of those it serves; None where it serves one.

        Raises:
            EngineError: If it does not list its models, and none is wanted.
            ConfigError: If it does not serve the wanted one, or several and none is wanted.
        """
        try:
            models = self._ask("/v1/models").get("data")
        except EngineError as error:
            if wanted is None or not isinstance(error.__cause__, urllib.error.HTTPError):
                raise
            return wanted  # one that splits requests among others lists none: serve/openai_disagg_server.py
        listed = models if isinstance(models, list) else []
        names = [str(model["id"]) for model in listed if isinstance(model, dict) and "id" in model]
        if not names:
            raise EngineError(f"url={self.url}: /v1/models lists no model")
        shown = ", ".join(names)
        if wanted is not None and wanted not in names:
            raise ConfigError(f"url={self.url}: serves no model named {wanted}; it serves {shown}")
        if wanted is None and len(names) > 1:
            raise ConfigError(
                f"url={self.url}: serves several models ({shown}); name the one to measure: engine.served_model=NAME"
            )
        return wanted or names[0]

    def version(self) -> str | None:
        """What it says at /version; None if it does not."""
        with suppress(*FAILURES):
            version = as_object(get(f"{self.url}/version", ANSWER_TIMEOUT_S)).get("version")
            return version if isinstance(version, str) else None
        return None

    def pids(self) -> tuple[int, ...] | None:
        """Who listens, and all it started; None if that is on another machine, in a container or another user's."""
        return None if self._listener is None else tree(self._listener)

    def log_lines(self) -> list[str]:
        """Nothing: its log is not ours."""
        return []

    def log_tail(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def _ask(self, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        """The JSON object it answers with; empty if it answers with something else.

        Raises:
            EngineError: If it does not answer, or with an error.
        """
        url = self.url + path
        try:
            return as_object(get(url, ANSWER_TIMEOUT_S) if body is None else post(url, body, GENERATE_TIMEOUT_S))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(300).decode(errors="replace")
            fix = "; serve it without an API key" if error.code in {401, 403} else ""
            raise EngineError(f"url={self.url}: {path} answers HTTP {error.code} {said.strip()}{fix}") from error
        except FAILURES as error:
            reason = getattr(error, "reason", None) or error
            raise EngineError(f"url={self.url}: {path} does not answer ({reason})") from error


def _address(url: str) -> tuple[str, int]:
    """Host and port of an address; a path of / or /v1 is passed over.

    Raises:
        ConfigError: If it is none.
    """
    wrong = ConfigError(f"url={url}: not the address of a server; allowed: http://HOST:PORT, as http://127.0.0.1:8000")
    try:
        parts = urllib.parse.urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise wrong from error
    is_plain = parts.path.rstrip("/") in {"", "/v1"} and not (parts.query or parts.fragment or parts.username)
    if parts.scheme != "http" or not host or port == 0 or not is_plain:
        raise wrong
    return host, port or 80


def _listener(host: str, port: int) -> int | None:
    """The process of this machine that listens at an address; None if there is none, or it cannot be told."""
    try:
        wanted = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        ours = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
        sockets = psutil.net_connections("tcp")
    except (OSError, psutil.Error):
        return None
    here = {address for address in wanted if address in ours or address.startswith("127.")} | {"::1"} & wanted
    pids = {
        entry.pid or 0  # 0: another user's, which only the superuser may see
        for entry in sockets
        if here and entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port
        if entry.laddr.ip in here | {"0.0.0.0", "::"}  # noqa: S104  # compared, not bound
    }
    with suppress(psutil.Error):
        tops = [pid for pid in pids if pid and psutil.Process(pid).ppid() not in pids]  # workers may share a socket
        if len(tops) == 1 and 0 not in pids and psutil.Process(tops[0]).name() not in FORWARDERS:
            return tops[0]
    return None
