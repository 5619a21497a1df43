"""GPUs on a stand-in of NVML, well and broken."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pynvml
import pytest

from pipeline.doctor import gpus as module
from pipeline.doctor.finding import Finding, State
from pipeline.doctor.gpus import look
from pipeline.meter import gpu_state
from pipeline.study import Study
from tests.builders import make_study
from tests.meter.fake_nvml import INSTANT, FakeGpu, FakeNvml

GIB = 2**30
HELD_BY_HEAT = pynvml.nvmlClocksEventReasonSwThermalSlowdown


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_state, "LOOK_S", 0.03)


def h100_study() -> Study:
    return make_study(
        "model=gpt-oss-120b", "hardware=h100", "engine=trtllm", "precision=auto", "parallelism=auto", "batching=auto",
        "workload=chat_1k_1k", "study=test",
    )  # fmt: skip


def gpu(number: int = 0, **broken: Any) -> FakeGpu:
    return dataclasses.replace(FakeGpu(tick_s=0.01, uuid=f"GPU-{number}"), **broken)


def found(*gpus: FakeGpu, **environ: str) -> dict[str, Finding]:
    return {finding.subject: finding for finding in look(h100_study(), environ, FakeNvml(*gpus)).findings}


def test_a_good_gpu_has_no_problem() -> None:
    looked = look(h100_study(), {}, FakeNvml(gpu()))
    assert looked.driver is not None
    assert [state.gpu.uuid for state in looked.states] == ["GPU-0"]
    by_subject = {finding.subject: finding for finding in looked.findings}
    assert {name for name, finding in by_subject.items() if finding.state is not State.OK} <= {"process ids"}
    assert "79.7 of 80.0 GiB free, GPU-0" in by_subject["GPU 0"].text
    assert by_subject["driver"].text == "580.00.fake, runs CUDA up to 13.0"
    assert "1 x NVIDIA H100 80GB HBM3" in by_subject["meter"].text


@pytest.mark.parametrize(
    ("broken", "subject", "state", "text", "fix"),
    [
        ({"has_energy": False}, "energy counter", State.PROBLEM, "no energy counter", "use another GPU"),
        ({"mig": True}, "energy counter", State.PROBLEM, "MIG is on", "MIG off"),
        ({"tick_s": 1e6}, "energy counter", State.PROBLEM, "stands still", "driver"),
        (
            {"field_status": {INSTANT: pynvml.NVML_ERROR_NOT_SUPPORTED}},
            "power reading",
            State.WARNING,
            "no instantaneous power",
            "update the driver",
        ),
        ({"power_limit_w": 500.0}, "power limit", State.WARNING, "500 W instead of 700 W", "-pl 700"),
        ({"power_limit_w": None}, "power limit", State.NOT_APPLICABLE, "not answered", None),
        ({"application_clock_mhz": 1200}, "clocks", State.WARNING, "1200 MHz instead of 1980 MHz", "-rac"),
        ({"application_clock_mhz": None}, "clocks", State.NOT_APPLICABLE, "not answered", None),
        ({"event_reasons": HELD_BY_HEAT}, "heat", State.WARNING, "heat (software)", "cooling"),
        ({"temperature_c": 85}, "heat", State.WARNING, "85 C before any load", "cooling"),
        ({"uncorrected_errors": 2}, "memory errors", State.WARNING, "2 uncorrected", "replace"),
        ({"uncorrected_errors": None}, "memory errors", State.NOT_APPLICABLE, "no ECC", None),
        ({"persistence": False}, "persistence", State.WARNING, "off", "-pm 1"),
        (
            {"compute_mode": pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS},
            "compute mode",
            State.WARNING,
            "exclusive",
            "DEFAULT",
        ),
        ({"used_bytes": 40 * GIB}, "GPU 0", State.PROBLEM, "40.0 of 80.0 GiB free", "CUDA_VISIBLE_DEVICES"),
        pytest.param(
            {"compute_pids": (os.getpid(),)},
            "GPU 0",
            State.WARNING,
            f"process {os.getpid()} (",
            "foreign_process",
            id="a process of this container",
        ),
        ({"compute_pids": (2**22 + 1,)}, "GPU 0", State.WARNING, "not of this container", "foreign_process"),
        ({"name": "NVIDIA A100-SXM4-80GB"}, "meter", State.PROBLEM, "this machine has NVIDIA A100", "hardware="),
    ],
)
def test_what_is_broken_is_named_with_what_to_do(
    broken: dict[str, Any], subject: str, state: State, text: str, fix: str | None
) -> None:
    finding = found(gpu(**broken))[subject]
    assert finding.state is state
    assert text in finding.text
    assert finding.fix is None if fix is None else fix in (finding.fix or "")


def test_gpus_that_are_alike_share_a_line_and_the_odd_one_is_named() -> None:
    looked = look(h100_study(), {}, FakeNvml(gpu(0), gpu(1, power_limit_w=300.0), gpu(2)))
    limits = [finding.text for finding in looked.findings if finding.subject == "power limit"]
    assert limits == ["GPU 0, 2: 700 W, the default", "GPU 1: 300 W instead of 700 W"]
    assert sum(finding.subject == "energy counter" for finding in looked.findings) == 1


def test_a_gpu_that_cannot_be_metered_has_only_that_said_of_it() -> None:
    assert not found(gpu(0, mig=True)).keys() & {"power reading", "power limit", "clocks", "heat", "persistence"}
    looked = look(h100_study(), {}, FakeNvml(gpu(0, mig=True), gpu(1, persistence=False)))
    assert [f.text.partition(":")[0] for f in looked.findings if f.subject == "energy counter"] == ["GPU 0", "GPU 1"]
    assert [f.text.partition(":")[0] for f in looked.findings if f.subject == "persistence"] == ["off"]


def test_only_visible_gpus_are_looked_at() -> None:
    looked = look(h100_study(), {"CUDA_VISIBLE_DEVICES": "1"}, FakeNvml(gpu(0), gpu(1)))
    assert [state.gpu.uuid for state in looked.states] == ["GPU-1"]
    hidden = look(h100_study(), {"CUDA_VISIBLE_DEVICES": ""}, FakeNvml(gpu(0)))
    assert hidden.findings[-1].text == "none is visible"


def test_a_wrong_cuda_visible_devices_is_a_problem() -> None:
    finding = found(gpu(0), CUDA_VISIBLE_DEVICES="7")["GPUs"]
    assert finding.state is State.PROBLEM
    assert "'7' is no GPU of this machine" in finding.text


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_UNKNOWN])
def test_without_a_driver_that_works_there_is_one_problem(error: int) -> None:
    looked = look(h100_study(), {}, FakeNvml(init_error=error))
    (finding,) = looked.findings
    assert (finding.subject, finding.state, looked.states) == ("driver", State.PROBLEM, ())
    assert finding.fix


def test_a_gpu_that_is_lost_is_a_problem_of_the_driver() -> None:
    looked = look(h100_study(), {}, FakeNvml(gpu(lost_at_s=0.0)))
    assert looked.findings[-1].state is State.PROBLEM
    assert "lost" in looked.findings[-1].text.lower()


def test_the_meter_is_not_tried_where_it_would_wait() -> None:
    assert found(gpu(used_bytes=40 * GIB))["meter"].state is State.NOT_APPLICABLE


@pytest.mark.parametrize(("own", "state"), [(True, State.OK), (False, State.WARNING)])
def test_a_container_that_numbers_processes_itself_is_told(
    monkeypatch: pytest.MonkeyPatch, own: bool, state: State
) -> None:
    here = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    monkeypatch.setattr(module, "HOST_PID_NAMESPACE", here if own else "pid:[1]")
    assert found(gpu())["process ids"].state is state


@pytest.mark.parametrize(
    ("effective", "may"), [("000001ffffffffff", "may set"), ("00000000a80425fb", "may not set"), ("0", "may not set")]
)
def test_what_may_be_set_is_said_by_the_process_capabilities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, effective: str, may: str
) -> None:
    (tmp_path / "status").write_text(f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\n")
    monkeypatch.setattr(module, "PROCESS_STATUS", tmp_path / "status")
    assert f": {may} power limits" in found(gpu())["permissions"].text


def test_a_cpu_study_needs_none() -> None:
    (finding,) = look(make_study("study=test"), {}, FakeNvml(gpu())).findings
    assert finding.state is State.NOT_APPLICABLE
