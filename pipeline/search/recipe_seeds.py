"""The vendor's recipes as the first configs of a search: those that can be started, and why the others are not."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.axes import bears, stated
from pipeline.engine.trtllm.recipe_config import engine_config
from pipeline.engine.trtllm.recipe_folder import Recipe
from pipeline.engine.trtllm.recipes import matching_recipes
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.recipe_gain import RECIPE
from pipeline.rules import why_infeasible
from pipeline.study import Study

Refusal = Callable[[EngineConfig], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Configs to try before any search, each with who proposes it; and what to tell the user, a line each."""

    configs: tuple[tuple[EngineConfig, str], ...] = ()
    notes: tuple[str, ...] = ()


def recipe_seeds(study: Study, refusal: Refusal) -> Seeds:
    """The recipes of `search.recipes` that are for this study, at most half as many as there are trials.

    A database may hold more of them than the budget has trials, and the search is to have some; the baseline is the
    first. A recipe that breaks a
    rule is none; one that only the SLO speaks against is, as it is what the search is to be compared with.

    Args:
        study: Names the folder; without one there are no seeds and no notes.
        refusal: Why the study's engine cannot render a config, or None.

    Raises:
        ConfigError: If the folder cannot be read, or the engine takes no recipes.
    """
    matched, notes = matching_recipes(study)
    found: dict[str, tuple[EngineConfig, str]] = {}
    refused: dict[str, list[str]] = {}
    for recipe in matched:
        config, reason = _config(recipe, study, refusal)
        if config is None:
            refused.setdefault(reason, []).append(recipe.name)
        else:
            found.setdefault(config.config_hash, (config, f"{RECIPE}{recipe.name}"))
    seeds, budget = tuple(found.values()), study.search.budget_trials
    most = min(max(1, budget // 2), budget - 1)
    if seeds[:most]:
        notes.append(f"recipes tried first, after the baseline: {_listed(by for _, by in seeds[:most])}")
    if len(seeds) > most:
        left = _listed(by for _, by in seeds[most:])
        notes.append(f"recipes not tried, as they would take over half of search.budget_trials={budget}: {left}")
    notes += [f"recipes not tried: {_listed(names)}: {reason}" for reason, names in refused.items()]
    against_slo = grouped(seeds[:most], lambda seed: why_infeasible(seed[0], study))
    notes += [
        f"the search itself would not try {len(group)} of these recipes: {reason}"
        for reason, group in against_slo.items()
        if reason is not None
    ]
    return Seeds(configs=seeds[:most], notes=tuple(notes))


def widened(study: Study, configs: Iterable[EngineConfig]) -> Study:
    """The study with these configs' values on its axes too, so that a search learns from them and tries what is near.

    An axis that has a single value is left alone: someone fixed it.
    """
    axes = dict(study.axes)
    for requested in (config.requested() for config in configs):
        for key, values in axes.items():
            if len(values) > 1 and bears(key, requested, study):
                known = {repr(stated(study.engine.name, key, value)) for value in values}
                asked = requested.get(key)
                axes[key] = values if repr(asked) in known else (*values, asked)
    return dataclasses.replace(study, axes=axes)


def _config(recipe: Recipe, study: Study, refusal: Refusal) -> tuple[EngineConfig | None, str]:
    """A recipe's config, or why it cannot be started; the SLO is left out of it."""
    unbounded = dataclasses.replace(study.slo, ttft_p99_s=None, tpot_p99_s=None)
    try:
        config = engine_config(recipe, study)
        reason = why_infeasible(config, dataclasses.replace(study, slo=unbounded)) or refusal(config)
    except ConfigError as error:
        return None, str(error).removeprefix(f"{recipe.name}: ")
    return (config, "") if reason is None else (None, reason)


def _listed(names: Iterable[str]) -> str:
    """Names of recipes, those in one folder together: a path is long."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.removeprefix(RECIPE).rpartition("/")
        folders.setdefault(folder, []).append(file.removesuffix(".yaml"))
    return ", ".join(f"{folder}/{' '.join(files)}" for folder, files in folders.items())
