"""What the search gained over the vendor's recipes: tokens per joule of both, measured in one study at one load."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.score import meets, usable
from pipeline.workload import Slo

RECIPE = "recipe:"
"""A trial proposed by this and a name measures that recipe."""

KIND = ("model", "hardware", "workload", "weights", "boundary", "evidence", "origin")
"""Rows that differ in one of these are never ranked together."""

CONCURRENCY = re.compile(r"_conc([1-9]\d*)")
"""The load that a recipe was tuned for, in its name. Source: the paths of TensorRT-LLM's database/lookup.yaml."""

STREAM_INTERVAL = "engine.knobs.stream_interval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The best config of the search against the vendor's recipe, at one load.

    Attributes:
        row: A row of the best config at this load.
        recipe: Name of the recipe that counts here.
        ratio: Output tokens per joule of the best config / those of the recipe.
        rel_ci95: Half-width of the 95 % interval of the log of `ratio`, from those of the windows; start-to-start
            variation is not in it. None where one of them is unknown.
        is_slo_met: Whether the recipe meets the SLO at this load; None where the SLO bounds nothing.
        chunk_tokens: Tokens that the recipe streams at a time where the SLO bounds the wait for one, which the mean per
            token does not show; else None.
        better_recipe: Another recipe that does better here than the one that counts, or None.
        better_ratio: The same ratio against that one.
    """

    row: Row
    recipe: str
    ratio: float
    rel_ci95: float | None
    is_slo_met: bool | None
    chunk_tokens: int | None = None
    better_recipe: str | None = None
    better_ratio: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half-width of the 95 % interval of `ratio` itself."""
        return None if self.rel_ci95 is None else self.ratio * math.sinh(self.rel_ci95)


def recipe_names(trials: Sequence[Trial]) -> dict[str, str]:
    """Config hash -> the vendor's recipe that it is, for those that are one."""
    return {t.config_hash: t.proposed_by.removeprefix(RECIPE) for t in trials if t.proposed_by.startswith(RECIPE)}


def recipe_gains(rows: Sequence[Row], trials: Sequence[Trial], slo: Slo) -> list[Gain]:
    """The gain at each load at which both were measured, lightest first; nothing where no recipe was.

    Of the configs that are no recipe and meet the SLO at that load the best counts; of the recipes the one whose own
    concurrency is nearest, the better one of equals, or simply the best where none is tuned for a load.

    Args:
        rows: Of one study.
        trials: Of the same; they say which configs are recipes.
        slo: What is owed.
    """
    names = recipe_names(trials)
    gains = []
    scored = [row for row in usable(rows) if row.output_tokens_per_joule]
    kinds = grouped(scored, attrgetter(*KIND, "load"))
    for _, group in sorted(kinds.items(), key=lambda item: item[0]):
        configs = grouped(group, attrgetter("config_hash"))
        ours = [windows for key, windows in configs.items() if key not in names and _meets(windows, slo)]
        recipes = {names[key]: windows for key, windows in configs.items() if key in names}
        if ours and recipes:
            gains.append(_gain(max(ours, key=_log_mean), recipes, slo))
    return gains


def _gain(ours: Sequence[Row], recipes: dict[str, list[Row]], slo: Slo) -> Gain:
    """The gain over recipes by name, each with its windows at one load."""
    load = ours[0].concurrency
    name = min(recipes, key=lambda name: (_distance(name, load), -_log_mean(recipes[name])))
    best = max(recipes, key=lambda name: _log_mean(recipes[name]))
    theirs = recipes[name]
    is_better = _ratio(recipes[best], theirs) > 1 + 1e-6  # more than rounding
    own_ci, their_ci = _rel_ci95(ours), _rel_ci95(theirs)
    interval = json.loads(theirs[0].config_json).get(STREAM_INTERVAL, 1)
    return Gain(
        row=ours[-1],
        recipe=name,
        ratio=_ratio(ours, theirs),
        rel_ci95=None if own_ci is None or their_ci is None else math.hypot(own_ci, their_ci),
        is_slo_met=_meets(theirs, slo) if slo.bounds else None,
        chunk_tokens=interval if interval > 1 and slo.tpot_p99_s is not None else None,
        better_recipe=best if is_better else None,
        better_ratio=_ratio(ours, recipes[best]) if is_better else None,
    )


def _distance(recipe: str, load: int | None) -> float:
    """How far the load that a recipe was tuned for is from this one; infinite where it was tuned for none."""
    found = CONCURRENCY.search(recipe)
    return abs(math.log2(int(found[1]) / load)) if found and load is not None else math.inf


def _meets(windows: Sequence[Row], slo: Slo) -> bool:
    return all(meets(row, slo) for row in windows)


def _ratio(ours: Sequence[Row], theirs: Sequence[Row]) -> float:
    return math.exp(_log_mean(ours) - _log_mean(theirs))


def _log_mean(windows: Sequence[Row]) -> float:
    """Mean log tokens per joule of one config at one load."""
    values = [row.output_tokens_per_joule for row in windows]
    return math.fsum(math.log(value) for value in values if value) / len(values)


def _rel_ci95(windows: Sequence[Row]) -> float | None:
    """Half-width for the mean over windows, as if they were independent."""
    known = [row.output_tokens_per_joule_rel_ci95 for row in windows]
    return None if None in known else math.hypot(*(ci for ci in known if ci is not None)) / len(known)
