"""A process and everything it started."""

import os
from pathlib import Path

import psutil


def tree(pid: int) -> tuple[int, ...]:
    """A process and its descendants, itself first; empty if it is gone.

    Linux tells the children of one thread, where its kernel has CONFIG_PROC_CHILDREN, in 12 us. psutil reads the whole
    process table instead, 20 us a process, which on a host with thousands of them takes 100 ms.
    """
    try:
        if Path(f"/proc/{pid}/task/{pid}/children").exists():
            return _from_children(pid)
        return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))
    except (psutil.NoSuchProcess, FileNotFoundError):
        return ()


def _from_children(pid: int) -> tuple[int, ...]:
    found = [pid]
    for parent in found:  # grows on the way
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208  # in half the time of Path
                with open(f"/proc/{parent}/task/{thread}/children", "rb", buffering=0) as children:  # noqa: PTH123
                    found += [int(child) for child in children.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
    return tuple(dict.fromkeys(found))
