"""NVML, NVIDIA's management library: import it, hold it open, and say plainly why it is not there."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pipeline.errors import MeterError

MIG_FIX = "energy is metered per board, not per MIG slice: use a GPU with MIG off"


class NvmlMissingError(MeterError):
    """This machine has no NVML: no NVIDIA driver, or none visible in this container."""


def import_nvml() -> ModuleType:
    """The module `pynvml` of the package nvidia-ml-py.

    Raises:
        NvmlMissingError: If it cannot be imported.
    """
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise NvmlMissingError(f"meter=nvml: {error}; install nvidia-ml-py") from error


@contextmanager
def initialized(nvml: Any) -> Iterator[None]:
    """Hold NVML open; any of its errors inside becomes a MeterError.

    Raises:
        NvmlMissingError: If there is no NVIDIA driver.
        MeterError: If NVML fails otherwise.
    """
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded) as error:
        raise NvmlMissingError(
            f"meter=nvml: no NVIDIA driver ({error}); install it, or start the container with its GPUs"
        ) from error
    except nvml.NVMLError as error:
        raise MeterError(
            f"meter=nvml: NVML does not start: {error}; nvidia-smi shows the same until it works"
        ) from error
    try:
        yield
    except nvml.NVMLError as error:
        raise MeterError(f"meter=nvml: NVML says: {error}") from error
    finally:
        nvml.nvmlShutdown()
