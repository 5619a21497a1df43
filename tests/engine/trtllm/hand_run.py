"""Run a rendered serve.sh as a user would, with programs of the test in front of the PATH."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

RECORD = """#!/usr/bin/env bash
# Notes its name, its GPUs and its arguments, each on a line of its own, then stays as long as it is told to.
file=$(mktemp "${NOTED}/XXXXXX")
printf '%s\\n' "${0##*/}" "${CUDA_VISIBLE_DEVICES:-}" "$@" > "${file}"
trap 'echo stopped >> "${file}"; exit 143' TERM
all_there() { [ "$(find "${NOTED}" -type f | wc -l)" -ge "${NUM_PROGRAMS:-1}" ]; }
case "$*" in *"${ENDS:-nothing}"*) until all_there; do sleep 0.02; done; exit 3 ;; esac
while [ -n "${STAYS:-}" ] && [ "${SECONDS}" -lt 30 ]; do sleep 0.02; done
"""

SCONTROL = """#!/usr/bin/env bash
printf '%s\\n' tray-a tray-b tray-c tray-d
"""


def install(folder: Path, *names: str) -> Path:
    """A folder of programs that note how they are called."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(SCONTROL if name == "scontrol" else RECORD)
        (folder / name).chmod(0o755)
    return folder


def environment(programs: Path, noted: Path, **env: str) -> dict[str, str]:
    """Of a run: nothing of the machine's Slurm, GPUs or models."""
    noted.mkdir(exist_ok=True)
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "NOTED": str(noted), **env}


def run(script: Path, env: Mapping[str, str], timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([str(script)], env=dict(env), capture_output=True, text=True, timeout=timeout_s, check=False)


def calls(noted: Path) -> list[list[str]]:
    """What was called: program, GPUs, arguments; sorted by arguments."""
    return sorted((path.read_text().splitlines() for path in noted.iterdir()), key=lambda call: call[2:])


def assert_is_bash(script: Path) -> None:
    """Bash can read it, and everybody may run it."""
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)  # noqa: S607
    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(script, os.X_OK)


def after(words: Sequence[str], option: str) -> str:
    """The word that follows an option."""
    return words[list(words).index(option) + 1]
