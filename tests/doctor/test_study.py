"""What a sweep would refuse at once is a problem here."""

import sys
from pathlib import Path

import pytest

from pipeline.doctor.finding import Finding, State
from pipeline.doctor.gpus import Gpus
from pipeline.doctor.study import study_findings
from pipeline.meter.gpu_state import GpuState
from pipeline.meter.visible_gpus import Gpu
from pipeline.study import Study
from tests.builders import make_study
from tests.engine.trtllm.recipe_files import RECIPES

GPUS = Gpus(
    findings=(),
    states=tuple(
        GpuState(gpu=Gpu(uuid=f"GPU-{n}", name="H100", index=n, memory_bytes=80 * 2**30, used_bytes=0)) for n in (0, 1)
    ),
)


def study(*overrides: str) -> Study:
    return make_study(
        "model=gpt-oss-120b", "hardware=h100", "hardware.num_gpus=2", "engine=trtllm", "precision=fp4",
        "parallelism=single", "parallelism.tp=[1,2]", "batching=default", "workload=chat_1k_1k", "study=test",
        f"engine.python={sys.executable}", *overrides,
    )  # fmt: skip


def found(*overrides: str) -> dict[str, Finding]:
    return {finding.subject: finding for finding in study_findings(study(*overrides), GPUS)}


def test_a_good_study_has_no_fault() -> None:
    good = found(f"search.recipes={RECIPES}")
    assert list(good) == ["number of GPUs", "configs", "recipes"]
    assert {finding.state for finding in good.values()} == {State.OK}
    assert "feasible" in good["configs"].text


@pytest.mark.parametrize(
    ("overrides", "subject", "text"),
    [
        (["hardware.num_gpus=8", "parallelism.tp=8"], "number of GPUs", "hardware.num_gpus=8: 2 visible here"),
        (["engine.knobs.no_such=1"], "configs", "engine.knobs.no_such: trtllm has no such knob"),
        (["parallelism.tp=3", "hardware.num_gpus=8"], "configs", "tp=3 does not divide the 64 attention heads"),
        (["engine.version=0.9.0"], "configs", "engine.version=0.9.0"),
        (["search.recipes=/no/such/folder"], "recipes", "search.recipes=/no/such/folder"),
        (["disaggregation=split"], "configs", "disaggregation=split: is rendered only"),
    ],
)
def test_what_a_sweep_refuses_is_a_problem_with_a_fix(overrides: list[str], subject: str, text: str) -> None:
    finding = found(*overrides)[subject]
    assert finding.state is State.PROBLEM
    assert text in finding.text
    assert "\n" not in finding.text


def test_a_server_of_someone_else_is_not_judged() -> None:
    (finding,) = study_findings(make_study("engine=attached"), GPUS)
    assert finding.state is State.NOT_APPLICABLE


def test_a_study_of_a_processor_needs_no_gpus() -> None:
    (finding,) = study_findings(make_study("study=test"), Gpus(findings=()))
    assert (finding.subject, finding.state) == ("configs", State.OK)


def test_the_folder_of_recipes_is_said_as_it_was_given(tmp_path: Path) -> None:
    assert str(tmp_path) in found(f"search.recipes={tmp_path}")["recipes"].text
