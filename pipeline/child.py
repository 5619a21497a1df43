"""A process of our own code beside this one, and a pipe to it.

Not `multiprocessing`: its children import the main module of whatever program we are part of, and leave a resource
tracker behind. A child sees the end of its parent as the end of the pipe.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path


def start_child(
    module: str, *numbers: int, descriptors: tuple[int, ...] = (), environ: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Run `main(pipe, *numbers)` of a module in a process of its own, in a group of its own, so that Ctrl-C spares it.

    Args:
        module: Full name.
        numbers: What `main` gets after the descriptor of its end of the pipe.
        descriptors: Files of ours that it may use under the same numbers.
        environ: Environment variables added to ours.

    Returns:
        The process, and our end of the pipe; both are the caller's to end.
    """
    ours, theirs = Pipe()
    code = f"import sys; from {module} import main; main(*map(int, sys.argv[1:]))"
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(theirs.fileno()), *map(str, numbers)],
            env=os.environ | {"PYTHONPATH": paths} | dict(environ or {}),
            pass_fds=(theirs.fileno(), *descriptors),
            process_group=0,
            stdin=subprocess.DEVNULL,
        )
    return process, ours
