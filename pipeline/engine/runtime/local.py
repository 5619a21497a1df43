"""The engine's software in a Python environment of this machine: engine.python is that environment's interpreter."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.engine.runtime.protocol import Command, Launch
from pipeline.errors import ConfigError
from pipeline.study import EngineSettings


class LocalRuntime:
    """Plain processes of this machine; satisfies the Runtime protocol."""

    name = "local"

    def __init__(self, settings: EngineSettings) -> None:
        """Find the interpreter.

        Raises:
            ConfigError: If an image is named, which nothing would run.
        """
        if settings.image is not None:
            raise ConfigError(
                f"engine.image={settings.image}: engine.runtime=local runs no image; set engine.runtime=docker or "
                "enroot, or engine.image=null"
            )
        self._given = settings.python
        self._python = find_python(settings.python)

    @property
    def bin_prefix(self) -> str:
        """Folder of the interpreter, with a slash at its end."""
        return f"{Path(self._python).parent}{os.sep}"

    @property
    def environ(self) -> Mapping[str, str]:
        """Ours; with an environment's tools first: ninja, MPI launchers."""
        if os.sep not in self._python:
            return os.environ
        path = os.pathsep.join([str(Path(self._python).parent), os.environ.get("PATH", os.defpath)])
        return os.environ | {"PATH": path}

    def program(self, name: str) -> str:
        """What lies beside the interpreter; else what the PATH finds, as with a distribution's own interpreter.

        NVIDIA's container has /usr/bin/python3 and /usr/local/bin/trtllm-serve.
        """
        if name == "python":
            return self._python
        beside = f"{self.bin_prefix}{name}"
        return beside if Path(beside).exists() else shutil.which(name) or beside

    def image_id(self) -> str | None:
        """None."""
        return None

    def why_not(self) -> str | None:
        """Whether there is such an interpreter."""
        if shutil.which(self._python) is not None:
            return None
        problem = "Permission denied" if Path(self._python).exists() else "No such file or directory"
        return (
            f"engine.python={self._given} cannot be run ({problem}); set engine.python to the interpreter of the "
            "engine's environment"
        )

    def command(self, launch: Launch) -> Command:
        """The launch itself; it sees everything here."""
        env = dict(launch.env) | dict(launch.pin)
        if "PATH" in env and os.sep in self._python:
            env["PATH"] = os.pathsep.join([str(Path(self._python).parent), env["PATH"]])
        return Command(argv=launch.argv, env=dict(self.environ) | env)

    def pids(self, name: str) -> tuple[int, ...]:  # noqa: ARG002  # all descend from the command
        """None."""
        return ()


def find_python(python: str) -> str:
    """Absolute path of an interpreter given by path or by name; as given where there is none.

    A symbolic link is kept: it is what makes an environment.
    """
    found = shutil.which(python)
    return os.path.abspath(found) if found else python  # noqa: PTH100  # Path.resolve would leave the environment
