"""What TensorRT-LLM itself refuses, and what it takes but does not do: known before a start is paid for."""

from pipeline.engine.trtllm.rules.catalog import RULES, broken_rule, doubts
from pipeline.engine.trtllm.rules.rule import Rule

__all__ = ["RULES", "Rule", "broken_rule", "doubts"]
