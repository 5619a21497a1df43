"""Ask the engine's own environment something: run a short command there and take what it prints."""

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence

from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.runtime.protocol import Launch, Mount
from pipeline.errors import EngineError
from pipeline.study import EngineSettings

ANSWER = "tpw-answer"
CLEANUP_TIMEOUT_S = 30.0

END_TIMEOUT_S = 5.0
"""For a killed command to vanish; a child of its own session may hold its pipes for longer."""

_SHELL = ("sh", "-c", 'echo "$0"; exec "$@"', ANSWER)
"""Entry points of images print before they run anything; what follows this line is the answer."""


def ask(
    settings: EngineSettings,
    argv: Sequence[str],
    *,
    timeout_s: float,
    mounts: Sequence[Mount] = (),
    env: Mapping[str, str] | None = None,
    text_in: str = "",
    gpus: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a short command in the engine's environment, and end all of it.

    Args:
        settings: Name the runtime.
        argv: Program, by name (`python` is the environment's interpreter), and its arguments.
        timeout_s: Patience, from here on; a container takes seconds to start.
        mounts: What it must see of this machine.
        env: Environment variables added to those it inherits.
        text_in: Its standard input.
        gpus: UUIDs of GPUs that a container shows it, or ALL_GPUS. Without any there is no CUDA driver library.

    Returns:
        Exit status, standard output without what an image prints first, and standard error. 127 is a program that is
        not there; 125 a container that could not be made.

    Raises:
        ConfigError: If `engine.image` is not what the runtime takes.
        EngineError: If the runtime cannot run anything, with the fix, or the command does not end in time.
    """
    runtime = find_runtime(settings)
    why_not = runtime.why_not()
    if why_not is not None:
        raise EngineError(why_not)
    command = runtime.command(
        Launch(
            argv=(*_SHELL, runtime.program(argv[0]), *argv[1:]),
            name=f"tpw-ask-{uuid.uuid4().hex[:12]}",
            env=env or {},
            gpus=tuple(gpus),
            mounts=tuple(mounts),
        )
    )
    process = subprocess.Popen(
        command.argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | dict(command.env),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(text_in, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"engine.runtime={settings.runtime}: {argv[0]} gave no answer within {timeout_s:g} s"
        ) from error
    finally:
        _end(process, command.cleanup)
    _, started, answer = f"\n{out}".partition(f"\n{ANSWER}\n")
    return subprocess.CompletedProcess(list(argv), process.returncode, answer if started else out, err)


def _end(process: subprocess.Popen[str], cleanup: tuple[str, ...]) -> None:
    """End a command that has not ended, with all of its session."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if cleanup:  # first, for what it ends may hold the pipes
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(cleanup, capture_output=True, timeout=CLEANUP_TIMEOUT_S, check=False)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=END_TIMEOUT_S)
