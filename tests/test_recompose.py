import dataclasses

import pytest

from pipeline.config import load_study
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.held import held
from pipeline.recompose import overrides_of
from tests.builders import MODELLED, make_study

SERVED = (
    "model=llama-3.1-8b", "hardware=h100", "engine=vllm", "precision=auto", "parallelism=auto", "batching=auto",
    "workload=chat_1k_1k", "plan=quick", "study=mine",
)  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        MODELLED,
        SERVED,
        (*SERVED, "plan.window_s=30", "workload.concurrency=[8,64]", "engine.knobs.enforce_eager=[false,true]"),
        (*SERVED, "weights=random", "weights_seed=3", "precision.weights=fp8", "hardware.num_gpus=2", "slo=batch"),
        (*SERVED, "workload.arrival=poisson", "workload.request_rate_per_s=[1,2.5]", "model.path='/a b/c'"),
        (*SERVED, "search.ladder=adaptive", "batching.max_batch_size=null"),
    ],
)
def test_a_study_is_composed_again(overrides: tuple[str, ...]) -> None:
    study = make_study(*overrides)
    again = load_study(overrides_of(study))
    assert (again.id, held(again), again.axes) == (study.id, held(study), study.axes)
    assert (again.slo, again.search) == (study.slo, study.search)


def test_a_study_of_an_older_program_gets_another_name() -> None:
    study = make_study(*SERVED, "plan.window_s=30")
    old = dataclasses.replace(study, plan=dataclasses.replace(study.plan, name="quick"))
    assert "study=mine-again" in overrides_of(old)


def test_what_conf_no_longer_says_is_named() -> None:
    study = make_study(*SERVED)
    with pytest.raises(ConfigError, match=r"study mine: .*baseline"):
        overrides_of(dataclasses.replace(study, baseline=EngineConfig.from_axes("vllm", {"precision.weights": "fp8"})))
