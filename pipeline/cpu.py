"""When a core of this machine works."""

from typing import Any

BUSY_STATES = ("user", "nice", "system", "irq", "softirq")
"""States of `psutil.cpu_times` in which a core of this machine works. Left out: idle and iowait (it does not), steal
(another virtual machine had the core), guest and guest_nice (Linux counts them in user and nice already, proc(5))."""


def busy_s(times: Any) -> float:
    """Busy seconds by what `psutil.cpu_times` returned; a state that the platform does not count adds nothing."""
    return float(sum(getattr(times, state, 0.0) for state in BUSY_STATES))
