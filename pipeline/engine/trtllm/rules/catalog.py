"""Every rule of TensorRT-LLM, and what they say of one config."""

from collections.abc import Iterator

from pipeline.engine.trtllm.rules import (
    attention_dp,
    batching,
    communication,
    kv_cache,
    limits,
    modes,
    moe,
    parallel,
    precision,
    speculative,
)
from pipeline.engine.trtllm.rules.rule import Rule
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

RULES: tuple[Rule, ...] = (
    *limits.RULES, *parallel.RULES, *attention_dp.RULES, *batching.RULES, *kv_cache.RULES, *precision.RULES,
    *moe.RULES, *communication.RULES, *speculative.RULES, *modes.RULES,
)  # fmt: skip
"""In the order in which they are asked; a table for the documentation can be made of them."""


def broken_rule(config: EngineConfig, study: Study) -> str | None:
    """Why TensorRT-LLM refuses a config: the first refusing rule that it breaks (key=value: why; what to do), or None.

    Rules hold for `study.engine.version`; None is the newest that we know.
    """
    return next(_broken(config, study, "refuses"), None)


def doubts(config: EngineConfig, study: Study) -> list[str]:
    """What TensorRT-LLM would take but not do as asked, or not in every version: preflight or the trial decides."""
    return list(_broken(config, study, "warns"))


def _broken(config: EngineConfig, study: Study, kind: str) -> Iterator[str]:
    for rule in RULES:
        if rule.kind == kind and rule.holds_in(study.engine.version):
            reason = rule.check(config, study)
            if reason is not None:
                yield reason
