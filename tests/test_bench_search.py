"""The search bench: a small run of it, and the arithmetic of its summary."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.search import Run, summary

ROOT = Path(__file__).resolve().parents[1]


def test_regret_is_taken_after_so_many_starts_and_near_is_counted_where_it_is_reached() -> None:
    near = Run(regret=(0.5, 0.2, 0.04, 0.0), spent_s=(100, 200, 300, 400))
    far = Run(regret=(0.6, 0.6, 0.3, 0.3), spent_s=(100, 200, 300, 400))
    found = summary([near, near, far], (3, 20))
    assert (found["regret_3"], found["regret_20"]) == (0.04, 0.0)
    assert (found["starts_to_near"], found["gpu_s_to_near"]) == (3, 300)
    assert found["share_near"] == pytest.approx(2 / 3, abs=1e-3)
    assert summary([far], (3, 20))["gpu_s_to_near"] is None


def test_a_short_run_ends_with_json_of_every_method_asked_for() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "bench.search", "--seeds", "1", "--starts", "3", "--method", "random", "--method",
         "grid order"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout.splitlines()[-1])
    for kind in ("recorded", "surrogate"):
        assert set(result[kind]["methods"]) == {"random", "grid order"}
        assert 0 <= result[kind]["methods"]["random"]["regret_3"] <= 1
