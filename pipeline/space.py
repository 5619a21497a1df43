"""Axes in, feasible engine configs out; every exclusion has its reason.

A product of axes too large to enumerate is drawn from, and says so.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.axes import bears, is_dependent, without_inert
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.roofline.memory import kv_pool_bytes, published
from pipeline.rules import RULES, STRUCTURAL, first_broken, why_infeasible
from pipeline.study import Study

MAX_CONFIGS = 20_000
"""Largest product of axes that is enumerated, structurally impossible ones not counted: a few seconds."""

NUM_DRAWS = 20_000
"""Combinations drawn from a larger product."""

MIN_POOL_SHARE = 0.15
"""Of a device's memory: with less left for the KV cache than this, nobody would serve on so few devices."""

_STRUCTURE = ("precision.", "parallelism.")

Refusal = Callable[[EngineConfig], str | None]
Values = dict[str, Value | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The feasible configs of a study, in axis order, and how many were excluded for which reason.

    Attributes:
        study: Whose axes these are.
        refusal: Why the study's engine cannot render a config, or None.
        configs: All of them, or those drawn.
        exclusions: Reason -> configs ruled out for it.
        num_combinations: Size of the whole product.
        is_drawn: Whether `configs` is a draw from it.
    """

    study: Study
    refusal: Refusal
    configs: tuple[EngineConfig, ...]
    exclusions: Counter[str] = field(default_factory=Counter)
    num_combinations: int
    is_drawn: bool

    @property
    def num_excluded(self) -> int:
        """Configs ruled out."""
        return sum(self.exclusions.values())

    def describe(self) -> str:
        """How much there is to choose from, in a line."""
        if not self.is_drawn:
            return f"configs: {len(self.configs)} feasible, {self.num_excluded} excluded"
        return (
            f"configs: {self.num_combinations:.3g} combinations, too many to list; {len(self.configs)} feasible ones "
            f"among {NUM_DRAWS} drawn; the search may propose others"
        )

    def allows(self, config: EngineConfig) -> bool:
        """Whether a config within the axes breaks no rule, drawn or not."""
        return why_infeasible(config, self.study) is None and self.refusal(config) is None


def build_space(study: Study, refusal: Refusal = lambda _: None) -> Space:
    """Enumerate the axes, or draw from them, and apply every rule.

    Args:
        study: The axes and what the rules look at.
        refusal: Why the study's engine cannot render a config, or None.

    Raises:
        ConfigError: If no config is feasible, or the baseline is not.
    """
    _check_baseline(study, refusal)
    structural = {key: values for key, values in study.axes.items() if key.startswith(_STRUCTURE)}
    others = {key: study.axes[key] for key in sorted(study.axes, key=is_dependent) if key not in structural}
    num_others = math.prod(map(len, others.values()))
    exclusions, num_passed = Counter[str](), dict[str, int]()
    of_plain = set[str]()

    def exclude(broken: tuple[int, str], count: int = 1) -> None:
        num_passed[broken[1]] = broken[0]
        exclusions[broken[1]] += count

    structures = []
    for values in _product(structural, {}, study):
        broken = first_broken(_config(values, study), study, STRUCTURAL)
        if broken is None:
            structures.append(values)
        else:
            exclude(broken, num_others)
    is_drawn = len(structures) * num_others > MAX_CONFIGS
    every = (values for structure in structures for values in _product(others, structure, study))
    feasible, seen = [], set[str]()
    for values in _draws(study, structures, others) if is_drawn else every:
        config = _config(values, study)
        if config.config_hash in seen:
            continue
        seen.add(config.config_hash)
        broken = first_broken(config, study)
        if broken is None and (reason := refusal(config)) is not None:
            broken = len(RULES), reason
        if broken is None:
            feasible.append(config)
            continue
        exclude(broken)
        if all(values.get(key, axis[0]) == axis[0] for key, axis in others.items()):
            of_plain.add(broken[1])
    if not feasible:
        raise ConfigError(
            f"no feasible configuration for model={study.model.name} hardware={study.hardware.name}: "
            f"{_in_the_way(exclusions, num_passed, of_plain)}"
        )
    return Space(
        study=study,
        refusal=refusal,
        configs=tuple(feasible),
        exclusions=exclusions,
        num_combinations=math.prod(map(len, study.axes.values())),
        is_drawn=is_drawn,
    )


def _check_baseline(study: Study, refusal: Refusal) -> None:
    """Check that a baseline can be; it may lie outside the axes and break rules of good sense, being what is in use.

    Raises:
        ConfigError: If it needs what is not there, or the engine refuses it.
    """
    if (baseline := study.baseline) is None:
        return
    broken = first_broken(baseline, study, STRUCTURAL)
    reason = refusal(baseline) if broken is None else broken[1]
    if reason is not None:
        raise ConfigError(f"baseline: {reason}")


def _in_the_way(exclusions: Counter[str], num_passed: dict[str, int], of_plain: set[str]) -> str:
    """The two reasons that say best why nothing is possible: of the configs that passed most rules, the commonest.

    What the engine has against the plain config, all else at its first value, stands alone: no layout would help.
    """
    listed = sorted(exclusions, key=lambda reason: (-num_passed[reason], -exclusions[reason]))
    if num_passed[listed[0]] == len(RULES):
        listed = [each for each in listed if num_passed[each] == len(RULES)]
        listed = [each for each in listed if each in of_plain] or listed
    return "; ".join(listed[:2])


def baseline_of(study: Study, space: Space) -> EngineConfig:
    """What everything is compared with: the study's own baseline, else the engine's default."""
    return study.baseline or engine_default(space)


def engine_default(space: Space) -> EngineConfig:
    """The config of someone who sets nothing: the engine's defaults, on the fewest devices that leave room to serve.

    Plain tensor parallelism and KV cache, and the first format of weights, unless nothing else is possible. Falls back
    to the first feasible config where the bare default breaks a rule.
    """
    bare = {
        (each.precision, each.parallelism): EngineConfig(
            engine=each.engine, precision=each.precision, parallelism=each.parallelism
        )
        for each in space.configs
    }
    allowed = [config for config in bare.values() if space.allows(config)]
    return min(allowed, key=lambda config: _preference(config, space.study), default=space.configs[0])


def _preference(config: EngineConfig, study: Study) -> tuple[bool, int, bool, int]:
    """Smaller is preferred."""
    layout, weights = config.parallelism, study.axes["precision.weights"]
    is_plain = layout.num_gpus == layout.tp and layout.ep == 1 and not layout.attention_dp
    is_plain = is_plain and config.precision.kv_cache in {None, "auto"}
    order = weights.index(config.precision.weights) if config.precision.weights in weights else len(weights)
    is_tight = study.hardware.kind == "gpu" and (
        kv_pool_bytes(study.model, study.hardware, config) < MIN_POOL_SHARE * published(study.hardware, "memory_bytes")
    )
    return not is_plain, order, is_tight, layout.num_gpus


def _config(values: Values, study: Study) -> EngineConfig:
    return EngineConfig.from_axes(study.engine.name, without_inert(values, study))


def _product(axes: dict[str, tuple[Value | None, ...]], chosen: Values, study: Study) -> Iterator[Values]:
    """Every choice of values beside those chosen already; of an axis that has no effect there, the first alone."""
    if not axes:
        yield chosen
        return
    key, *rest = axes
    others = {name: axes[name] for name in rest}
    for value in axes[key] if bears(key, chosen, study) else axes[key][:1]:
        yield from _product(others, {**chosen, key: value}, study)


def _draws(study: Study, structures: list[Values], others: dict[str, tuple[Value | None, ...]]) -> Iterator[Values]:
    """Every structure with the first value, the default, of all other axes; then seeded draws.

    In a draw each axis keeps its first value, but for a share that differs from draw to draw: of axes drawn evenly,
    nearly all combinations would break some rule, and none would be near a config that is known.
    """
    chooser = random.Random(f"space/{study.search.seed}")  # noqa: S311  # no secret
    first = {key: axis[0] for key, axis in others.items()}
    yield from ({**structure, **first} for structure in structures)
    for _ in range(NUM_DRAWS):
        share = chooser.random()
        changed = {key: chooser.choice(axis) for key, axis in others.items() if chooser.random() < share}
        yield {**chooser.choice(structures), **first, **changed}
