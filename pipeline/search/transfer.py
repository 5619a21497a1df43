"""What other studies of a model say of the roofline's residual: it is much the same on the next GPU or release."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.grouping import grouped
from pipeline.record import Row
from pipeline.resume import stored_study
from pipeline.score import score
from pipeline.search.prior import modelled_value
from pipeline.store import Store
from pipeline.study import Study
from pipeline.vocabulary import Evidence

TRANSFER_SD = 0.1
"""Of a log-residual carried over, beside its own noise: another GPU, release or workload shifts configs unevenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A config that another study measured, and the log of measured / modelled there less that study's mean."""

    config: EngineConfig
    residual: float


def elsewhere(study: Study, store: Store) -> list[Elsewhere]:
    """What the other studies in a results folder measured of this model with this engine, on GPUs.

    Read for the residual sampler alone, which uses it. A study of a single config says nothing, nor does one whose
    files this version cannot read.
    """
    found: list[Elsewhere] = []
    if study.search.sampler != "residual" or study.hardware.kind != "gpu":
        return found
    for name in store.studies():
        if name == study.id:
            continue
        try:
            rows = [row for row in store.rows(name) if row.evidence is Evidence.MEASURED]
            other = stored_study(store, name) if rows else None
            if other is not None and _is_alike(other, study):
                found += _residuals(other, rows)
        except (StoreError, ConfigError):  # of what was stored, or of a file of lengths that is no longer there
            continue
    return found


def _is_alike(other: Study, study: Study) -> bool:
    """Whether the model's residual there says something of that here."""
    same = (other.model.name, other.engine.name) == (study.model.name, study.engine.name)
    return same and other.hardware.kind == "gpu"


def _residuals(study: Study, rows: Sequence[Row]) -> list[Elsewhere]:
    logs = {}
    for config_json, own in grouped(rows, attrgetter("config_json")).items():
        config = EngineConfig.from_axes(study.engine.name, json.loads(config_json))
        measured, modelled = score(own, study.slo), modelled_value(study, config)
        if measured is not None and modelled > 0:
            logs[config_json] = (config, math.log(measured / modelled))
    if len(logs) < 2:
        return []
    level = fmean(log for _, log in logs.values())
    return [Elsewhere(config=config, residual=log - level) for config, log in logs.values()]
