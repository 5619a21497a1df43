"""Watch a running engine from outside, about once a second: its CPU, its host, its kernel caches, its log."""

import os
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from pipeline.cpu import busy_s
from pipeline.engine.observed import HostSample, ProcessSample
from pipeline.engine.server import Server

PERIOD_S = 1.0

MAX_SAMPLE_S = 10.0

REFRESH_S = 3.0
"""Time for which the set of processes is kept. What a shorter-lived one used shows in the parent that waited for it."""

MTIME_GRAIN_NS = 1_000_000_000
"""A folder changed less than this ago may change again without a new modification time, so it is looked at again."""


class EngineWatch:
    """A context manager: samples are taken inside, the first when it opens and the last when it closes.

    The host is this machine. It never fails: what cannot be seen is None.
    """

    def __init__(
        self,
        server: Server,
        compile_line: re.Pattern[str] | None = None,
        caches: Sequence[Path] = (),
        *,
        period_s: float = PERIOD_S,
    ) -> None:
        """Prepare; nothing is watched before `__enter__`.

        Args:
            server: Whose processes and log are watched.
            compile_line: Matches a log line that tells of a kernel compiled or tuned; None if there is none.
            caches: Folders that compiled kernels are kept in, existing or not.
            period_s: Time from one sample to the next.
        """
        self._server = server
        self._log = LogLines(server.log_path, compile_line) if server.log_path and compile_line else None
        self._caches = CachedFiles(caches) if caches else None
        self._period_s = period_s
        self._processes: list[psutil.Process] | None = None
        self._refresh_at_s = 0.0
        self._samples: list[HostSample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-watch", daemon=True)

    def __enter__(self) -> Self:
        """Take the first sample, and go on."""
        self._samples.append(self._sample())
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Take the last sample; one that hangs (a cache on a dead network drive) is left behind."""
        self._stop.set()
        self._thread.join(MAX_SAMPLE_S)

    def samples(self) -> list[HostSample]:
        """Everything seen so far, oldest first."""
        return list(self._samples)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(self._period_s)
            self._samples.append(self._sample())

    def _sample(self) -> HostSample:
        times = psutil.cpu_times()
        return HostSample(
            t_ns=time.monotonic_ns(),
            num_cores=psutil.cpu_count() or 1,
            busy_s=busy_s(times),
            steal_s=getattr(times, "steal", 0.0),
            processes=self._process_samples(),
            num_cached_kernels=self._caches.count() if self._caches else None,
            num_compile_lines=self._log.count() if self._log else None,
        )

    def _process_samples(self) -> tuple[ProcessSample, ...] | None:
        if time.monotonic() >= self._refresh_at_s:
            self._refresh_at_s = time.monotonic() + REFRESH_S
            pids = self._server.pids()
            self._processes = None if pids is None else list(_processes(pids))
        if self._processes is None:
            return None
        found = []
        for process in self._processes:
            with suppress(psutil.Error), process.oneshot():
                cpu = process.cpu_times()
                cpu_s = cpu.user + cpu.system + cpu.children_user + cpu.children_system
                found.append(ProcessSample(pid=process.pid, name=process.name(), cpu_s=cpu_s))
        return tuple(found)


def _processes(pids: Sequence[int]) -> Sequence[psutil.Process]:
    found = []
    for pid in pids:
        with suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


class LogLines:
    """Counts the lines of a growing file that match; each part of it is read once."""

    def __init__(self, path: Path, pattern: re.Pattern[str]) -> None:
        self._path, self._pattern = path, pattern
        self._offset = self._count = 0

    def count(self) -> int | None:
        """Complete lines so far that match; None if there is no such file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except OSError:
            return None
        complete = added[: added.rfind(b"\n") + 1]
        self._offset += len(complete)
        self._count += sum(1 for line in complete.decode(errors="replace").splitlines() if self._pattern.search(line))
        return self._count


class CachedFiles:
    """Counts the files in folders and all below; a folder is listed again only after it has changed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [str(folder) for folder in folders]
        self._listings: dict[str, tuple[int, int, list[str]]] = {}

    def count(self) -> int:
        """Files there now; a folder that is missing or may not be read has none."""
        return sum(self._count(folder) for folder in self._folders)

    def _count(self, folder: str) -> int:
        try:
            changed_ns = os.stat(folder).st_mtime_ns  # noqa: PTH116  # thousands of folders: Path.stat costs twice that
            known = self._listings.get(folder)
            if known is None or known[0] != changed_ns:
                is_settled = time.time_ns() - changed_ns > MTIME_GRAIN_NS
                known = (changed_ns if is_settled else 0, *_listing(folder))
                self._listings[folder] = known
        except OSError:
            return 0
        return known[1] + sum(self._count(below) for below in known[2])


def _listing(folder: str) -> tuple[int, list[str]]:
    """Number of files in a folder, and the folders in it; links are files."""
    num_files, folders = 0, []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                num_files += 1
    return num_files, folders
