"""Watch real processes, a real folder and a real log."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import watch as watch_module
from pipeline.engine.observed import HostSample
from pipeline.engine.process import EngineProcess
from pipeline.engine.protocol import Rendered
from pipeline.engine.watch import CachedFiles, EngineWatch, LogLines
from tests.engine.running import engine_process
from tests.meter.waiting import wait_until

COMPILES = re.compile("compiling")
PERIOD_S = 0.02

BURN = "import time; t = time.process_time()\nwhile time.process_time() - t < {}: pass\n"
ENGINE = f"""
import pathlib, subprocess, sys, time
cache = pathlib.Path(sys.argv[1])
print("starting", flush=True)
def wait_for(name):
    while not (cache.parent / name).exists():
        time.sleep(0.01)
wait_for("go")
print("compiling kernel one", flush=True)
subprocess.run([sys.executable, "-c", {BURN.format(0.3)!r}], check=True)  # a compiler that comes and goes
(cache / "ab").mkdir(parents=True)
(cache / "ab" / "one.cubin").write_text("x")
print("compiled", flush=True)
wait_for("never")
"""
"""Told to, it compiles one kernel: a log line, a short-lived process that works, a file."""


def first(watch: EngineWatch, wanted: Callable[[HostSample], bool], what: str) -> HostSample:
    """The first sample that is as wanted, once there is one."""
    wait_until(lambda: any(wanted(sample) for sample in watch.samples()), what)
    return next(sample for sample in watch.samples() if wanted(sample))


def cpu_s(sample: HostSample) -> float:
    assert sample.processes is not None
    return sum(process.cpu_s for process in sample.processes)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "REFRESH_S", 0.1)


@pytest.mark.usefixtures("quick")
def test_a_kernel_compiled_under_load_shows_three_times(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    rendered = Rendered(argv=("{python}", "-c", ENGINE, str(cache)))
    with (
        engine_process(rendered, tmp_path / "run") as engine,
        EngineWatch(engine, COMPILES, [cache], period_s=PERIOD_S) as watch,
    ):
        wait_until(lambda: "starting" in engine.log_lines(), "the start")
        before = first(watch, lambda s: len(s.processes or ()) >= 2, "guard and engine")
        assert (before.num_cached_kernels, before.num_compile_lines) == (0, 0)
        (tmp_path / "go").touch()
        after = first(watch, lambda s: s.num_cached_kernels == 1, "the cached kernel")
    assert after.num_compile_lines == 1
    assert cpu_s(after) - cpu_s(before) >= 0.25  # the compiler is gone, and its parent has its CPU time
    assert after.processes is not None
    assert all(process.name for process in after.processes)
    assert after.busy_s > before.busy_s
    assert after.num_cores == psutil.cpu_count()


def test_samples_are_in_order_and_begin_and_end_with_the_watch(tmp_path: Path) -> None:
    with engine_process(Rendered(argv=("{python}", "-c", "input()")), tmp_path) as engine:
        with EngineWatch(engine, period_s=600) as watch:
            assert len(watch.samples()) == 1
        samples = watch.samples()
    assert len(samples) == 2
    assert samples[0].t_ns < samples[1].t_ns
    assert samples[0].busy_s <= samples[1].busy_s
    assert (samples[0].num_cached_kernels, samples[0].num_compile_lines) == (None, None)


def test_an_engine_that_has_ended_has_no_processes(tmp_path: Path) -> None:
    with engine_process(Rendered(argv=("{python}", "-c", "")), tmp_path) as engine:
        assert engine.pids()
    with EngineWatch(engine) as watch:
        pass
    assert [sample.processes for sample in watch.samples()] == [(), ()]


class Unseen(EngineProcess):
    """A server whose processes cannot be seen."""

    def pids(self) -> None:  # type: ignore[override]
        return None


def test_what_cannot_be_seen_is_none(tmp_path: Path) -> None:
    unseen = engine_process(Rendered(), tmp_path)
    unseen.__class__ = Unseen
    with EngineWatch(unseen, COMPILES, [tmp_path / "nowhere"]) as watch:
        pass
    sample = watch.samples()[0]
    assert sample.processes is None
    assert sample.num_compile_lines is None  # no log was ever written
    assert sample.num_cached_kernels == 0


@given(st.lists(st.sampled_from(["compiling", "other", "\n", "é\n", "compiling\n"]), max_size=20))
def test_a_log_read_in_pieces_counts_like_the_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    lines = LogLines(path, COMPILES)
    assert lines.count() is None
    counts = []
    with path.open("a", encoding="utf-8") as log:
        for piece in pieces:
            log.write(piece)
            log.flush()
            counts.append(lines.count())
    complete = "".join(pieces).rpartition("\n")[0]
    assert (counts or [0])[-1] == sum("compiling" in line for line in complete.splitlines())
    assert counts == sorted(counts, key=lambda count: count or 0)


def test_cached_files_are_counted_at_every_depth_as_they_come_and_go(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    files = CachedFiles([cache, tmp_path / "nowhere"])
    assert files.count() == 0
    (cache / "a" / "b").mkdir(parents=True)
    assert files.count() == 0
    (cache / "a" / "b" / "kernel.cubin").touch()
    (cache / "kernel.json").touch()
    (cache / "loop").symlink_to(cache)
    assert files.count() == 3
    (cache / "kernel.json").unlink()
    assert files.count() == 2


def test_a_folder_is_listed_again_only_after_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    os.utime(tmp_path, (1, 1))  # long settled
    listed: list[str] = []
    listing = watch_module._listing

    def noted(folder: str) -> tuple[int, list[str]]:
        listed.append(folder)
        return listing(folder)

    monkeypatch.setattr(watch_module, "_listing", noted)
    files = CachedFiles([tmp_path])
    assert [files.count(), files.count()] == [1, 1]
    assert listed == [str(tmp_path)]
    (tmp_path / "b").touch()
    assert [files.count(), files.count()] == [2, 2]
    assert listed == [str(tmp_path)] * 3  # just changed: looked at until it has settled


def test_watching_ends_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        server = engine_process(Rendered(), tmp_path)
        server._guard = child
        with EngineWatch(server) as watch:
            assert child.pid in [process.pid for process in watch.samples()[0].processes or ()]
        assert child.poll() is None
        server._guard = None
        child.communicate(b"\n")
