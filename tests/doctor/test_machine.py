"""Checks of this machine, and of stand-ins for worse ones."""

import importlib.metadata
import itertools
import os
import resource
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipeline.doctor import machine
from pipeline.doctor.finding import State
from pipeline.study import Study
from tests.builders import make_study
from tests.meter.fake_powercap import add_zone


def study(*overrides: str) -> Study:
    return make_study("study=test", *overrides)


def test_this_python_has_what_the_project_wants() -> None:
    assert machine.python().state is State.OK


def test_a_package_that_is_missing_or_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["optuna>=5", "rich>=14.1", "no-such>=1", "x>=9; extra == 'y'"]
    )
    known = {"optuna": "4.9.1", "rich": "14.1.0"}

    def version(name: str) -> str:
        if name not in known:
            raise importlib.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = machine.python()
    assert found.state is State.PROBLEM
    assert found.text.partition(": ")[2] == "optuna>=5 is 4.9.1; no-such>=1 is not there"


@pytest.mark.parametrize(("num_cores", "state"), [(1, State.WARNING), (64, State.OK)])
def test_few_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch, num_cores: int, state: State) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_cores)))
    assert machine.cores().state is state


@pytest.mark.parametrize(("name", "state"), [("tsc", State.OK), ("hpet", State.WARNING)])
def test_a_clock_that_is_slow_to_read_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, state: State
) -> None:
    monkeypatch.setattr(machine, "CLOCKSOURCE", tmp_path / "clock")
    assert machine.clock().state is State.NOT_APPLICABLE
    (tmp_path / "clock").write_text(f"{name}\n")
    assert machine.clock().state is state


@pytest.mark.parametrize(
    ("busy_cores", "steal_cores", "state", "fix"),
    [(0.01, 0.0, State.OK, None), (3.0, 0.0, State.WARNING, "end what else"), (0.0, 1.0, State.WARNING, "its own")],
)
def test_other_load_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, busy_cores: float, steal_cores: float, state: State, fix: str | None
) -> None:
    now_s = itertools.count(0.0, 10.0)
    times = iter([(0.0, 0.0), (10 * busy_cores, 10 * steal_cores)])

    def cpu_times() -> SimpleNamespace:
        user, steal = next(times)
        return SimpleNamespace(user=user, steal=steal)

    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(time, "monotonic", lambda: next(now_s))
    monkeypatch.setattr(machine, "LOOK_S", 0.0)
    found = machine.other_load()
    assert found.state is state
    assert found.fix is None if fix is None else fix in (found.fix or "")


@pytest.mark.parametrize(
    ("hard", "state"), [(64 + 255, State.PROBLEM), (64 + 256, State.OK), (resource.RLIM_INFINITY, State.OK)]
)
def test_every_request_in_flight_needs_an_open_file(monkeypatch: pytest.MonkeyPatch, hard: int, state: State) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, hard))
    assert machine.open_files(study("workload.concurrency=[1,64]")).state is state


def test_folders_that_do_not_exist_yet_are_judged_by_where_they_will_be(tmp_path: Path) -> None:
    found = machine.disk(study(f"results_dir={tmp_path}/a/b", f"engines_dir={tmp_path}"))
    assert [(finding.subject, finding.state) for finding in found] == [("results", State.OK), ("engines", State.OK)]
    assert not (tmp_path / "a").exists()


def test_a_full_disk_and_one_that_may_not_be_written_are_problems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    assert "make space" in (machine.disk(study(f"results_dir={tmp_path}"))[0].fix or "")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "not writable" in machine.disk(study(f"results_dir={tmp_path}"))[0].text


def test_rapl_is_a_problem_only_where_it_is_wanted(tmp_path: Path) -> None:
    assert machine.cpu_energy(study(), tmp_path).state is State.NOT_APPLICABLE
    wanted = machine.cpu_energy(study("meter=rapl"), tmp_path)
    assert wanted.state is State.PROBLEM
    assert "intel_rapl_msr" in (wanted.fix or "")


def test_rapl_that_can_be_read_is_recommended_on_a_cpu(tmp_path: Path) -> None:
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0")
    assert machine.cpu_energy(study("meter=rapl"), tmp_path).state is State.OK
    assert machine.cpu_energy(study(), tmp_path).fix == "set meter=rapl: measured joules"
    counter.unlink()
    assert machine.cpu_energy(study("meter=rapl"), tmp_path).state is State.PROBLEM
