"""Settings of all tests."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing on a shared machine; 60 of them keep the whole of the tests within ten minutes.
settings.register_profile("tests", deadline=None, max_examples=60)
settings.load_profile("tests")

# A shell starts background jobs with SIGINT ignored, which children inherit; tests of Ctrl-C need it as on a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
ALONE = (
    "e2e", "contract/test_load_contract.py", "contract/test_rig_contract.py", "rig/test_served.py", "load",
    "cli/test_measure.py", "cli/test_repeat.py", "meter/test_process.py",
)  # fmt: skip
"""Tests that measure a real load on this machine, which other tests beside them would disturb."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what has to run by itself: `make test` runs the others two at a time."""
    for item in items:
        if any(item.path.is_relative_to(TESTS / name) for name in ALONE):
            item.add_marker("alone")
