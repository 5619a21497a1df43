"""The shell script of an engine folder: what a user runs by hand, without this project, to start what was rendered.

A placeholder of the command line becomes a shell variable: the folder may be moved, and the model may lie elsewhere.
"""

import re
import shlex
from collections.abc import Mapping, Sequence

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

VARIABLES = {"dir": "HERE", "engine_dir": "HERE", "host": "SERVE_HOST", "port": "SERVE_PORT"}
"""Placeholder -> shell variable; any other one's is its name in capitals. HOST and PORT mean other things to others:
conda's compilers export HOST."""

DEFAULTS = {"host": "127.0.0.1", "port": "8000", "python": "python3"}

PREAMBLE = (
    "set -euo pipefail",
    'HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)',
)


def word(text: str) -> str:
    """One word of a shell command: {name} becomes its variable, all else is literal.

    Programs of the engine's own environment ({bin}) are called by name: the script runs where they are on the PATH.
    """
    parts = PLACEHOLDER.split(text.replace("{bin}/", "").replace("{bin}", ""))
    if len(parts) == 1:
        return shlex.quote(parts[0])
    literal = [re.sub(r'([\\"$`])', r"\\\1", part) for part in parts[::2]]
    named = ["${" + variable(name) + "}" for name in parts[1::2]]
    inner = "".join(piece for pair in zip(literal, [*named, ""], strict=True) for piece in pair)
    return f'"{inner}"'


def words(argv: Sequence[str]) -> str:
    """A command line."""
    return " ".join(map(word, argv))


def assignments(env: Mapping[str, str]) -> list[str]:
    """Environment variables as NAME=VALUE words, by name."""
    return [f"{name}={word(value)}" for name, value in sorted(env.items())]


def variable(placeholder: str) -> str:
    """The shell variable that stands for a placeholder."""
    return VARIABLES.get(placeholder, placeholder.upper())


def script(
    commands: str, comments: Sequence[str], values: Mapping[str, str | None], wanted: Mapping[str, str] | None = None
) -> str:
    """A whole bash script.

    Args:
        commands: What it does, with variables where `word` put them.
        comments: What is said at its top.
        values: Placeholder -> its value here; None, or left out, is for the user to set.
        wanted: Placeholder -> what the user is asked to set it to.
    """
    known = DEFAULTS | {name: value for name, value in values.items() if value is not None}
    names = [name for name in dict.fromkeys([*(wanted or {}), *known]) if "${" + variable(name) + "}" in commands]
    lines = ["#!/usr/bin/env bash", *(f"# {line}" for line in comments), *PREAMBLE]
    for name in names:
        shell_name = variable(name)
        rest = f":-{shlex.quote(known[name])}" if name in known else f":?{shlex.quote((wanted or {})[name])}"
        lines.append(f"{shell_name}=${{{shell_name}{rest}}}")
    return "\n".join([*lines, commands.rstrip("\n"), ""])
