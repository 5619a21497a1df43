"""What measuring needs of a running server, whoever started it."""

from pathlib import Path
from typing import Protocol


class Server(Protocol):
    """A running OpenAI-compatible server."""

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        ...

    @property
    def log_path(self) -> Path | None:
        """File of everything it prints; None where that cannot be read."""
        ...

    def check_alive(self) -> None:
        """Notice a server that is gone.

        Raises:
            EngineError: If it is.
        """
        ...

    def pids(self) -> tuple[int, ...] | None:
        """Its processes on this machine; None where they cannot be seen."""
        ...

    def log_lines(self) -> list[str]:
        """Everything it has printed; empty where that cannot be read."""
        ...

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of that, oldest first."""
        ...
