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
from pipeline.rules import RULES, STRUCTURAL, first_broken, why_infeasible
from pipeline.study import Study

MAX_CONFIGS = 20_000
"""Largest product of axes that is enumerated, structurally impossible ones not counted: a few seconds."""

NUM_DRAWS = 20_000
"""Combinations drawn from a larger product."""

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
        ConfigError: If no config is feasible.
    """
    structural = {key: values for key, values in study.axes.items() if key.startswith(_STRUCTURE)}
    others = {key: study.axes[key] for key in sorted(study.axes.keys() - structural.keys(), key=is_dependent)}
    num_others = math.prod(map(len, others.values()))
    exclusions, num_passed = Counter[str](), dict[str, int]()

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
        else:
            exclude(broken)
    if not feasible:
        # The configs that got furthest say best what is in the way.
        listed = "; ".join(sorted(exclusions, key=lambda reason: (-num_passed[reason], -exclusions[reason]))[:2])
        raise ConfigError(
            f"no feasible configuration for model={study.model.name} hardware={study.hardware.name}: {listed}"
        )
    return Space(
        study=study,
        refusal=refusal,
        configs=tuple(feasible),
        exclusions=exclusions,
        num_combinations=math.prod(map(len, study.axes.values())),
        is_drawn=is_drawn,
    )


def engine_default(space: Space) -> EngineConfig:
    """The config of someone who sets nothing: the engine's defaults on the fewest devices that hold the model.

    Falls back to the first feasible config where the bare default breaks a rule.
    """
    for config in sorted(space.configs, key=lambda c: c.parallelism.num_gpus):
        bare = EngineConfig(engine=config.engine, precision=config.precision, parallelism=config.parallelism)
        if space.allows(bare):
            return bare
    return space.configs[0]


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
