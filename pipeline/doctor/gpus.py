"""The GPUs: driver, who uses them, what can be metered, how they are set."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.doctor.finding import Finding, State, findings, not_applicable, ok, problem, refused, warning
from pipeline.errors import ConfigError, MeterError
from pipeline.meter.catalog import MAX_USED_BYTES, open_meter
from pipeline.meter.gpu_state import Driver, GpuState, look_at, read_driver
from pipeline.meter.visible_gpus import visible_gpus
from pipeline.study import Study

HOST_PID_NAMESPACE = "pid:[4026531836]"
"""The machine's own. Source: Linux, include/linux/proc_ns.h, PROC_PID_INIT_INO."""

PROCESS_STATUS = Path("/proc/self/status")

CAP_SYS_ADMIN = 21
"""Linux: include/uapi/linux/capability.h."""

HOT_C = 80.0
"""Judgement: far above an idle GPU that is cooled, and still below where clocks are lowered."""

Verdict = tuple[State, str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """The GPUs that this process sees, what was found, and the driver; without a driver there are none."""

    findings: tuple[Finding, ...]
    states: tuple[GpuState, ...] = ()
    driver: Driver | None = None


def look(study: Study, environ: Mapping[str, str] = os.environ, nvml: Any = None) -> Gpus:
    """Look at every GPU that this process sees.

    Args:
        study: Says whether GPUs are needed, and which.
        environ: Environment variables; CUDA_VISIBLE_DEVICES says which GPUs are visible.
        nvml: Module with the interface of pynvml; None imports it.
    """
    if study.hardware.kind == "cpu":
        return Gpus(findings=(not_applicable("GPUs", f"hardware={study.hardware.name} has none"),))
    try:
        driver = read_driver(nvml)
    except MeterError as error:
        return Gpus(findings=(refused("driver", error),))
    found = [ok("driver", f"{driver.version}, runs CUDA up to {driver.cuda[0]}.{driver.cuda[1]}")]
    try:
        states = look_at(visible_gpus(nvml, environ), nvml)
    except (ConfigError, MeterError) as error:
        return Gpus(findings=(*found, refused("GPUs", error)), driver=driver)
    if not states:
        none = problem("GPUs", "none is visible", "set CUDA_VISIBLE_DEVICES to GPUs of nvidia-smi -L")
        return Gpus(findings=(*found, none), driver=driver)
    found += [_identity(state) for state in states]
    found += _grouped("energy counter", states, _energy)
    metered = [state for state in states if state.refusal is None]
    for subject, judge in JUDGES.items():
        found += _grouped(subject, metered, judge)
    found += [_process_numbers(), _permissions(), *findings("meter", lambda: _meter(study, environ, nvml, states))]
    return Gpus(findings=tuple(found), states=states, driver=driver)


def _identity(state: GpuState) -> Finding:
    gpu = state.gpu
    used, total = gpu.used_bytes or 0, gpu.memory_bytes
    size = (
        "memory shared with the host"
        if total is None
        else f"{(total - used) / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    )
    text = f"{gpu.name}, {size}, {gpu.uuid}"
    subject = f"GPU {gpu.index}"
    pids = (state.state.compute_pids if state.state else None) or ()
    users = ", ".join(_process(pid) for pid in pids) or "a process that NVML does not name"
    if used > MAX_USED_BYTES:
        return problem(
            subject,
            f"{text}; in use by {users}",
            "end it, or set CUDA_VISIBLE_DEVICES to idle GPUs: its joules would be counted",
        )
    if pids:
        return warning(subject, f"{text}; {users} holds a context", "end it: such rows say foreign_process")
    return ok(subject, text)


def _process(pid: int) -> str:
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid} (not of this container)"


def _grouped(subject: str, gpus: Sequence[GpuState], judge: Callable[[GpuState], Verdict]) -> Iterator[Finding]:
    """One finding for all GPUs that are alike."""
    groups: dict[Verdict, list[int]] = {}
    for gpu in gpus:
        groups.setdefault(judge(gpu), []).append(gpu.gpu.index)
    for (state, text, fix), indices in groups.items():
        who = f"GPU {', '.join(map(str, indices))}: " if len(groups) > 1 else ""
        yield Finding(subject=subject, state=state, text=who + text, fix=fix)


def _energy(gpu: GpuState) -> Verdict:
    if gpu.refusal is not None:
        text, _, fix = gpu.refusal.removeprefix("meter=nvml: ").partition("; ")
        return State.PROBLEM, text, fix or "use another GPU"
    if not gpu.energy_j:
        return State.PROBLEM, "the energy counter stands still", "reset the GPU or update its driver"
    return State.OK, "the energy counter moves", None


def _power(gpu: GpuState) -> Verdict:
    if gpu.power_w is None:
        return (
            State.WARNING,
            "no instantaneous power, so joules have no second reading",
            "update the driver: it lacks NVML_FI_DEV_POWER_INSTANT",
        )
    return State.OK, "instantaneous power is answered", None


def _limit(gpu: GpuState) -> Verdict:
    limit_w, default_w = gpu.state.power_limit_w if gpu.state else None, gpu.default_power_limit_w
    if limit_w is None or default_w is None:
        return State.NOT_APPLICABLE, "the power limit is not answered", None
    if round(limit_w) != round(default_w):
        return (
            State.WARNING,
            f"{limit_w:.0f} W instead of {default_w:.0f} W",
            f"sudo nvidia-smi -pl {default_w:.0f}, unless this is what is deployed: rows name the limit",
        )
    return State.OK, f"{limit_w:.0f} W, the default", None


def _clocks(gpu: GpuState) -> Verdict:
    clock_mhz, default_mhz = gpu.application_clock_mhz, gpu.default_application_clock_mhz
    if clock_mhz is None or default_mhz is None:
        return State.NOT_APPLICABLE, "application clocks are not answered", None
    if clock_mhz != default_mhz:
        return (
            State.WARNING,
            f"application clock {clock_mhz} MHz instead of {default_mhz} MHz",
            "sudo nvidia-smi -rac, unless this is what is deployed",
        )
    # NVML has no question for clocks that nvidia-smi -lgc locked; they show in a row's SM clock.
    return State.OK, f"application clock {clock_mhz} MHz, the default", None


def _heat(gpu: GpuState) -> Verdict:
    degrees = gpu.state.temperature_c if gpu.state else None
    now = "no temperature" if degrees is None else f"below {HOT_C:.0f} C"
    held_back = [text for text in gpu.held_back or () if text != "power limit"]
    if held_back:
        return State.WARNING, f"clocks are held back now: {', '.join(held_back)}", "check cooling and power supply"
    if degrees is not None and degrees >= HOT_C:
        return State.WARNING, f"{degrees:.0f} C before any load", "check cooling; wait until it has cooled down"
    return State.OK, f"{now}, clocks are not held back", None


def _memory_errors(gpu: GpuState) -> Verdict:
    if gpu.uncorrected_errors is None:
        return State.NOT_APPLICABLE, "no ECC", None
    if gpu.uncorrected_errors:
        return (
            State.WARNING,
            f"{gpu.uncorrected_errors} uncorrected since the driver's load",
            "reset or replace the GPU",
        )
    return State.OK, "none uncorrected", None


def _persistence(gpu: GpuState) -> Verdict:
    if gpu.is_persistent is False:
        return (
            State.WARNING,
            "off: the driver is unloaded between engines, starts are slower and settings are lost",
            "sudo nvidia-smi -pm 1, or start nvidia-persistenced",
        )
    return State.OK, "on" if gpu.is_persistent else "not answered", None


def _exclusive(gpu: GpuState) -> Verdict:
    if gpu.is_exclusive:
        return State.WARNING, "exclusive: an engine of several processes cannot share it", "sudo nvidia-smi -c DEFAULT"
    return State.OK, "shared", None


JUDGES: dict[str, Callable[[GpuState], Verdict]] = {
    "power reading": _power,
    "power limit": _limit,
    "clocks": _clocks,
    "heat": _heat,
    "memory errors": _memory_errors,
    "persistence": _persistence,
    "compute mode": _exclusive,
}


def _process_numbers() -> Finding:
    namespace = Path("/proc/self/ns/pid")
    own = str(namespace.readlink()) if namespace.is_symlink() else HOST_PID_NAMESPACE
    if own == HOST_PID_NAMESPACE:
        return ok("process ids", "numbered as the driver numbers them")
    return warning(
        "process ids",
        "this container numbers processes itself, so the GPU's users cannot be told from the engine",
        "start the container with --pid=host, or see to it that nobody else uses the GPUs",
    )


def _permissions() -> Finding:
    who = "root" if os.geteuid() == 0 else "not root"
    may = "may" if _is_admin() else "may not"
    return ok("permissions", f"{who}: {may} set power limits and clocks; power=untouched never does")


def _is_admin() -> bool:
    """Whether this process has CAP_SYS_ADMIN, which NVIDIA's driver asks for; root in a container need not."""
    status = PROCESS_STATUS.read_text() if PROCESS_STATUS.is_file() else ""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return os.geteuid() == 0 if found is None else bool(int(found[1], 16) >> CAP_SYS_ADMIN & 1)


def _meter(study: Study, environ: Mapping[str, str], nvml: Any, gpus: Sequence[GpuState]) -> Finding:
    """Whether the study's meter takes the first GPU; not tried where it would wait for others to let go of it."""
    if any((gpu.gpu.used_bytes or 0) > MAX_USED_BYTES or gpu.refusal for gpu in gpus[:1]):
        return not_applicable("meter", "not tried, as its first GPU is not free")
    return ok("meter", open_meter(study, 1, environ, nvml=nvml).info.description)
