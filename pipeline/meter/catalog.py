"""Every meter by its name, and the one that a study asks for."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, MeterError
from pipeline.meter.declared import DeclaredMeter
from pipeline.meter.nvml import NvmlMeter
from pipeline.meter.powercap import POWERCAP_ROOT
from pipeline.meter.protocol import Meter
from pipeline.meter.rapl import RaplMeter
from pipeline.meter.visible_gpus import Gpu, named_gpus, visible_gpus
from pipeline.study import Hardware, Study

RELEASE_S, RELEASE_POLL_S = 15.0, 0.5

MAX_USED_BYTES = 2 * 2**30
"""An idle data-centre GPU reports some hundred MiB in use; an engine holds tens of GiB."""


def open_meter(
    study: Study,
    num_gpus: int,
    environ: Mapping[str, str] = os.environ,
    *,
    uuids: Sequence[str] | None = None,
    nvml: Any = None,
    powercap_root: Path = POWERCAP_ROOT,
) -> Meter:
    """The meter of one deployment; `with` starts it.

    Args:
        study: Says which meter (`auto`: nvml on a GPU, declared on a CPU) and which hardware it must find.
        num_gpus: GPUs that the deployment reserves; they are the first ones visible. Ignored on a CPU.
        environ: Environment variables; CUDA_VISIBLE_DEVICES says which GPUs are visible.
        uuids: GPUs of a server that somebody else runs, as `gpus=` names them: UUIDs, beginnings of UUIDs or NVML
            indices. They are metered whoever uses them, whatever is visible; `num_gpus` is ignored and nothing pinned.
        nvml: Module with the interface of pynvml; None imports it.
        powercap_root: Where RAPL counters are.

    Raises:
        ConfigError: If the meter does not cover the hardware, lacks a parameter, or the GPUs are not the study's.
        MeterError: If the meter cannot be read on this machine.
    """
    hardware = study.hardware
    name = study.meter
    if name == "auto":
        name = "nvml" if hardware.kind == "gpu" else "declared"
    if (name == "nvml") != (hardware.kind == "gpu"):
        allowed = "nvml" if hardware.kind == "gpu" else "rapl or declared"
        raise ConfigError(f"meter={name} does not meter hardware={hardware.name}; use meter={allowed}")
    if uuids is not None and hardware.kind != "gpu":
        raise ConfigError(f"gpus={','.join(uuids)} names GPUs, hardware={hardware.name} has none; leave one out")
    meters: dict[str, Callable[[], Meter]] = {
        "nvml": lambda: (
            _reserved(hardware, num_gpus, environ, nvml) if uuids is None else _attached(hardware, uuids, nvml)
        ),
        "rapl": lambda: RaplMeter(powercap_root),
        "declared": lambda: _declared(hardware),
    }
    return meters[name]()


def _reserved(hardware: Hardware, num_gpus: int, environ: Mapping[str, str], nvml: Any) -> Meter:
    """The meter of the first GPUs visible, to which an engine is pinned.

    Raises:
        ConfigError: If there are too few, or one is not what the study says.
        MeterError: If there are none, or one of them is in use.
    """
    gpus = visible_gpus(nvml, environ)
    limit = environ.get("CUDA_VISIBLE_DEVICES")
    narrowed = "" if limit is None else f" (CUDA_VISIBLE_DEVICES={limit})"
    reserved = gpus[:num_gpus]
    _check(hardware, reserved, narrowed, "CUDA_VISIBLE_DEVICES")
    if num_gpus > len(gpus):
        raise ConfigError(
            f"hardware={hardware.name}: the deployment needs {num_gpus} GPUs, {len(gpus)} visible{narrowed}; "
            "lower parallelism.tp or parallelism.pp"
        )
    _wait_until_idle(reserved, nvml, environ)
    meter = NvmlMeter([gpu.uuid for gpu in reserved], nvml)
    # By index, for some engines take no UUIDs; in bus order, which is NVML's.
    pin = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(str(gpu.index) for gpu in reserved)}
    meter.info = dataclasses.replace(meter.info, pin=pin)
    return meter


def _attached(hardware: Hardware, names: Sequence[str], nvml: Any) -> Meter:
    """The meter of the GPUs named.

    Raises:
        ConfigError: If a name is wrong, or a GPU is not what the study says.
        MeterError: If there are none.
    """
    gpus = named_gpus(names, nvml)
    _check(hardware, gpus, "", "gpus=")
    return NvmlMeter([gpu.uuid for gpu in gpus], nvml)


def _check(hardware: Hardware, gpus: Sequence[Gpu], narrowed: str, setting: str) -> None:
    """There must be GPUs, and each must be the study's.

    Raises:
        ConfigError: If one is not, or the study does not say which it wants.
        MeterError: If there are none.
    """
    if not gpus:
        raise MeterError(
            f"hardware={hardware.name}: no GPU is visible here{narrowed or ' (no NVIDIA driver or GPU found)'}; "
            "install the driver, or start the container with its GPUs"
        )
    if hardware.nvml_name is None:
        raise ConfigError(
            f"hardware={hardware.name}: nvml_name is not set, so the GPUs cannot be checked; "
            f"set hardware.nvml_name to a part of {gpus[0].name!r} if that is the one"
        )
    # Whole words: "H200" is not a GH200.
    wanted = re.compile(rf"\b{re.escape(hardware.nvml_name)}\b")
    for gpu in gpus:
        if not wanted.search(gpu.name):
            raise ConfigError(
                f"hardware={hardware.name} is a {hardware.nvml_name}, but this machine has {gpu.name} "
                f"(GPU {gpu.index}); use the hardware=... of that GPU, or {setting} to choose another"
            )


def _wait_until_idle(reserved: Sequence[Gpu], nvml: Any, environ: Mapping[str, str]) -> None:
    """Wait a moment for memory that an engine has just let go of; GPUs in use are not ours to meter.

    Raises:
        MeterError: If another process still holds memory of one.
    """
    deadline = time.monotonic() + RELEASE_S
    uuids = {gpu.uuid for gpu in reserved}
    while busy := [gpu for gpu in reserved if (gpu.used_bytes or 0) > MAX_USED_BYTES]:
        if time.monotonic() > deadline:
            raise MeterError(
                f"GPU {busy[0].index} ({busy[0].uuid}) holds {(busy[0].used_bytes or 0) / 2**30:.0f} GiB of another "
                "process, whose energy would be counted; free it, or set CUDA_VISIBLE_DEVICES to idle GPUs"
            )
        time.sleep(RELEASE_POLL_S)
        reserved = [gpu for gpu in visible_gpus(nvml, environ) if gpu.uuid in uuids]


def _declared(hardware: Hardware) -> Meter:
    """The declared model of the study's CPU.

    Raises:
        ConfigError: If a parameter is not set.
    """
    idle_w, busy_w_per_core = hardware.declared_idle_w, hardware.declared_busy_w_per_core
    if idle_w is None or busy_w_per_core is None:
        raise ConfigError(
            f"meter=declared: hardware={hardware.name} sets declared_idle_w={idle_w} and "
            f"declared_busy_w_per_core={busy_w_per_core}; set both (watts), or use meter=rapl"
        )
    return DeclaredMeter(idle_w, busy_w_per_core)
