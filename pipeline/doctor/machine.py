"""The machine without its GPUs: Python, cores, clock, other load, limits, disk, the CPU's energy counters."""

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import time
from pathlib import Path

import psutil

from pipeline.cpu import busy_s
from pipeline.doctor.finding import Finding, not_applicable, ok, problem, warning
from pipeline.errors import MeterError
from pipeline.meter.powercap import POWERCAP_ROOT, PackageSource, package_zones
from pipeline.study import Study
from pipeline.verdict import MAX_STEAL_SHARE

DISTRIBUTION = "tokens-per-watt"

MIN_CORES = 4
"""The client's workers share a quarter of the cores, the meter takes 0.23 cores per GPU, the rest is the engine's."""

CLOCKSOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
SLOW_CLOCKS = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies"})
"""Reading these leaves the vDSO or costs a microsecond and more. Source: Linux, Documentation/timers/timekeeping.rst,
vdso(7)."""

LOOK_S = 0.5
MAX_OTHER_BUSY_CORES = 0.5

SPARE_FILES = 256
"""Open files of a process besides its connections: logs, libraries, pipes, its workers' sockets."""

MIN_FREE_BYTES = 2 * 2**30
"""A long study's traces and logs are below this; a server that cannot write its log dies."""


def python() -> Finding:
    """Whether this Python and the packages are those that the project wants."""
    try:
        wanted = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return not_applicable("python", f"{platform.python_version()}; {DISTRIBUTION} runs from its sources")
    missing = []
    for requirement in (text for text in wanted if ";" not in text):
        name, _, lowest = requirement.partition(">=")
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{requirement} is not there")
            continue
        if _numbers(version) < _numbers(lowest):
            missing.append(f"{requirement} is {version}")
    if missing:
        return problem("python", f"{platform.python_version()}: {'; '.join(missing)}", "make setup")
    return ok("python", f"{platform.python_version()}, its packages as required")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def cores() -> Finding:
    """Whether the load client has cores to spare."""
    num_cores = len(os.sched_getaffinity(0))
    text = f"{num_cores} cores, of which load client workers take {max(1, num_cores // 4)} at most"
    if num_cores < MIN_CORES:
        return warning(
            "cores",
            text,
            f"use a machine with {MIN_CORES} or more: rows where the client was the limit say client_bound",
        )
    return ok("cores", text)


def clock() -> Finding:
    """Whether reading the clock is cheap: every streamed chunk is stamped."""
    if not CLOCKSOURCE.exists():
        return not_applicable("clock", f"no {CLOCKSOURCE}")
    name = CLOCKSOURCE.read_text().strip()
    if name in SLOW_CLOCKS:
        return warning("clock", f"source {name} is slow to read", "boot with tsc=reliable if the CPU's TSC is stable")
    return ok("clock", f"source {name}")


def other_load() -> Finding:
    """Whether others use the cores now."""
    before, began_s = psutil.cpu_times(), time.monotonic()
    time.sleep(LOOK_S)
    after, elapsed_s = psutil.cpu_times(), time.monotonic() - began_s
    num_cores = psutil.cpu_count() or 1
    busy = (busy_s(after) - busy_s(before)) / elapsed_s
    steal_share = (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / elapsed_s / num_cores
    text = f"{busy:.1f} of {num_cores} cores are busy, {steal_share:.1%} is taken by other virtual machines"
    if steal_share > MAX_STEAL_SHARE:
        return warning("other load", text, "use a machine whose cores are its own: such rows say host_bound")
    if busy > MAX_OTHER_BUSY_CORES:
        return warning("other load", text, "end what else runs (top shows it)")
    return ok("other load", text)


def open_files(study: Study) -> Finding:
    """Whether every request in flight may be an open file; the client raises its own limit to the hard one."""
    highest = max((point.concurrency or 0 for point in study.workload.ladder), default=0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < highest + SPARE_FILES:
        return problem(
            "open files",
            f"at most {hard} per process, {highest} requests in flight need {highest + SPARE_FILES}",
            f"raise it (ulimit -Hn {highest + SPARE_FILES}, or LimitNOFILE), or lower workload.concurrency",
        )
    limit = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    return ok("open files", f"{limit} per process, for {highest} requests in flight")


def disk(study: Study) -> tuple[Finding, ...]:
    """Whether the study's folders can be written and have space."""
    return (
        _folder("results", "results_dir", Path(study.results_dir)),
        _folder("engines", "engines_dir", Path(study.engines_dir)),
    )


def _folder(subject: str, setting: str, folder: Path) -> Finding:
    free = free_bytes(folder)
    text = f"{folder}: {free / 1e9:.0f} GB free"
    if not os.access(_nearest(folder), os.W_OK):
        return problem(subject, f"{text}, not writable", f"set {setting} to a folder that you may write")
    if free < MIN_FREE_BYTES:
        return problem(subject, text, f"make space, or set {setting} to a larger disk")
    return ok(subject, text)


def free_bytes(folder: Path) -> int:
    """Space on the disk that a folder is on, or would be on once it is made."""
    return shutil.disk_usage(_nearest(folder)).free


def _nearest(folder: Path) -> Path:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return there


def cpu_energy(study: Study, root: Path = POWERCAP_ROOT) -> Finding:
    """Whether the CPU's own energy counters can be read."""
    wanted = study.meter == "rapl"
    try:
        zones = package_zones(root)
        with PackageSource(zones).open() as readers:
            for read in readers.values():
                read()
    except MeterError as error:
        text, _, fix = str(error).removeprefix("meter=rapl: ").partition("; ")
        if wanted:
            return problem("CPU energy", text, fix)
        return not_applicable("CPU energy", f"{text}; meter={study.meter} does not need it")
    text = f"RAPL counters of {len(zones)} package(s) can be read"
    if study.hardware.kind == "cpu" and not wanted:
        return warning(
            "CPU energy", f"{text}, and meter={study.meter} does not use them", "set meter=rapl: measured joules"
        )
    return ok("CPU energy", text)
