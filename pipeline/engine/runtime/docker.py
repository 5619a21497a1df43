"""The engine's software in a Docker image of this machine, named by digest, with NVIDIA's container toolkit.

Options are those of Docker's command line from 20.10 on (`docker run --help`). The server listens on this machine's own
network, where client and meter are.
"""

import csv
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pipeline.engine.runtime.container import Container, all_mounts, full_environ, user_name
from pipeline.engine.runtime.protocol import ALL_GPUS, Command, Launch
from pipeline.errors import ConfigError
from pipeline.study import EngineSettings

BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")

ASK_TIMEOUT_S = 30.0

TOOLKIT_HOOK = "nvidia-container-runtime-hook"
"""With it on its PATH the daemon takes --gpus, whether or not NVIDIA's runtime is registered."""

OPTIONS = (
    "--rm",
    "--init",  # process 1 would ignore SIGTERM, and leave the zombies of MPI workers
    "--interactive",  # so that a command can be asked something
    "--pull", "never",  # tens of gigabytes come when they are asked for
    "--network", "host",
    "--ipc", "host",  # NCCL and the engine's processes share memory, far beyond the 64 MB of a container's own
    "--ulimit", "memlock=-1",
    "--ulimit", "stack=67108864",
    "--log-driver", "none",  # its output is ours; the daemon need not keep a second copy
)  # fmt: skip


class DockerRuntime(Container):
    """Containers of the local daemon; satisfies the Runtime protocol."""

    name = "docker"

    def __init__(self, settings: EngineSettings) -> None:
        """Check how the image is named.

        Raises:
            ConfigError: If it is not named by digest.
        """
        image = settings.image or ""
        if not BY_DIGEST.fullmatch(image):
            name = image.partition("@")[0] or "NAME"
            raise ConfigError(
                f"engine.image={settings.image}: engine.runtime=docker takes an image by digest, NAME@sha256:..., for "
                f"a tag may move; get it by `docker image inspect --format '{{{{index .RepoDigests 0}}}}' {name}`"
            )
        super().__init__(settings, image)

    def image_id(self) -> str | None:
        """Its name and digest."""
        return self._image

    def why_not(self) -> str | None:
        """Whether daemon, NVIDIA's toolkit and image are here."""
        if shutil.which("docker") is None:
            return (
                "engine.runtime=docker: there is no docker command here; install Docker and the NVIDIA Container "
                "Toolkit, or set engine.runtime to local or enroot"
            )
        daemon = os.environ.get("DOCKER_HOST", "")
        if daemon and not daemon.startswith("unix://"):
            return (
                f"DOCKER_HOST={daemon}: the daemon must be this machine's, for its GPUs and folders are used; unset it"
            )
        answer = _docker("info", "--format", "{{json .}}")
        if answer.returncode != 0:
            return f"engine.runtime=docker: {_why_no_daemon(answer.stderr)}"
        if self._needs_gpu and not _has_toolkit(_as_object(answer.stdout)):
            return (
                "engine.runtime=docker: the daemon cannot give GPUs to a container; install the NVIDIA Container "
                "Toolkit, then `sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`"
            )
        found = _docker("image", "inspect", "--format", "{{.Id}}", self._image)
        if found.returncode != 0:
            return f"engine.image={self._image} is not on this machine; run `docker pull {self._image}`"
        return None

    def command(self, launch: Launch) -> Command:
        """`docker run`, which passes signals on; what outlives it is removed by name."""
        mounts = all_mounts(launch, self._home)
        argv = ["docker", "run", *OPTIONS, "--name", launch.name, *_user(self._home)]
        if launch.gpus:
            argv += ["--gpus", "all" if launch.gpus == ALL_GPUS else _fields(f"device={','.join(launch.gpus)}")]
        for mount in mounts:
            access = () if mount.is_writable else ("readonly",)
            argv += ["--mount", _fields("type=bind", f"source={mount.path}", f"target={mount.path}", *access)]
        for name, value in full_environ(launch, self._home).items():
            argv += ["--env", f"{name}={value}"]
        return Command(
            argv=(*argv, self._image, *launch.argv),
            cleanup=("docker", "rm", "--force", "--volumes", launch.name),
        )

    def pids(self, name: str) -> tuple[int, ...]:
        """The container's first process; the daemon started it, so nothing links it to `docker run`."""
        answer = _docker("inspect", "--type", "container", "--format", "{{.State.Pid}}", name)
        text = answer.stdout.strip()
        return (int(text),) if answer.returncode == 0 and text.isdecimal() and text != "0" else ()


def _docker(*args: str) -> subprocess.CompletedProcess[str]:
    """Ask the daemon; one that does not answer in time has failed."""
    try:
        return subprocess.run(
            ["docker", *args],  # noqa: S607  # the one on the user's PATH
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess([], 1, "", str(error))


def _why_no_daemon(stderr: str) -> str:
    """What `docker info` complains of, and what to do."""
    said = " ".join(stderr.split()) or "the daemon does not answer"
    if "permission denied" in said.lower():
        return "this user may not use the daemon; run `sudo usermod -aG docker $USER` and log in again"
    if "cannot connect" in said.lower():
        return f"{said} Start it by `sudo systemctl start docker`"
    return f"`docker info` failed: {said}"


def _user(home: Path) -> list[str]:
    """Options that make files written by the container ours.

    A rootless daemon's root is us already; under one that remaps users, this container's are not. Our user has no name
    in the image, and what looks it up (MPI launchers among them) may fail, so it gets a list of users that has one.
    """
    security = _docker("info", "--format", "{{json .SecurityOptions}}").stdout
    uid, gid = os.getuid(), os.getgid()
    if "name=rootless" in security:
        return []
    options = ["--user", f"{uid}:{gid}", *(["--userns", "host"] if "name=userns" in security else [])]
    if uid == 0:
        return options
    users, text = home / ".passwd", f"root:x:0:0:root:/root:/bin/sh\n{user_name()}:x:{uid}:{gid}::{home}:/bin/sh\n"
    if not users.is_file() or users.read_text() != text:
        users.write_text(text)
    return [*options, "--mount", _fields("type=bind", f"source={users}", "target=/etc/passwd", "readonly")]


def _has_toolkit(info: dict[str, Any]) -> bool:
    """Whether the daemon can give GPUs to a container, by what it says of itself or by the tool it would use."""
    found = [*(info.get("Runtimes") or {}), *(str(device.get("ID")) for device in info.get("DiscoveredDevices") or [])]
    return any("nvidia" in name for name in found) or any(
        shutil.which(TOOLKIT_HOOK, path=path) for path in (None, "/usr/bin:/usr/local/bin")
    )


def _as_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _fields(*fields: str) -> str:
    """Fields as --mount and --gpus read them: one line of CSV, so that a comma can be part of a path."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
