"""Where the commands print."""

import os

from rich.console import Console, ConsoleDimensions

LOG_WIDTH = 160
"""Columns where the output is no terminal (a file, CI), which has no width of its own."""


def terminal() -> Console:
    """Standard output as a console; wide enough for the tables when it is a file."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.size = ConsoleDimensions(LOG_WIDTH, console.height)
    return console
