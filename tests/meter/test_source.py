import subprocess
import sys
import time

import pytest

from pipeline.meter.source import timed

HEAVY = {"hydra", "numpy", "omegaconf", "optuna", "pandas", "pyarrow", "pydantic", "scipy"}


def test_the_time_of_a_read_is_its_midpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ns = iter([1000, 1400])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(clock_ns))
    assert timed(lambda: "value") == (1200, "value")


@pytest.mark.parametrize("module", ["process", "nvml_source", "nvml_library", "powercap", "cpu_time"])
def test_what_the_sampling_process_imports_is_light(module: str) -> None:
    code = f"import sys, pipeline.meter.{module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pipeline" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())
