import re
import socket
from pathlib import Path

import pytest

from pipeline.rig import host_id as module

told = module.host_id.__wrapped__
"""Without the memory of the first answer."""


@pytest.fixture
def boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "boot_id"
    path.write_text("one\n")
    monkeypatch.setattr(module, "BOOT_ID", path)
    return path


def test_one_boot_of_one_machine_has_one_id_which_names_nobody() -> None:
    assert told() == told() == module.host_id()
    assert re.fullmatch("[0-9a-f]{12}", told())
    assert socket.gethostname() not in told()


def test_another_boot_or_machine_is_another_visit(boot_id: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told()
    boot_id.write_text("two\n")
    assert told() != first
    boot_id.write_text("one\n")
    assert told() == first
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert told() != first


def test_without_a_boot_id_the_time_of_boot_tells(boot_id: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told()
    boot_id.unlink()
    monkeypatch.setattr("psutil.boot_time", lambda: 1000.2)
    second = told()
    assert second != first
    monkeypatch.setattr("psutil.boot_time", lambda: 1000.4)
    assert told() == second  # read to the second, for it jitters
    monkeypatch.setattr("psutil.boot_time", lambda: 5000.0)
    assert told() != second
