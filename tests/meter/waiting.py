"""Wait for what a background thread does, without asserting how long it takes."""

import time
from collections.abc import Callable

DEADLINE_S = 20.0
"""Only a hang takes this long, however loaded the machine is."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds; fail by name when it never does."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.005)
