"""A real tree of processes."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.engine.tree import tree
from tests.meter.waiting import wait_until

CHAIN = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'], check=False)"
"""Starts a process and waits for it."""

THREAD = f"import threading; thread = threading.Thread(target=exec, args=({CHAIN!r}, {{}})); thread.start()"
"""The same in another thread than the first."""


@pytest.mark.parametrize("script", [CHAIN, THREAD])
def test_it_is_the_process_and_all_below_whichever_thread_started_them(script: str) -> None:
    with subprocess.Popen([sys.executable, "-c", script]) as top:
        try:
            wait_until(lambda: len(tree(top.pid)) == 2, "the child")
            (child,) = psutil.Process(top.pid).children()
            assert tree(top.pid) == (top.pid, child.pid)
            assert tree(child.pid) == (child.pid,)
        finally:
            for process in psutil.Process(top.pid).children():
                process.kill()  # and its parent ends
    assert tree(top.pid) == ()


def test_without_the_kernels_help_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        me = psutil.Process().pid
        helped = tree(me)
        monkeypatch.setattr(Path, "exists", lambda path: False)
        assert set(tree(me)) == set(helped)
        assert {me, child.pid} <= set(helped)
        child.communicate(b"\n")
    assert tree(child.pid) == ()
