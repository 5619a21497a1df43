"""Which GPUs this process may use: NVML's, as CUDA_VISIBLE_DEVICES narrows them; and GPUs by name."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, MeterError
from pipeline.meter.nvml_library import MIG_FIX, NvmlMissingError, import_nvml, initialized


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as its driver reports it; `index` is NVML's, in order of the PCI bus."""

    uuid: str
    name: str
    index: int
    memory_bytes: int | None
    used_bytes: int | None = None


def visible_gpus(nvml: Any = None, environ: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs that CUDA would show to a process with this environment, in its order.

    CUDA silently stops at the first entry of CUDA_VISIBLE_DEVICES that it does not know; here that is an error.

    Args:
        nvml: Module with the interface of pynvml; None imports it.
        environ: Environment variables; CUDA_VISIBLE_DEVICES holds indices, UUIDs or beginnings of UUIDs.

    Returns:
        The GPUs; none on a machine without NVML or NVIDIA driver.

    Raises:
        ConfigError: If an entry is unknown, ambiguous or repeated, or an index does not say which GPU is meant.
        MeterError: If an entry is a MIG slice, or NVML fails.
    """
    gpus = _all_gpus(nvml)
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None or not gpus:
        return gpus
    entries = [entry.strip() for entry in value.split(",")]
    if entries in ([""], ["-1"]):
        return ()
    order = environ.get("CUDA_DEVICE_ORDER")
    if any(entry.isdecimal() for entry in entries) and len({gpu.name for gpu in gpus}) > 1 and order != "PCI_BUS_ID":
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES={value}: the GPUs of this machine differ, and CUDA numbers them by speed, "
            "NVML by bus; set CUDA_DEVICE_ORDER=PCI_BUS_ID or name them by UUID (nvidia-smi -L)"
        )
    return _chosen(entries, gpus, f"CUDA_VISIBLE_DEVICES={value}")


def named_gpus(names: Sequence[str], nvml: Any = None) -> tuple[Gpu, ...]:
    """GPUs of this machine by name, whatever CUDA_VISIBLE_DEVICES says.

    Args:
        names: NVML indices, UUIDs or beginnings of UUIDs.
        nvml: Module with the interface of pynvml; None imports it.

    Returns:
        The GPUs in the order named; none on a machine without NVML or NVIDIA driver.

    Raises:
        ConfigError: If none is named, or one is unknown, ambiguous or repeated.
        MeterError: If one is a MIG slice, or NVML fails.
    """
    gpus = _all_gpus(nvml)
    return _chosen([name.strip() for name in names], gpus, f"gpus={','.join(names)}") if gpus else ()


def _all_gpus(nvml: Any) -> tuple[Gpu, ...]:
    try:
        nvml = import_nvml() if nvml is None else nvml
        with initialized(nvml):
            return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except NvmlMissingError:
        return ()


def _chosen(entries: Sequence[str], gpus: tuple[Gpu, ...], setting: str) -> tuple[Gpu, ...]:
    """The GPUs that the entries of a setting name.

    Raises:
        ConfigError: If an entry is unknown, ambiguous or repeated, or there is none.
        MeterError: If one names a MIG slice.
    """
    if not entries:
        raise ConfigError(f"{setting} names no GPU; allowed: {_listed(gpus)}")
    chosen = tuple(_named(entry, gpus, setting) for entry in entries)
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"{setting} names a GPU twice; name each once")
    return chosen


def _named(entry: str, gpus: tuple[Gpu, ...], setting: str) -> Gpu:
    """The GPU that one entry names.

    Raises:
        ConfigError: If it names none or several.
        MeterError: If it names a MIG slice.
    """
    if entry.startswith("MIG-"):
        raise MeterError(f"{setting}: {MIG_FIX}")
    if entry.startswith("GPU-"):
        matches = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    else:
        matches = [gpu for gpu in gpus if entry.isdecimal() and gpu.index == int(entry)]
    if len(matches) != 1:
        problem = "is the beginning of several GPUs' UUIDs" if matches else "is no GPU of this machine"
        raise ConfigError(f"{setting}: {entry!r} {problem}; allowed: {_listed(gpus)}")
    return matches[0]


def _listed(gpus: tuple[Gpu, ...]) -> str:
    return ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus)


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory_bytes: int | None
    used_bytes: int | None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        memory_bytes, used_bytes = int(memory.total), int(memory.used)
    except nvml.NVMLError_NotSupported:  # boards that share the host's memory
        memory_bytes = used_bytes = None
    return Gpu(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        index=index,
        memory_bytes=memory_bytes,
        used_bytes=used_bytes,
    )
