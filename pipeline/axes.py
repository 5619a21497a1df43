"""Which axes bear on a config: one that has no effect is left out, so that equal configs are one config.

A knob of attention data parallelism means nothing without it, nor one of speculative decoding, nor an expert's on a
dense model. Dropping them keeps the product of many axes small and its configs possible.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig, Value
from pipeline.study import Study

Values = Mapping[str, Value | None]

KNOB = "engine.knobs."
DECODING_TYPE = KNOB + "speculative_config.decoding_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """When axes whose names begin with `prefix` have an effect: when `is_on` holds for the value of `switch`."""

    prefix: str
    switch: str
    is_on: Callable[[Value | None], bool] = bool


def _type_in(prefix: str, *types: str) -> Condition:
    return Condition(prefix=KNOB + "speculative_config." + prefix, switch=DECODING_TYPE, is_on=lambda v: v in types)


CONDITIONS = (
    Condition(prefix="parallelism.attention_dp", switch="parallelism.tp", is_on=lambda value: value not in {None, 1}),
    Condition(prefix=KNOB + "attention_dp_config.", switch="parallelism.attention_dp"),
    Condition(prefix=KNOB + "enable_lm_head_tp_in_adp", switch="parallelism.attention_dp"),
    Condition(
        prefix=KNOB + "cuda_graph_config.", switch=KNOB + "cuda_graph_config", is_on=lambda value: value is not False
    ),
    Condition(
        prefix=KNOB + "torch_compile_config.capture_num_tokens",
        switch=KNOB + "torch_compile_config.enable_piecewise_cuda_graph",
    ),
    Condition(prefix=KNOB + "cp_config.", switch="parallelism.cp", is_on=lambda value: value not in {None, 1}),
    _type_in("max_matching_ngram_size", "NGram"),
    _type_in("is_public_pool", "NGram"),
    _type_in("use_relaxed_acceptance_for_thinking", "MTP"),
    _type_in("eagle3_one_model", "Eagle3"),
    _type_in("speculative_model", "Eagle3", "Draft_Target", "PARD", "DFlash", "DSpark"),
    Condition(prefix=KNOB + "speculative_config.", switch=DECODING_TYPE),
)
"""TensorRT-LLM reads the groups of attention data parallelism, speculation and context parallelism only where these are
on, and the fields of one way to speculate only with it (llmapi/llm_args.py)."""


def bears(key: str, values: Values, study: Study) -> bool:
    """Whether an axis has an effect in a config with these values.

    A single value that no config of the study could use stays: a rule then says so, instead of silence.
    """
    axis = study.axes.get(key, ())
    if key == KNOB + "stream_interval" and study.slo.tpot_p99_s is not None:
        return len(axis) == 1  # chunks of several tokens are longer waits than it bounds: rules.py
    if key.startswith(KNOB + "moe_config.") and study.model.num_experts == 0:
        return len(axis) == 1
    for condition in CONDITIONS:
        if (
            key.startswith(condition.prefix)
            and key != condition.switch
            and not condition.is_on(values.get(condition.switch))
        ):
            could_be = any(condition.is_on(value) for value in study.axes.get(condition.switch, (None,)))
            return len(axis) == 1 and not could_be
    return True


def stated(engine: str, key: str, value: Value | None) -> Value | None:
    """How a config that takes this value of an axis states it: converted, or left out where it is neutral."""
    return EngineConfig.from_axes(engine, {"precision.weights": "any", key: value}).requested().get(key)


def is_dependent(key: str) -> bool:
    """Whether another axis decides if this one has an effect."""
    return any(key.startswith(each.prefix) and key != each.switch for each in CONDITIONS)


def without_inert(values: Values, study: Study) -> dict[str, Value | None]:
    """The values of the axes that bear on the config they make."""
    return {key: value for key, value in values.items() if bears(key, values, study)}
