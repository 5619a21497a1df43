"""The power that a stand-in's GPUs draw: published by the server, read by the fake driver.

One small file a GPU: joules above idle since the file was made, watts above idle, and when that was (monotonic clock,
the same in all processes of a machine).
"""

import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

IDLE_W = 76.0
"""Idle board power of an H100 SXM, conf/hardware/h100.yaml."""

STALE_S = 0.5
"""A server that has published nothing for so long draws nothing: it is gone."""

_RECORD = struct.Struct("3d")


def gpu_numbers(visible: str | None, num_gpus: int) -> list[int]:
    """GPUs that a value of CUDA_VISIBLE_DEVICES names, by index or by `gpu_uuid`."""
    if visible is None:
        return list(range(num_gpus))
    entries = [entry.strip() for entry in visible.split(",") if entry.strip()]
    return [int(entry) if entry.isdecimal() else int(entry.removeprefix("GPU-")[:8], 16) for entry in entries]


def gpu_uuid(number: int) -> str:
    """The UUID of a fake GPU, from which its number can be read."""
    return f"GPU-{number:08x}-aaaa-bbbb-cccc-{number:012x}"


class PowerFile:
    """One GPU."""

    def __init__(self, folder: Path, gpu: int) -> None:
        """Open the file, made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / f"gpu-{gpu}", os.O_RDWR | os.O_CREAT)

    def read(self) -> tuple[float, float]:
        """Joules and watts above idle."""
        record = os.pread(self._file, _RECORD.size, 0)
        if len(record) < _RECORD.size:
            return 0.0, 0.0
        energy_j, power_w, at_s = _RECORD.unpack(record)
        return energy_j, power_w if time.monotonic() - at_s < STALE_S else 0.0

    def write(self, energy_j: float, power_w: float) -> None:
        """Publish."""
        os.pwrite(self._file, _RECORD.pack(energy_j, power_w, time.monotonic()), 0)


class PowerPublisher:
    """What the GPUs of one server draw, all alike."""

    def __init__(self, folder: Path | None, gpus: Sequence[int]) -> None:
        """Go on from where the last server on these GPUs stopped."""
        self._files = [PowerFile(folder, gpu) for gpu in gpus] if folder else []
        self._before_j = [file.read()[0] for file in self._files]
        self._num_gpus, self._start_s = len(gpus), time.monotonic()
        self._last_s = self._start_s
        self._active_j = self._active_w = 0.0

    def set_w(self, active_w: float) -> None:
        """From now on each GPU draws so much above idle."""
        now_s = time.monotonic()
        self._active_j += self._active_w * (now_s - self._last_s)
        self._active_w, self._last_s = active_w, now_s
        for file, before_j in zip(self._files, self._before_j, strict=True):
            file.write(before_j + self._active_j, active_w)

    def total_j(self) -> float:
        """Of all its GPUs since the start, idle included."""
        self.set_w(self._active_w)
        return self._num_gpus * (self._active_j + IDLE_W * (time.monotonic() - self._start_s))
