"""One study on several sets of GPUs: an anchor config, measured on each, tells what a set adds to every other config.

Identical cards may differ by several per cent (docs/measurement.md), more than configs near the best do. So the search
reads tokens per joule relative to the anchor on the same set: a log-ratio, as on the first set.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from pipeline.engine_config import EngineConfig
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.score import usable
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

BY = "anchor"
"""Who proposes starts of the anchor; the baseline is the anchor."""

START_SD = 0.015
"""Relative, of a start of one config on one set at most (docs/measurement.md): what a level is uncertain by."""


def as_on_first_set(rows: Sequence[Row], anchor: str) -> list[Row]:
    """Rows of a study with tokens per joule as on its first set of GPUs, their intervals widened.

    Rows of a set on which the anchor has no valid row at a load that the first set has as well are left out: nothing
    tells their level. Rows of a single set are as they were.

    Args:
        rows: In order of time.
        anchor: Hash of the config that was measured on each set.
    """
    by_set = grouped(rows, gpu_set)
    if len(by_set) < 2:
        return list(rows)
    first = next(iter(by_set))
    curves = {name: _curve(own, anchor) for name, own in by_set.items()}
    levels = {first: (0.0, 0.0)} | {
        name: found for name, curve in curves.items() if name != first and (found := _level(curve, curves[first]))
    }
    return [_moved(row, *levels[gpu_set(row)]) for row in rows if gpu_set(row) in levels]


def is_anchor_due(
    study: Study, trials: Sequence[Trial], rows: Sequence[Row], anchor: EngineConfig, first_gpu: str | None
) -> bool:
    """Whether the anchor has to be measured before the next config on this set.

    It is at first, and after `search.anchor_every` other trials with rows there; never where that is null.

    Args:
        study: The study.
        trials: Its trials, in order.
        rows: Its rows.
        anchor: The config.
        first_gpu: By which the set is known.
    """
    every = study.search.anchor_every
    if every is None:
        return False
    own = {row.trial_id for row in rows if gpu_set(row) == first_gpu}
    here = [trial for trial in trials if trial.trial_id in own and trial.status is not TrialStatus.INTERRUPTED]
    since = next((n for n, trial in enumerate(reversed(here)) if trial.config_hash == anchor.config_hash), None)
    return since is None or since >= every


def gpu_set(row: Row) -> str | None:
    """By what a row's set of GPUs is known: its first one; None where there is none."""
    return row.gpu_uuids[0] if row.gpu_uuids else None


def _curve(rows: Sequence[Row], anchor: str) -> dict[float, list[float]]:
    """Logs of the anchor's tokens per joule by load."""
    by_load = grouped(usable([row for row in rows if row.config_hash == anchor]), lambda row: row.load)
    return {load: [math.log(row.output_tokens_per_joule or math.nan) for row in own] for load, own in by_load.items()}


def _level(here: Mapping[float, Sequence[float]], there: Mapping[float, Sequence[float]]) -> tuple[float, float] | None:
    """Log of here / there, mean over the loads that both have, and its standard error; None without such a load."""
    both = here.keys() & there.keys()
    if not both:
        return None
    starts = min(len(curve[load]) for curve in (here, there) for load in both)
    return fmean(fmean(here[load]) - fmean(there[load]) for load in both), START_SD * math.sqrt(2 / starts)


def _moved(row: Row, level: float, error: float) -> Row:
    value, interval = row.output_tokens_per_joule, row.output_tokens_per_joule_rel_ci95
    return dataclasses.replace(
        row,
        output_tokens_per_joule=None if value is None else value * math.exp(-level),
        output_tokens_per_joule_rel_ci95=None if interval is None else math.hypot(interval, 1.96 * error),
    )
