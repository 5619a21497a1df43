"""The daemon behind the stand-in `docker`: containers are its children, in sessions of their own, and end whole."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from tests.engine.runtime.sight import unseen

INIT = """
import ctypes, os, psutil, signal, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
passes = sys.argv[1] == "init"
print(os.environ.pop("BANNER", ""), flush=True)
try:
    child = subprocess.Popen(sys.argv[2:], start_new_session=True)
except OSError:
    sys.exit(127)
signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number) if passes else None)
status = child.wait()
for process in psutil.Process().children(recursive=True):
    process.kill()
sys.exit(status if status >= 0 else 128 - status)
"""
"""Process 1 of a container: its end is the end of all; without --init a signal without a handler does nothing."""


@dataclass
class StandInDaemon:
    """A context manager: a daemon in this process; leaves no container behind.

    Attributes:
        socket_path: Where the client finds it.
        host: Folder of this machine whose files a container sees only if they are mounted.
        images: Names by digest.
        gpus: UUIDs of this machine.
        banner: What the images' entry point prints.
        info: What it says of itself.
        runs: Every `docker run` that came through, as parsed.
    """

    socket_path: Path
    host: Path
    images: set[str] = field(default_factory=set)
    gpus: tuple[str, ...] = ("GPU-1", "GPU-2", "GPU-3")
    banner: str = "=============\n== NVIDIA ==\n============="
    info: dict[str, Any] = field(
        default_factory=lambda: {"Runtimes": {"runc": {}, "nvidia": {}}, "SecurityOptions": []}
    )
    runs: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._containers: dict[str, subprocess.Popen[bytes]] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket_path))
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for name in list(self._containers):
            self._rm(name)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.socket_path.unlink(missing_ok=True)

    @property
    def names(self) -> list[str]:
        """Containers that are there."""
        return list(self._containers)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                threading.Thread(target=self._handle, args=(link,), daemon=True).start()

    def _handle(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):
            text, fds, _, _ = socket.recv_fds(link, 1 << 20, 3)
            body = json.loads(text)
            answer = getattr(self, f"_do_{body['do']}")(body, fds)
            link.sendall(json.dumps(answer).encode() + b"\n")

    def _do_info(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        found = self.info if body["template"] == "{{json .}}" else self.info["SecurityOptions"]
        return {"status": 0, "out": json.dumps(found)}

    def _do_image(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if body["name"] in self.images:
            return {"status": 0, "out": "sha256:1\n"}
        return {"status": 1, "out": "\n", "err": f"Error response from daemon: No such image: {body['name']}\n"}

    def _do_pid(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        process = self._containers.get(body["name"])
        if process is None:
            return {"status": 1, "out": "\n", "err": f"Error response from daemon: No such container: {body['name']}\n"}
        return {"status": 0, "out": f"{process.pid}\n"}

    def _do_kill(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        process = self._containers.get(body["name"])
        if process is not None:
            process.send_signal(body["n"])
        return {"status": 0}

    def _do_rm(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        there = self._rm(body["name"])
        return {"status": 0, "err": "" if there else f"Error response from daemon: No such container: {body['name']}\n"}

    def _rm(self, name: str) -> bool:
        process = self._containers.pop(name, None)
        if process is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            doomed = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in doomed:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.wait()
        return True

    def _do_run(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        try:
            why_not = self._why_not(body)
            if why_not is not None:
                return {"status": 1, "err": f"Error response from daemon: {why_not}"}
            self.runs.append(body)
            process = subprocess.Popen(
                [sys.executable, "-c", INIT, "init" if body["init"] else "none", *body["argv"]],
                stdin=fds[0], stdout=fds[1], stderr=fds[2], start_new_session=True, cwd="/",
                env={"PATH": os.environ["PATH"], "BANNER": self.banner, **body["env"]},
            )  # fmt: skip
            self._containers[body["name"]] = process
        finally:
            for fd in fds:
                os.close(fd)
        status = process.wait()
        self._containers.pop(body["name"], None)
        return {"status": status if status >= 0 else 128 - status}

    def _why_not(self, body: dict[str, Any]) -> str | None:
        if body["image"] not in self.images:
            assert body["pull"] == "never", "tens of gigabytes would come now"
            return f"No such image: {body['image']}"
        if body["name"] in self._containers:
            return f'Conflict. The container name "/{body["name"]}" is already in use by container "0".'
        for uuid in body["gpus"]:
            if uuid != "all" and uuid not in self.gpus:
                return (
                    f"failed to create task for container: nvidia-container-cli: device error: {uuid}: unknown device"
                )
        for mount in body["mounts"]:
            if not Path(mount["source"]).exists():
                return f'invalid mount config for type "bind": bind source path does not exist: {mount["source"]}'
        missing = unseen(self.host, [*body["argv"], *body["env"].values()], [m["target"] for m in body["mounts"]])
        return f"the container does not see {missing}" if missing else None
