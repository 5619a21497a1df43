"""Axes and rules in, feasible engine configs out; every exclusion has its reason.

A rule looks at one config and returns None or why it is impossible. Rules never guess: what only the engine
can know (does it start, does it fit after fragmentation) is left to the trial.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.errors import ConfigError
from pipeline.roofline.memory import fits
from pipeline.study import EngineConfig, Scalar, Study

MAX_CONFIGS = 200_000
"""Largest product of axes that is enumerated; a larger one is an error, not a silent sample."""

LENGTH_MARGIN_TOKENS = 32
"""vLLM without chunked prefill wants the whole context it was given in one step, which is rounded up by this much."""

Rule = Callable[[EngineConfig, Study], str | None]
Refusal = Callable[[EngineConfig], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The feasible configs of a study, in axis order, and how many were excluded for which reason."""

    configs: tuple[EngineConfig, ...]
    exclusions: Counter[str] = field(default_factory=Counter)

    @property
    def num_excluded(self) -> int:
        """Configs ruled out."""
        return sum(self.exclusions.values())


def build_space(study: Study, refusal: Refusal = lambda _: None) -> Space:
    """Enumerate the axes and apply every rule.

    Args:
        study: The axes and what the rules look at.
        refusal: Why the study's engine cannot render a config, or None.

    Raises:
        ConfigError: If the product of the axes is too large, or no config is feasible.
    """
    total = math.prod(len(values) for values in study.axes.values())
    if total > MAX_CONFIGS:
        raise ConfigError(f"the axes span {total} configs, more than {MAX_CONFIGS}; fix some of them to one value")
    feasible, seen, exclusions = [], set(), Counter[str]()
    num_passed = dict[str, int]()
    for config in _enumerate(study):
        if config.config_hash in seen:
            continue
        seen.add(config.config_hash)
        broken = _first_broken(config, study, refusal)
        if broken is None:
            feasible.append(config)
        else:
            num_passed[broken[1]] = broken[0]
            exclusions[broken[1]] += 1
    if not feasible:
        # The configs that got furthest say best what is in the way.
        listed = "; ".join(sorted(exclusions, key=lambda reason: (-num_passed[reason], -exclusions[reason]))[:2])
        raise ConfigError(
            f"no feasible configuration for model={study.model.name} hardware={study.hardware.name}: {listed}"
        )
    return Space(configs=tuple(feasible), exclusions=exclusions)


def why_infeasible(config: EngineConfig, study: Study) -> str | None:
    """The first rule that this config breaks, or None."""
    broken = _first_broken(config, study, lambda _: None)
    return broken[1] if broken else None


def engine_default(study: Study, space: Space) -> EngineConfig:
    """The config of someone who sets nothing: the engine's defaults on the fewest devices that hold the model.

    Falls back to the first feasible config where the bare default breaks a rule.
    """
    for config in sorted(space.configs, key=lambda c: c.parallelism.num_gpus):
        bare = EngineConfig(engine=config.engine, precision=config.precision, parallelism=config.parallelism)
        if why_infeasible(bare, study) is None:
            return bare
    return space.configs[0]


def _first_broken(config: EngineConfig, study: Study, refusal: Refusal) -> tuple[int, str] | None:
    """How many rules a config passes before one it breaks, and the reason; None if it passes them all."""
    for num_passed, rule in enumerate(RULES):
        if (reason := rule(config, study)) is not None:
            return num_passed, reason
    reason = refusal(config)
    return (len(RULES), reason) if reason is not None else None


def _enumerate(study: Study) -> Iterator[EngineConfig]:
    names = list(study.axes)
    for values in itertools.product(*study.axes.values()):
        chosen: dict[str, Scalar | None] = dict(zip(names, values, strict=True))
        yield EngineConfig.from_axes(study.engine.name, chosen)


def _precision(config: EngineConfig, study: Study) -> str | None:
    checkpoints = study.model.checkpoints
    weights = config.precision.weights
    if weights not in checkpoints:
        return (
            f"precision.weights={weights}: {study.model.name} has no {weights} weights, only {', '.join(checkpoints)}"
        )
    if checkpoints[weights].format == "nvfp4" and study.hardware.arch != "blackwell":
        return (
            f"precision.weights={weights}: {study.model.name}'s 4-bit weights are NVFP4, which needs Blackwell; "
            f"{study.hardware.name} is {study.hardware.arch} (only MXFP4 gpt-oss may be 4-bit there)"
        )
    return None


def _devices(config: EngineConfig, study: Study) -> str | None:
    if study.hardware.kind == "cpu":
        return None if config.parallelism.num_gpus == 1 else "parallelism: a CPU engine is one device; use tp=1 pp=1"
    needed, present = config.parallelism.num_gpus, study.hardware.num_gpus
    if needed > present:
        return f"parallelism: tp x pp = {needed} GPUs, {present} present"
    return None


def _shards(config: EngineConfig, study: Study) -> str | None:
    model, layout = study.model, config.parallelism
    if model.num_heads % layout.tp:
        return f"parallelism.tp={layout.tp} does not divide the {model.num_heads} attention heads"
    if layout.pp > model.num_layers:
        return f"parallelism.pp={layout.pp} exceeds the {model.num_layers} layers"
    if layout.attention_dp and layout.tp == 1:
        return "parallelism.attention_dp needs tp > 1"
    return None


def _experts(config: EngineConfig, study: Study) -> str | None:
    model, layout = study.model, config.parallelism
    if layout.ep == 1:
        return None
    if model.num_experts == 0:
        return f"parallelism.ep={layout.ep}: {model.name} has no experts"
    if layout.tp % layout.ep:
        return f"parallelism.ep={layout.ep} does not divide tp={layout.tp} (TensorRT-LLM: moe_tp x moe_ep = tp)"
    if model.num_experts % layout.ep:
        return f"parallelism.ep={layout.ep} does not divide the {model.num_experts} experts"
    if config.engine == "vllm" and layout.ep != layout.tp:
        return f"parallelism.ep={layout.ep}: vLLM's expert parallelism is all of tp={layout.tp} or none"
    return None


def _scheduler(config: EngineConfig, study: Study) -> str | None:
    batching = config.batching
    if batching.max_num_tokens is None:
        return None
    longest = study.workload.max_seq_len_tokens + LENGTH_MARGIN_TOKENS
    if batching.chunked_prefill is False and batching.max_num_tokens < longest:
        return (
            f"batching.max_num_tokens={batching.max_num_tokens} without chunked prefill: a prompt of the first wave "
            f"may need {longest} tokens in one step"
        )
    if batching.max_batch_size is not None and batching.max_batch_size > batching.max_num_tokens:
        return "batching.max_batch_size exceeds max_num_tokens: a decode step could not hold the batch"
    return None


def _inert(config: EngineConfig, study: Study) -> str | None:
    """OpenVINO GenAI ignores max_num_seqs while dynamic_split_fuse is on: keep one of the equal configs."""
    allowed = study.axes.get("batching.max_batch_size", (None,))
    # Of equal configs, the one least likely to break the scheduler's rule stands for all.
    kept = None if None in allowed else min(int(size) for size in allowed if size is not None)
    if config.engine == "openvino" and config.batching.chunked_prefill and config.batching.max_batch_size != kept:
        return "batching.max_batch_size has no effect under chunked prefill here: same as another config"
    return None


def _memory(config: EngineConfig, study: Study) -> str | None:
    return fits(study.model, study.hardware, config, study.workload) if study.hardware.kind == "gpu" else None


RULES: tuple[Rule, ...] = (_precision, _devices, _shards, _experts, _scheduler, _inert, _memory)
