"""Published points to stand beside: rows that were imported, or ML.ENERGY's that come with this project."""

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.former_names import present_name
from pipeline.grouping import grouped
from pipeline.importers import inferencex, mlenergy
from pipeline.importers.composed import compose_study
from pipeline.importers.foreign_file import read_file
from pipeline.importers.model_name import checkpoint
from pipeline.importers.records import records
from pipeline.record import Row
from pipeline.score import usable
from pipeline.store import Store

INTERACTIVITY = {inferencex.TOOL: "tpot_p50_s", mlenergy.TOOL: "itl_p50_s"}
"""Tool -> the latency whose inverse is tokens/s per user: the median TPOT, or ITL where that is what they publish."""


@dataclass(frozen=True, slots=True)
class Public:
    """Points of one tool.

    Attributes:
        tool: Whose they are.
        rows: Valid ones, of the models that were asked for.
        models: Every model that it has points of.
        source: Where they are from, in words.
    """

    tool: str
    rows: tuple[Row, ...]
    models: frozenset[str]
    source: str


def public(store: Store, tool: str, models: Collection[str]) -> Public:
    """The valid rows of a tool that were imported; of mlenergy, where none was, those that come with this project.

    Args:
        store: Where imported rows are.
        tool: Whose points.
        models: By conf/model; of others nothing is read that need not be.

    Raises:
        ConfigError: If there is none, or no such tool.
        StoreError: If rows cannot be read.
    """
    if tool not in INTERACTIVITY:
        raise ConfigError(f"against {tool}: unknown; allowed: {', '.join(INTERACTIVITY)}")
    stored = [row for name in store.studies() for row in store.rows(name) if row.source_tool == tool]
    if stored:
        studies = ", ".join(sorted({row.study_id for row in stored}))
        good = tuple(row for row in usable(stored) if present_name(row.model) in models)
        return Public(
            tool, good, frozenset(present_name(row.model) for row in stored), f"{len(stored)} rows of {studies}"
        )
    if tool != mlenergy.TOOL:
        raise ConfigError(f"against {tool}: no point of it was imported; first: tpw import {tool} agg_*.json")
    by_model = grouped(mlenergy.read(read_file(mlenergy.shipped())).reported, lambda each: checkpoint(each.model)[0])
    by_model.pop(None, None)  # without facts in conf/model there is no row of ours either
    wanted = [each for model, points in by_model.items() if model in models for each in points]
    rows = [records(each, *compose_study(each, []), 0, None)[1] for each in wanted]
    known = frozenset(model for model in by_model if model)
    return Public(tool, tuple(usable(rows)), known, "leaderboard v3 as it comes with this project")
