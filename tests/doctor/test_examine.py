"""All checks together: on this machine for real, and with GPUs that are not there."""

import sys

import pytest

from pipeline.doctor import machine
from pipeline.doctor.examine import examine
from pipeline.doctor.finding import Finding, State
from pipeline.meter import gpu_state
from tests.builders import make_study
from tests.meter.fake_nvml import FakeGpu, FakeNvml


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOOK_S", 0.05)
    monkeypatch.setattr(gpu_state, "LOOK_S", 0.03)


def test_this_machine_is_examined_without_a_crash_and_every_fault_says_what_to_do() -> None:
    found = list(examine(make_study("study=test")))
    subjects = [finding.subject for finding in found]
    assert len(subjects) == len(set(subjects))
    assert not [finding for finding in found if "this check failed" in finding.text]
    assert all(finding.fix for finding in found if finding.state in {State.WARNING, State.PROBLEM})
    assert all("\n" not in finding.text for finding in found)


def test_gpus_that_are_there_are_examined_too() -> None:
    study = make_study(
        "model=gpt-oss-120b", "hardware=h100", "engine=trtllm", "precision=auto", "parallelism=auto", "batching=auto",
        "workload=chat_1k_1k", "study=test", f"engine.python={sys.executable}",
    )  # fmt: skip
    found = {finding.subject: finding for finding in examine(study, {}, FakeNvml(FakeGpu(tick_s=0.01)))}
    assert found["GPU 0"].state is State.OK
    assert found["memory"].state in {State.OK, State.WARNING}
    assert found["engine's GPUs"].state is State.PROBLEM
    assert found["engine"].state is State.PROBLEM
    assert "config" not in found
    assert all(finding.fix for finding in found.values() if finding.state in {State.WARNING, State.PROBLEM})


def test_a_check_that_crashes_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> Finding:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(machine, "clock", crash)
    found = {finding.subject: finding for finding in examine(make_study("study=test"))}
    assert "this check failed: RuntimeError: no such thing" in found["clock"].text
    assert "port" in found
