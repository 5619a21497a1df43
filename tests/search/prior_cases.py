"""Studies, configs and predictions that tests of both models share."""

from pipeline.engine_config import Batching, EngineConfig, Parallelism, Precision
from pipeline.roofline.aiconfigurator import Request, request
from pipeline.roofline.predict import Prediction, predict
from pipeline.study import Study
from pipeline.workload import OperatingPoint
from tests.builders import MODELLED, make_study, with_axes, with_search


def study(*overrides: str, python: str | None = None) -> Study:
    axes = with_axes(
        make_study(*MODELLED, *overrides), precision__weights="fp4", precision__kv_cache=("auto", "fp8"),
        parallelism__tp=(1, 2, 4), parallelism__ep=(1, 2, 4), batching__max_batch_size=(64, 256),
    )  # fmt: skip
    return with_search(axes, aiconfigurator_python=python)


def config(*, kv_cache: str = "auto", max_num_tokens: int | None = None, **layout: int | bool) -> EngineConfig:
    return EngineConfig(
        engine="trtllm",
        precision=Precision(weights="fp4", kv_cache=kv_cache),
        parallelism=Parallelism(**layout),  # type: ignore[arg-type]  # the keywords are its own
        batching=Batching(max_num_tokens=max_num_tokens),
    )


def asked(held: Study, of: EngineConfig, num_running: float = 64) -> Request:
    found = request(held.model, held.hardware, held.workload, of, num_running)
    assert isinstance(found, Request)
    return found


def prediction(held: Study, of: EngineConfig, concurrency: int) -> Prediction:
    found = predict(held.model, held.hardware, held.workload, of, OperatingPoint(concurrency=concurrency))
    assert isinstance(found, Prediction)
    return found
