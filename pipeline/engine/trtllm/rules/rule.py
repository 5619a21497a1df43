"""What a rule of TensorRT-LLM is, and how rules read a config.

Sources are files of tensorrt_llm/ in NVIDIA/TensorRT-LLM; "newest" is commit 0004396720054fd8e205cbf616f21f0b57c6b412
(autumn 2026, release candidates of 1.3.0), and an older version is named where only that was read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.engine.trtllm.llm_args import ALIASES
from pipeline.engine.trtllm.versions import NEWEST, is_before
from pipeline.engine_config import EngineConfig, Value
from pipeline.study import Study

Check = Callable[[EngineConfig, Study], str | None]

MAX_BATCH_SIZE = 2048
"""TensorRT-LLM's own default. Source: llmapi/llm_args.py, BaseLlmArgs."""

MAX_NUM_TOKENS = 8192
"""TensorRT-LLM's own default. Source: llmapi/llm_args.py, BaseLlmArgs."""

TOKENS_PER_BLOCK = 32
"""TensorRT-LLM's own default. Source: llmapi/llm_args.py, KvCacheConfig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that TensorRT-LLM refuses or ignores.

    Attributes:
        name: Short, unique.
        kind: `refuses` where it would not start, not serve, or do something else than asked in every way we know;
            `warns` where it starts all the same, or where versions differ and preflight or the trial decides.
        source: File, class or function, and era.
        check: What is wrong with a config: key=value: why; what to do. None if nothing is.
        since: First version in which it holds; None is every version.
        until: First version in which it holds no more; None is none yet.
    """

    name: str
    kind: Literal["refuses", "warns"]
    source: str
    check: Check
    since: str | None = None
    until: str | None = None

    def holds_in(self, version: str | None) -> bool:
        """Whether it holds in a version of TensorRT-LLM; None is the newest."""
        asked = version or NEWEST
        return not (self.since and is_before(asked, self.since)) and (
            self.until is None or is_before(asked, self.until)
        )


def knob(config: EngineConfig, name: str) -> Value | None:
    """The value of a knob under any of its names; None where it is not set."""
    names = (name, *(old for old, present in ALIASES.items() if present == name))
    return next((config.knobs[given] for given in names if given in config.knobs), None)


def number(config: EngineConfig, name: str) -> float | None:
    """The value of a knob that is a number, else None."""
    value = knob(config, name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def text(config: EngineConfig, name: str, default: str = "") -> str:
    """The value of a knob that is a word, in upper case; `default` where it is not set."""
    value = knob(config, name)
    return value.upper() if isinstance(value, str) else default


def any_knob(config: EngineConfig, prefix: str) -> str | None:
    """The first knob of a group that is set, by its present name."""
    names = sorted(ALIASES.get(name, name) for name in config.knobs)
    return next((name for name in names if name.startswith(prefix)), None)


def shown(config: EngineConfig, name: str) -> str:
    """A knob as the user set it, for messages."""
    return f"engine.knobs.{name}={knob(config, name)}"


def weight_format(config: EngineConfig, study: Study) -> str | None:
    """Format of the checkpoint that a config loads; None where the model has none of that precision."""
    checkpoint = study.model.checkpoints.get(config.precision.weights)
    return checkpoint.format if checkpoint else None


def is_gpt_oss(study: Study) -> bool:
    """Whether the experts have gpt-oss's biases and clamped activation, which few kernels compute."""
    return study.model.name.startswith("gpt-oss") or (study.model.hf_config or {}).get("model_type") == "gpt_oss"


def draft_tokens(config: EngineConfig) -> int:
    """Most tokens that are drafted for one request and step; 0 without speculative decoding."""
    if knob(config, "speculative_config.decoding_type") is None:
        return 0
    total = number(config, "speculative_config.max_total_draft_tokens")
    length = number(config, "speculative_config.max_draft_len")
    return int(total or length or number(config, "speculative_config.num_nextn_predict_layers") or 1)
