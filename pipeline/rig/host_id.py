"""Which boot of which machine measured: rows of one visit share it, and it names nobody."""

import functools
import hashlib
import socket
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def host_id() -> str:
    """First 12 hex digits of the SHA-256 of host name and boot: Linux's boot id, elsewhere the time of boot."""
    boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else str(round(psutil.boot_time()))
    return hashlib.sha256(f"{socket.gethostname()} {boot}".encode()).hexdigest()[:12]
