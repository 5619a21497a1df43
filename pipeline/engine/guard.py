"""Run an engine so that it never outlives its trial: `python -EP guard.py TERM_GRACE_S CLEANUP COMMAND...`.

Standard input is a pipe whose other end the trial holds. When it closes (the trial is done, was killed, or its
machine lost it), every process the engine ever started is terminated, then killed. On Linux the guard adopts
orphans, so that workers of a dead engine are found too. Last comes CLEANUP, a command line or nothing: a container
outlives the command that started it. Exits with the engine's exit status; 128 + n if signal n ended it.
"""

import ctypes
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

PR_SET_CHILD_SUBREAPER = 36
"""Linux: <linux/prctl.h>."""

KILL_GRACE_S = 15.0
"""Time for killed processes to vanish; a driver that frees GPU memory may take seconds."""

POLL_S = 0.1

CLEANUP_TIMEOUT_S = 30.0
CLEANUP_TRIES = 5
"""A container whose removal is under way refuses another, so it is tried again, after CLEANUP_PAUSE_S."""

CLEANUP_PAUSE_S = 0.5


def main() -> int:
    """Start the command, wait for its end or for standard input to close, leave nothing behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # only the pipe ends the guard; a Ctrl-C is the trial's to handle
    term_grace_s, cleanup, command = float(sys.argv[1]), shlex.split(sys.argv[2]), sys.argv[3:]
    try:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_default_signals,  # noqa: PLW1509  # this process has one thread
        )
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")
    while _any_left(engine) and engine.returncode is None and not _released():
        pass
    _end_all(engine, psutil.Process.terminate, term_grace_s)
    _end_all(engine, psutil.Process.kill, KILL_GRACE_S)
    if _any_left(engine):
        sys.stderr.write(f"could not end {psutil.Process().children(recursive=True)}\n")
    if cleanup:
        _clean_up(cleanup)
    if engine.returncode is None:
        return 1
    return engine.returncode if engine.returncode >= 0 else 128 - engine.returncode


def _default_signals() -> None:
    """Undo the guard's ignored signals in the engine, which inherits them."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)


def _released() -> bool:
    """Whether the trial let go of the pipe; waits a moment for it."""
    readable, _, _ = select.select([0], [], [], POLL_S)
    return bool(readable) and os.read(0, 1) == b""


def _any_left(engine: subprocess.Popen[bytes]) -> bool:
    """Collect every child that has ended, orphans among them; whether any is left.

    The kernel answers, so unlike a look through the process table this misses nobody who is just changing parents.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if pid == engine.pid:
            engine.returncode = os.waitstatus_to_exitcode(status)


def _end_all(engine: subprocess.Popen[bytes], stop: Callable[[psutil.Process], None], patience_s: float) -> None:
    """Tell every descendant once, those that appear meanwhile too, and wait until all are gone or patience is."""
    deadline, told = time.monotonic() + patience_s, set[psutil.Process]()
    while _any_left(engine) and time.monotonic() < deadline:
        for process in set(psutil.Process().children(recursive=True)) - told:
            told.add(process)
            try:
                stop(process)
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied as error:
                sys.stderr.write(f"cannot end {process}: {error}\n")
        time.sleep(POLL_S)


def _clean_up(command: list[str]) -> None:
    """Run the cleanup until it succeeds; say so if it never does."""
    problem = ""
    for _ in range(CLEANUP_TRIES):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=CLEANUP_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        else:
            if done.returncode == 0:
                return
            problem = done.stderr.strip()
        time.sleep(CLEANUP_PAUSE_S)
    sys.stderr.write(f"`{shlex.join(command)}` failed: {problem}\n")


if __name__ == "__main__":
    sys.exit(main())
