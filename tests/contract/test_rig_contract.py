"""What every rig promises: sessions whose rows belong to their config and say what they are.

The served rig runs with the real embedded engine, once with the declared meter and once, as if on a GPU, with the fake
NVML, whose rows must come out as simulated.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.engine.catalog import ENGINES
from pipeline.engine_config import EngineConfig
from pipeline.meter.catalog import open_meter
from pipeline.meter.nvml import NvmlMeter
from pipeline.rig.modelled import ModelledRig
from pipeline.rig.protocol import Rig, TrialError
from pipeline.rig.served import ServedRig
from pipeline.space import build_space
from pipeline.store import Store
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint
from tests.builders import MODELLED, make_study
from tests.meter.fake_nvml import FakeGpu, FakeNvml

POINT = OperatingPoint(concurrency=2)


def _served_study(tmp_path: Path) -> Study:
    return make_study(
        f"results_dir={tmp_path}/results", f"engines_dir={tmp_path}/engines", "plan.window_s=0.6", "plan.warmup_s=0.1"
    )


def _modelled(tmp_path: Path) -> tuple[Rig, Study, Evidence]:
    study = make_study(*MODELLED)
    return ModelledRig(study, ENGINES[study.engine.name]), study, Evidence.MODELLED


def _declared(tmp_path: Path) -> tuple[Rig, Study, Evidence]:
    study = _served_study(tmp_path)
    store = Store(tmp_path / "results")
    rig = ServedRig(study, ENGINES["openvino"], lambda num_gpus: open_meter(study, num_gpus), store)
    return rig, study, Evidence.ESTIMATED


def _fake_gpu(tmp_path: Path) -> tuple[Rig, Study, Evidence]:
    study = dataclasses.replace(_served_study(tmp_path), meter="nvml")
    gpu = FakeGpu()
    nvml = FakeNvml(gpu)
    rig = ServedRig(study, ENGINES["openvino"], lambda _: NvmlMeter([gpu.uuid], nvml), Store(tmp_path / "results"))
    return rig, study, Evidence.SIMULATED


@pytest.fixture(params=[_modelled, _declared, _fake_gpu], ids=["modelled", "declared", "fake_gpu"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Rig, Study, Evidence]:
    """A rig, its study, and the evidence its rows must carry."""
    build: Callable[[Path], tuple[Rig, Study, Evidence]] = request.param
    return build(tmp_path)


def a_config(study: Study) -> EngineConfig:
    return build_space(study).configs[0]


def test_a_session_gives_rows_of_its_config(case: tuple[Rig, Study, Evidence]) -> None:
    rig, study, evidence = case
    config, phases = a_config(study), list[str]()
    with rig.start(config, "trial", phases.append) as session:
        (row,) = session.measure(POINT, phases.append)
        assert session.start.evidence is evidence
    assert phases
    assert (row.trial_id, row.study_id, row.concurrency) == ("trial", study.id, 2)
    assert (row.config_hash, row.case_id) == (config.config_hash, study.case_id(config, POINT))
    assert row.rendered_hash == session.start.rendered_hash
    assert row.evidence is evidence
    assert row.status is RowStatus.OK, row.reasons
    assert row.output_tokens_per_joule is not None
    assert row.output_tokens_per_joule > 0
    energy_j = row.gpu_energy_j if row.boundary is Boundary.GPU else row.cpu_energy_j
    if evidence is not Evidence.MODELLED:
        assert row.output_tokens is not None
        assert energy_j is not None
        assert row.output_tokens_per_joule == pytest.approx(row.output_tokens / energy_j)
        assert row.trace_file is not None
        assert Store(Path(study.results_dir)).read_trace(row).num_rows == 1


def test_nothing_is_left_when_the_session_ends(case: tuple[Rig, Study, Evidence]) -> None:
    rig, study, _ = case
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(KeyboardInterrupt), rig.start(a_config(study), "trial", lambda _: None):
        raise KeyboardInterrupt
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


def test_it_says_what_it_will_do(case: tuple[Rig, Study, Evidence]) -> None:
    rig, study, evidence = case
    assert str(evidence) in " ".join(rig.describe())
    assert rig.refusal(a_config(study)) is None


def test_a_config_that_cannot_start_is_a_trial_error(tmp_path: Path) -> None:
    rig, study, _ = _declared(tmp_path)
    config = a_config(study)
    impossible = dataclasses.replace(config, knobs={**config.knobs, "cache_size_gb": 1 << 20})
    with pytest.raises(TrialError) as failed, rig.start(impossible, "trial", lambda _: None):
        pass
    assert failed.value.status in {TrialStatus.OUT_OF_MEMORY, TrialStatus.START_FAILED}
    assert failed.value.log_tail
