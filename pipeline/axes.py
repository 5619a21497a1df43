"""Which axes bear on a config: one that has no effect is left out, so that equal configs are one config.

A knob of attention data parallelism means nothing without it, nor one of speculative decoding, nor an expert's on a
dense model. Dropping them keeps the product of many axes small and its configs possible. Which value of an axis the
engine would take by itself is not known here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig, Value
from pipeline.study import Study

Values = Mapping[str, Value | None]

KNOB = "engine.knobs."
DECODING_TYPE = KNOB + "speculative_config.decoding_type"
REUSE = KNOB + "kv_cache_config.enable_block_reuse"
HOST_CACHE = KNOB + "kv_cache_config.host_cache_size"
COMBINE = KNOB + "moe_config.use_low_precision_moe_combine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """When axes whose names begin with `prefix` have an effect: when `is_on` holds for the value of `switch`."""

    prefix: str
    switch: str
    is_on: Callable[[Value | None], bool] = bool


def _type_in(prefix: str, *types: str) -> Condition:
    return Condition(prefix=KNOB + "speculative_config." + prefix, switch=DECODING_TYPE, is_on=lambda v: v in types)


def _several(value: Value | None) -> bool:
    return value not in {None, 1}


CONDITIONS = (
    Condition(prefix="parallelism.attention_dp", switch="parallelism.tp", is_on=_several),
    Condition(prefix=KNOB + "allreduce_strategy", switch="parallelism.tp", is_on=_several),
    Condition(prefix=COMBINE, switch="parallelism.attention_dp"),
    Condition(prefix=KNOB + "batch_wait_timeout_iters", switch="parallelism.attention_dp", is_on=lambda v: not v),
    Condition(prefix=KNOB + "batch_wait_max_tokens_ratio", switch="parallelism.attention_dp", is_on=lambda v: not v),
    Condition(prefix=KNOB + "scheduler_config.context_chunking_policy", switch="batching.chunked_prefill"),
    Condition(prefix=HOST_CACHE, switch=REUSE, is_on=lambda value: value is not False),
    Condition(prefix=KNOB + "attention_dp_config.", switch="parallelism.attention_dp"),
    Condition(prefix=KNOB + "enable_lm_head_tp_in_adp", switch="parallelism.attention_dp"),
    Condition(
        prefix=KNOB + "cuda_graph_config.", switch=KNOB + "cuda_graph_config", is_on=lambda value: value is not False
    ),
    Condition(
        prefix=KNOB + "torch_compile_config.capture_num_tokens",
        switch=KNOB + "torch_compile_config.enable_piecewise_cuda_graph",
    ),
    Condition(prefix=KNOB + "cp_config.", switch="parallelism.cp", is_on=_several),
    _type_in("max_matching_ngram_size", "NGram"),
    _type_in("is_public_pool", "NGram"),
    _type_in("use_relaxed_acceptance_for_thinking", "MTP"),
    _type_in("eagle3_one_model", "Eagle3"),
    _type_in("speculative_model", "Eagle3", "Draft_Target", "PARD", "DFlash", "DSpark"),
    Condition(prefix=KNOB + "speculative_config.", switch=DECODING_TYPE),
)
"""TensorRT-LLM reads the groups of attention data parallelism, speculation and context parallelism only where these are
on, and the fields of one way to speculate only with it (llmapi/llm_args.py). Its rules that begin with "has no effect"
have the sources of the others: pipeline/engine/trtllm/rules."""


def bears(key: str, values: Values, study: Study) -> bool:
    """Whether an axis has an effect in a config with these values.

    A single value that no config of the study could use stays: a rule then says so, instead of silence.
    """
    axis = study.axes.get(key, ())
    if _is_idle(key, study):
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


def _is_idle(key: str, study: Study) -> bool:
    """Whether an axis has no effect in any config of the study."""
    if key == KNOB + "stream_interval":
        return study.slo.tpot_p99_s is not None  # chunks of several tokens are longer waits than it bounds: rules.py
    if key in {REUSE, HOST_CACHE}:
        return study.workload.shared_prefix_tokens == 0  # nothing that is kept is used again
    if key == COMBINE:
        asked = (study.model.checkpoints.get(str(weights)) for weights in study.axes.get("precision.weights", ()))
        return not any(checkpoint and checkpoint.format == "nvfp4" for checkpoint in asked)
    return key.startswith(KNOB + "moe_config.") and study.model.num_experts == 0


def stated(engine: str, key: str, value: Value | None) -> Value | None:
    """How a config that takes this value of an axis states it: converted, or left out where it is neutral."""
    return EngineConfig.from_axes(engine, {"precision.weights": "any", key: value}).requested().get(key)


def is_dependent(key: str) -> bool:
    """Whether another axis decides if this one has an effect."""
    return any(key.startswith(each.prefix) and key != each.switch for each in CONDITIONS)


def without_inert(values: Values, study: Study) -> dict[str, Value | None]:
    """The values of the axes that bear on the config they make."""
    return {key: value for key, value in values.items() if bears(key, values, study)}
