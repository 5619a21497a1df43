"""How near a result is to what the hardware allows."""

import json
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.record import Row
from pipeline.roofline.bound import physical_limit
from pipeline.study import Study
from pipeline.workload import OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A row's values / their physical limits at its load; None where either is unknown."""

    output_tokens_per_s: float | None = None
    output_tokens_per_joule: float | None = None


def share_of_limit(row: Row, study: Study) -> Share:
    """How near a row of a study is to the limits of its model, GPUs and load.

    Rows on a CPU have no limit, nor have imported ones of another model or GPU than the study names.
    """
    if (row.model, row.hardware) != (study.model.name, study.hardware.name):
        return Share()
    point = OperatingPoint(concurrency=row.concurrency, request_rate_per_s=row.request_rate_per_s)
    try:
        config = EngineConfig.from_axes(row.engine, json.loads(row.config_json))
        limit = physical_limit(study.model, study.hardware, study.workload, config, point)
    except (ConfigError, ValueError):  # a published limit is missing, or the config is no longer readable
        return Share()
    if limit is None:
        return Share()
    return Share(
        output_tokens_per_s=_ratio(row.output_tokens_per_s, limit.output_tokens_per_s),
        output_tokens_per_joule=_ratio(row.output_tokens_per_joule, limit.output_tokens_per_joule),
    )


def _ratio(value: float | None, limit: float | None) -> float | None:
    return None if value is None or limit is None else value / limit
