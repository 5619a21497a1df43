"""What an engine's own environment gives it: `python environment.py`, within the container if there is one.

Needs nothing but the standard library, and starts nothing: CUDA is counted, MPI is loaded but not initialised.
Prints one line `MARK {json}`:

    num_gpus     GPUs that CUDA shows there, or null
    cuda_error   why CUDA shows none, or null
    mpi          the MPI library behind mpi4py, or null
    mpi_error    why mpi4py does not load, or null
    shm_bytes    size of /dev/shm, or null where there is none
    memlock_bytes, nofile    limits of a process there; null is unlimited
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
from typing import Any

MARK = "ENGINE-ENVIRONMENT"


def environment() -> dict[str, Any]:
    """The facts, as above."""
    num_gpus, cuda_error = _cuda()
    mpi, mpi_error = _mpi()
    return {
        "num_gpus": num_gpus,
        "cuda_error": cuda_error,
        "mpi": mpi,
        "mpi_error": mpi_error,
        "shm_bytes": _shm_bytes(),
        "memlock_bytes": _limit(resource.RLIMIT_MEMLOCK),
        "nofile": _limit(resource.RLIMIT_NOFILE),
    }


def _cuda() -> tuple[int | None, str | None]:
    """GPUs by the driver API, which makes no context (cuda.h: cuInit, cuDeviceGetCount)."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return None, str(error)
    count = ctypes.c_int()
    if status := cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return None, f"CUDA error {status}"
    return count.value, None


def _mpi() -> tuple[str | None, str | None]:
    try:
        import mpi4py  # noqa: PLC0415  # only if it is there

        mpi4py.rc.initialize = False
        from mpi4py import MPI  # noqa: PLC0415  # loads the library
    except (ImportError, OSError, RuntimeError) as error:
        return None, f"{type(error).__name__}: {error}"
    return MPI.Get_library_version().split(",")[0].strip(), None


def _shm_bytes() -> int | None:
    try:
        stat = os.statvfs("/dev/shm")  # noqa: S108  # the mount itself is what is asked about
    except OSError:
        return None
    return stat.f_frsize * stat.f_blocks


def _limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


if __name__ == "__main__":
    print(f"\n{MARK} {json.dumps(environment())}", flush=True)  # noqa: T201
