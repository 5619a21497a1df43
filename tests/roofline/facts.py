"""The shipped models and hardware, and shorthands for configurations, for tests."""

from functools import cache
from pathlib import Path

import yaml
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pipeline.engine_config import Batching, EngineConfig, Parallelism, Precision
from pipeline.study import Hardware, Model
from pipeline.workload import Workload

CONF = Path(__file__).resolve().parents[2] / "conf"


@cache
def model(name: str) -> Model:
    return TypeAdapter(Model).validate_python(yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text("utf-8")))


@cache
def hardware(name: str) -> Hardware:
    text = (CONF / "hardware" / f"{name}.yaml").read_text("utf-8")
    return TypeAdapter(Hardware).validate_python(yaml.safe_load(text))


def engine_config(
    weights: str,
    tp: int = 1,
    *,
    engine: str = "vllm",
    pp: int = 1,
    ep: int = 1,
    attention_dp: bool = False,
    kv_cache: str | None = None,
    batching: Batching | None = None,
) -> EngineConfig:
    return EngineConfig(
        engine=engine,
        precision=Precision(weights=weights, kv_cache=kv_cache),
        parallelism=Parallelism(tp=tp, pp=pp, ep=ep, attention_dp=attention_dp),
        batching=batching or Batching(),
    )


def workload(isl: int = 1024, osl: int = 1024, ratio: float = 0.8) -> Workload:
    return Workload(
        name="test", source="test", isl_tokens=isl, osl_tokens=osl, length_ratio_min=ratio, concurrency=(1,)
    )


RUNNABLE = [
    (name, precision, gpu)
    for name, precisions in {
        "gpt-oss-20b": ("fp4",),
        "gpt-oss-120b": ("fp4",),
        "llama-3.1-8b": ("bf16", "fp8", "fp4"),
        "llama-3.3-70b": ("bf16", "fp8", "fp4"),
        "qwen3-235b-a22b": ("bf16", "fp8", "fp4"),
        "deepseek-r1": ("fp8", "fp4"),
    }.items()
    for precision in precisions
    for gpu in ("h100", "h200", "b200", "b300", "gb200_nvl72", "gb300_nvl72")
    if gpu.startswith(("b", "g")) or precision != "fp4" or name.startswith("gpt-oss")
]
"""(model, precision, hardware) that the roofline must be able to answer for."""


@st.composite
def cases(draw: st.DrawFn) -> tuple[Model, Hardware, Workload, EngineConfig, int]:
    """A model, its hardware, a load and a configuration of it; it need not fit."""
    name, precision, gpu = draw(st.sampled_from(RUNNABLE))
    tp = draw(st.sampled_from((1, 2, 4, 8)))
    config = engine_config(
        precision,
        tp,
        engine=draw(st.sampled_from(("trtllm", "vllm"))),
        pp=draw(st.sampled_from((1, 2))),
        ep=draw(st.sampled_from((1, tp))),
        attention_dp=draw(st.booleans()),
        kv_cache=draw(st.sampled_from((None, "auto", "fp8"))),
        batching=Batching(
            max_batch_size=draw(st.none() | st.integers(1, 4096)),
            max_num_tokens=draw(st.none() | st.integers(1, 32768)),
            kv_cache_fraction=draw(st.none() | st.floats(0.5, 0.95)),
        ),
    )
    load = workload(draw(st.integers(1, 16384)), draw(st.integers(2, 8192)), draw(st.floats(0.1, 1)))
    return model(name), hardware(gpu), load, config, draw(st.integers(1, 8192))
