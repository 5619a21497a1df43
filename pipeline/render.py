"""Which configs of a study are rendered, and in which order; nothing is started.

It is what a sweep would start, in its order: the baseline, the vendor's recipes, then what the roofline likes best.
Split deployments, of which there is no model, come in the order of their axes.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.disaggregation import Deployment, deployments, num_servers, shared_axes
from pipeline.engine.catalog import find_engine, refusal
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.trtllm.disaggregated import as_server, cannot_be_placed, without_prompts
from pipeline.engine.trtllm.multinode import num_nodes, why_not_here
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.rendering import Rendering, of_config, of_deployment
from pipeline.rules import why_infeasible
from pipeline.search.prior import rank
from pipeline.search.recipe_seeds import recipe_seeds
from pipeline.space import MAX_CONFIGS, baseline_of, build_space
from pipeline.study import Study

MAX_DEPLOYMENTS = 50_000
"""How many split deployments are looked at: a few seconds' worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderings:
    """What was chosen of how many that are possible, and what to tell the user."""

    chosen: tuple[Rendering, ...]
    num_possible: int
    notes: tuple[str, ...] = ()


def renderings(study: Study, count: int) -> Renderings:
    """The first `count` folders of a study; all where there are fewer.

    Raises:
        ConfigError: If nothing can be rendered.
    """
    if study.hardware.kind != "gpu":
        raise ConfigError(f"hardware={study.hardware.name}: is no GPU; name what to render for, e.g. hardware=b200")
    if study.engine.name == "attached":
        raise ConfigError("engine=attached: is started by someone else; render engine=trtllm or engine=vllm")
    find_runtime(study.engine)  # an image that it does not take is refused before a folder names it
    return _of_configs(study, count) if study.disaggregation is None else _of_deployments(study, count)


def _of_configs(study: Study, count: int) -> Renderings:
    engine = find_engine(study)

    def refused(config: EngineConfig) -> str | None:
        return refusal(engine, config, study) or _why_not_spread(config, study)

    space = build_space(study, refused)
    # Half of a budget goes to recipes: here all that are asked for may be recipes.
    seeds = recipe_seeds(replace(study, search=replace(study.search, budget_trials=2 * count)), refused)
    first = (baseline_of(study, space), "baseline")
    order = [first, *seeds.configs, *((config, "prior") for config in rank(study, space.configs))]
    chosen = dict[str, Rendering]()
    for config, proposed_by in order:
        if len(chosen) == count:
            break
        one = of_config(config, proposed_by, study, engine)
        chosen.setdefault(one.name, one)
    notes = [*([space.describe()] if space.is_drawn else []), *seeds.notes]
    num_possible = len({config.config_hash for config, _ in order})
    return Renderings(chosen=tuple(chosen.values()), num_possible=num_possible, notes=tuple(notes))


def _why_not_spread(config: EngineConfig, study: Study) -> str | None:
    """Why a config cannot be spread over machines, or None."""
    if study.engine.name != "trtllm":
        return why_not_here(config, study)
    try:
        num_nodes(config.parallelism.num_gpus, study.hardware)
    except ConfigError as error:
        return str(error)
    return None


def _of_deployments(study: Study, count: int) -> Renderings:
    split = study.disaggregation
    assert split is not None  # noqa: S101  # the caller looked
    size = num_servers(study.axes, split)
    if size > MAX_CONFIGS:
        raise ConfigError(
            f"disaggregation=split: the axes of one server span {size} configs, more than {MAX_CONFIGS}; fix some of "
            "them to one value, e.g. disaggregation.generation.parallelism.tp=8"
        )
    engine = find_engine(study)
    exclusions = Counter[str]()

    def is_possible(kind: str, config: EngineConfig) -> bool:
        view = study if kind == "context" else without_prompts(config, study)
        reason = why_infeasible(config, view) or refusal(engine, as_server(config, study), view)
        exclusions.update([f"disaggregation.{kind}: {reason}"] if reason else [])
        return reason is None

    def fitting() -> Iterator[Deployment]:
        every = deployments(engine.name, study.axes, split, is_possible)
        for deployment in itertools.islice(every, MAX_DEPLOYMENTS):
            reason = cannot_be_placed(deployment, study)
            exclusions.update([reason] if reason else [])
            if reason is None:
                yield deployment

    found = fitting()
    chosen = [of_deployment(deployment, study, engine) for deployment in itertools.islice(found, count)]
    if not chosen:
        listed = "; ".join(reason for reason, _ in exclusions.most_common(2))
        raise ConfigError(
            f"no feasible deployment for model={study.model.name} hardware={study.hardware.name}: {listed}"
        )
    shared = shared_axes(study.axes)
    left = [key for key in study.axes if key.startswith("engine.knobs.") and key not in shared]
    notes = [
        "there is no model of split servers: they come in the order of their axes",
        *([f"left to the engine's default, as they have several values: {', '.join(left)}"] if left else []),
    ]
    num_possible = len(chosen) + sum(1 for _ in found)
    return Renderings(chosen=tuple(chosen), num_possible=num_possible, notes=tuple(notes))
