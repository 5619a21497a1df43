import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engine import guard

GUARD = [sys.executable, "-EP", guard.__file__, "0.5"]


def run(cleanup: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A guard whose trial is gone at once."""
    return subprocess.run(
        [*GUARD, cleanup, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_without_a_cleanup_there_is_none() -> None:
    done = run("", "sh", "-c", "exit 3")
    assert (done.returncode in {3, 128 + 15}, done.stdout, done.stderr) == (True, "", "")


def test_cleanup_comes_last_and_says_nothing_if_it_succeeds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    listen = "signal.signal(15, lambda *_: (say('end '), os._exit(7)))"
    say = f"say = lambda word: os.write(os.open('{log}', os.O_CREAT | os.O_APPEND | os.O_WRONLY), word.encode())"
    command = f"import os, signal, time; {say}; {listen}; say('up '); time.sleep(600)"
    with subprocess.Popen(
        [*GUARD, f"sh -c 'echo cleaned >> {log}; echo noise'", sys.executable, "-c", command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as running:  # fmt: skip
        while not log.exists():
            assert running.poll() is None
        assert running.stdin is not None
        running.stdin.close()
        assert running.stdout is not None
        assert running.stdout.read() == ""
    assert running.returncode == 7
    assert log.read_text().split() == ["up", "end", "cleaned"]


def test_cleanup_follows_a_command_that_ends_by_itself(tmp_path: Path) -> None:
    with subprocess.Popen([*GUARD, f"touch {tmp_path}/clean", "true"], stdin=subprocess.PIPE) as running:
        assert running.wait() == 0
    assert (tmp_path / "clean").exists()


def test_a_cleanup_that_fails_is_tried_again(tmp_path: Path) -> None:
    done = run(f"sh -c 'mkdir {tmp_path}/first && exit 1; touch {tmp_path}/second'", "true")
    assert (tmp_path / "second").exists()
    assert done.stderr == ""


@pytest.mark.parametrize(("cleanup", "said"), [("sh -c 'echo no >&2; exit 1'", "no"), ("/no/such", "No such file")])
def test_a_cleanup_that_never_succeeds_is_said(cleanup: str, said: str) -> None:
    done = run(cleanup, "true")
    assert done.stderr.startswith("`")
    assert said in done.stderr
