import dataclasses

import pytest

from pipeline.engine.openvino import OpenvinoEngine
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.rig.modelled import ModelledRig
from pipeline.rig.protocol import TrialError
from pipeline.roofline.calibration import SHIPPED
from pipeline.roofline.predict import Prediction, predict
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint
from tests.builders import MODELLED, make_study

STUDY = make_study(*MODELLED)
CONFIG = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": 2})
POINT = OperatingPoint(concurrency=16)


def test_a_row_is_the_prediction_and_says_that_it_is_one() -> None:
    phases: list[str] = []
    with ModelledRig(STUDY, TrtllmEngine()).start(CONFIG, "t1", phases.append) as session:
        (row,) = session.measure(POINT, phases.append)
    expected = predict(STUDY.model, STUDY.hardware, STUDY.workload, CONFIG, POINT)
    assert isinstance(expected, Prediction)
    assert row.output_tokens_per_joule == expected.output_tokens_per_joule
    assert row.output_tokens_per_s == expected.output_tokens_per_s
    assert row.power_w == expected.power_w
    assert (row.ttft_p50_s, row.tpot_p50_s) == (expected.ttft_s, expected.tpot_s)
    assert row.total_tokens_per_joule == pytest.approx(expected.total_tokens_per_s / expected.power_w)
    assert {row.evidence, row.throughput_evidence, row.energy_evidence} == {Evidence.MODELLED}
    assert (row.status, row.boundary, row.weights, row.calibration_id) == (
        RowStatus.OK, Boundary.GPU, "none", SHIPPED.id
    )  # fmt: skip
    assert phases == ["predicting", "predicting, concurrency 16"]


def test_nothing_that_only_a_measurement_gives_is_filled_in() -> None:
    with ModelledRig(STUDY, TrtllmEngine()).start(CONFIG, "t1", lambda _: None) as session:
        (row,) = session.measure(POINT, lambda _: None)
        assert session.start.evidence is Evidence.MODELLED
        assert (session.start.start_s, session.start.start_energy_j, session.start.engine_version) == (None, None, None)
    for name in ("window_s", "warmup_s", "output_tokens", "num_completed", "gpu_energy_j", "cpu_energy_j", "occupancy",
                 "output_tokens_per_joule_rel_ci95", "trace_file", "engine_version", "gpu_name", "drift"):  # fmt: skip
        assert getattr(row, name) is None, name
    assert row.gpu_uuids == ()


def test_a_config_that_does_not_fit_does_not_start() -> None:
    small = dataclasses.replace(STUDY, hardware=dataclasses.replace(STUDY.hardware, memory_bytes=20_000_000_000))
    with (
        pytest.raises(TrialError, match="does not fit b200") as caught,
        ModelledRig(small, TrtllmEngine()).start(CONFIG, "t1", lambda _: None),
    ):
        pytest.fail("it started")
    assert caught.value.status is TrialStatus.OUT_OF_MEMORY


def test_what_the_engine_could_not_be_given_is_refused_with_the_engines_own_words() -> None:
    rig = ModelledRig(STUDY, TrtllmEngine())
    odd = EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "engine.knobs.moe_backend": "ABACUS"})
    assert rig.refusal(CONFIG) is None
    assert "engine.knobs.moe_backend=ABACUS: allowed:" in (rig.refusal(odd) or "")


def test_a_cpu_has_no_model() -> None:
    with pytest.raises(ConfigError, match="rig=modelled: there is no model of hardware=cpu; name a GPU"):
        ModelledRig(make_study(), OpenvinoEngine())


def test_the_user_is_told_that_nothing_is_measured_and_how_far_off_it_may_be() -> None:
    line, error = ModelledRig(STUDY, TrtllmEngine()).describe()
    assert "nothing is started or measured" in line
    assert SHIPPED.id in line
    assert error == (
        "model: fitted to gpt-oss-120b; J/token off by 8 % in the median, 27 % in one case of ten, all with vllm 0.11.1"
    )
    other = make_study(*MODELLED, "model=gpt-oss-20b")
    assert (
        ModelledRig(other, TrtllmEngine())
        .describe()[1]
        .startswith("model: not fitted to gpt-oss-20b; J/token off by 12")
    )


def test_a_row_says_how_far_off_the_constants_were_on_such_models() -> None:
    provenance = SHIPPED.provenance
    assert provenance is not None
    assert provenance.outside is not None
    for study, errors in ((STUDY, provenance.inside), (make_study(*MODELLED, "model=gpt-oss-20b"), provenance.outside)):
        with ModelledRig(study, TrtllmEngine()).start(CONFIG, "t1", lambda _: None) as session:
            (row,) = session.measure(POINT, lambda _: None)
        assert row.output_tokens_per_s_rel_error == errors.tokens_per_s.p90
        assert row.power_w_rel_error == errors.power_w.p90
        assert row.output_tokens_per_joule_rel_error == errors.j_per_token.p90


def test_what_is_more_than_the_engine_can_do_is_invalid_and_has_no_time_to_first_token() -> None:
    load = dataclasses.replace(STUDY.workload, arrival="poisson", concurrency=(), request_rate_per_s=(1e5,))
    study = dataclasses.replace(STUDY, workload=load)
    with ModelledRig(study, TrtllmEngine()).start(CONFIG, "t1", lambda _: None) as session:
        (row,) = session.measure(load.ladder[0], lambda _: None)
    assert (row.status, row.reasons, row.ttft_p99_s) == (RowStatus.INVALID, (Reason.QUEUE_LIMITED,), None)
