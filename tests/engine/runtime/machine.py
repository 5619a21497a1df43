"""A machine with stand-ins for Docker and Enroot on its PATH, and settings that name their images."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.study import EngineSettings
from tests.engine.running import READY_S
from tests.engine.runtime.stand_in_daemon import StandInDaemon

HERE = Path(__file__).parent
DIGEST_IMAGE = f"nvcr.io/nvidia/tensorrt-llm/release@sha256:{'0123456789abcdef' * 4}"
TOOLS = ("nvidia-container-cli", "unsquashfs", "squashfuse", "fuse-overlayfs")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where things are; `folder` is hidden from containers unless it is mounted."""

    folder: Path
    daemon: StandInDaemon
    sqsh: Path
    tools: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", self.folder / "bin")

    def settings(self, runtime: str, **changes: object) -> EngineSettings:
        """Settings of a runtime whose image is here and has our Python."""
        image = {"local": None, "docker": DIGEST_IMAGE, "enroot": str(self.sqsh)}[runtime]
        given = {"name": "trtllm", "runtime": runtime, "python": sys.executable, "image": image}
        return EngineSettings(**{**given, "ready_timeout_s": READY_S, **changes})  # type: ignore[arg-type]


def executable(path: Path, text: str) -> None:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@contextmanager
def machine(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Put the stand-ins on the PATH, and only them where the real ones could be."""
    with StandInDaemon(socket_path=folder / "d.sock", host=folder, images={DIGEST_IMAGE}) as daemon:
        sqsh = folder / "trtllm.sqsh"
        sqsh.write_bytes(b"hsqs" + b"\0\0\0\0" + (1_700_000_000).to_bytes(4, "little"))
        found = Machine(folder=folder, daemon=daemon, sqsh=sqsh)
        docker = f'exec {sys.executable} -S -E "{HERE}/stand_in_docker.py" "{daemon.socket_path}" "$@"'
        executable(found.tools / "docker", f"#!/bin/sh\n{docker}\n")
        enroot = f'exec {sys.executable} -S -E "{HERE}/stand_in_enroot.py" "{folder}" "$@"'
        executable(found.tools / "enroot", f"#!/bin/sh\n{enroot}\n")
        for tool in TOOLS:
            executable(found.tools / tool, "#!/bin/sh\n")
        patch.setenv("PATH", os.pathsep.join([str(found.tools), os.environ["PATH"]]))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("ENROOT_DATA_PATH", str(folder / "containers"))
        patch.delenv("DOCKER_HOST", raising=False)
        yield found
