"""What an engine's environment says of itself."""

import resource
import sys
from pathlib import Path

import pytest

from pipeline.engine.side.environment import environment


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for stand-ins of mpi4py."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mpi4py", "mpi4py.MPI"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "mpi4py").mkdir()
    return tmp_path / "mpi4py"


def test_mpi_is_named_without_being_initialised(packages: Path) -> None:
    (packages / "__init__.py").write_text("class rc:\n    initialize = True\n")
    (packages / "MPI.py").write_text(
        "import mpi4py\nassert mpi4py.rc.initialize is False\n"
        "def Get_library_version():\n    return 'Open MPI v4.1.7, package: debian, Dec 2024'\n"
    )
    said = environment()
    assert (said["mpi"], said["mpi_error"]) == ("Open MPI v4.1.7", None)


def test_an_mpi_that_does_not_load_says_why(packages: Path) -> None:
    (packages / "__init__.py").write_text("class rc:\n    initialize = True\n")
    (packages / "MPI.py").write_text("raise ImportError('libmpi.so.40: cannot open shared object file')\n")
    said = environment()
    assert said["mpi"] is None
    assert said["mpi_error"] == "ImportError: libmpi.so.40: cannot open shared object file"


def test_limits_are_those_of_this_process_and_unlimited_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment()["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said = environment()
    assert (said["nofile"], said["memlock_bytes"]) == (None, None)
