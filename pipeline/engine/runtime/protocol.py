"""What a runtime promises: how a command of the engine's own environment is run from ours, on which GPUs, and ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

ALL_GPUS = ("all",)
"""`Launch.gpus` for every GPU of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file or folder of this machine that the command sees under the same path.

    One to read comes with what symbolic links directly in it lead to, such as a snapshot's blobs.
    """

    path: Path
    is_writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One command of the engine's environment.

    Attributes:
        argv: Command line; its first word is a program as `Runtime.program` gives it.
        name: Unique on this machine; letters, digits, dots and dashes.
        env: Environment variables added to those it inherits, which `Runtime.environ` tells.
        gpus: UUIDs of the GPUs that a container shows it; empty for none, ALL_GPUS for all.
        pin: Environment variables that hold it to these GPUs where it could see all: they may number the GPUs of this
            machine, so no container gets them.
        mounts: What it must see of this machine. Folders to write to are made, other missing paths left out.
    """

    argv: tuple[str, ...]
    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    pin: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The same as a command of this machine.

    Attributes:
        argv: Command line.
        env: Environment variables added to ours.
        cleanup: Command that ends whatever killing `argv` would leave running, and is content where nothing is left;
            empty where nothing can be.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cleanup: tuple[str, ...] = ()


class Runtime(Protocol):
    """One way to run an engine's software. Stateless but for its settings."""

    name: str

    @property
    def bin_prefix(self) -> str:
        """What stands before the name of a program of the engine's environment: `/env/bin/`, or nothing."""
        ...

    @property
    def environ(self) -> Mapping[str, str]:
        """Environment variables that a command inherits, as far as they are known from here."""
        ...

    def program(self, name: str) -> str:
        """How a program of the engine's environment is called: `python` is its interpreter."""
        ...

    def image_id(self) -> str | None:
        """What the software in the container is identified by; None without a container."""
        ...

    def why_not(self) -> str | None:
        """Why nothing can be run here (tool or image missing) and what to do, or None."""
        ...

    def command(self, launch: Launch) -> Command:
        """The command of this machine that runs a launch.

        Raises:
            ConfigError: If the launch cannot be expressed, as with a path that the tool does not take.
        """
        ...

    def pids(self, name: str) -> tuple[int, ...]:
        """Processes of a launch, as this machine numbers them, that do not descend from its command; roots suffice."""
        ...
