"""The model's constants from measured rows: which rows tell, what they say, and how far off the model then is."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.engine_config import EngineConfig, content_hash
from pipeline.errors import ConfigError
from pipeline.record import Row
from pipeline.roofline.calibration import CONSTANTS, SHIPPED, Calibration, LeftOut, Provenance
from pipeline.roofline.fit import Array, Measured, errors_without_own, fit, summary
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.work import stack, work
from pipeline.study import Study
from pipeline.vocabulary import Evidence, RowStatus

MIN_POINTS = 4
"""Operating points below which nothing is fitted: a light and a heavy load of two configs, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """Rows that the equations can be held against.

    Attributes:
        rows: Them.
        measured: The same as the fit takes them.
        left_out: Reason -> rows that are not among them.
    """

    rows: tuple[Row, ...]
    measured: Measured
    left_out: Counter[str]


def usable(rows: Iterable[Row], studies: Mapping[str, Study]) -> Usable:
    """Choose the rows that the equations can be held against, and say why the others are not.

    Args:
        rows: Of any studies.
        studies: By id, those of the rows: their facts of model and GPU, and their lengths.

    Raises:
        ConfigError: If fewer than MIN_POINTS are left.
    """
    left_out, kept, works, running = Counter[str](), [], [], []
    for row in rows:
        reason, batch = _unusable(row), _running(row)
        if reason is None:
            study = studies[row.study_id]
            config = EngineConfig.from_axes(row.engine, json.loads(row.config_json))
            try:
                works.append(work(study.model, study.hardware, config, MeanLengths.of(study.workload), batch))
            except ConfigError as error:
                reason = str(error)
        if reason is not None:
            left_out[reason] += 1
            continue
        kept.append(row)
        running.append(batch)
    if len(kept) < MIN_POINTS:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        raise ConfigError(
            f"{len(kept)} usable rows{f' ({why})' if why else ''}: at least {MIN_POINTS} are needed; measure more loads"
        )
    return Usable(
        rows=tuple(kept),
        measured=Measured(
            work=stack(works),
            running=np.array(running),
            tokens_per_s=np.array([row.output_tokens_per_s for row in kept], float),
            board_w=np.array([(row.power_w or 0.0) / row.num_gpus for row in kept]),
        ),
        left_out=left_out,
    )


Others = tuple[dict[str, Array] | None, LeftOut | None]
"""Log errors on points by constants that never saw their like, and what their like is; see `errors_of_others`."""


def calibrate(found: Usable, around: Calibration = SHIPPED, others: Others | None = None) -> Calibration:
    """Constants that explain these rows, near others where the rows say nothing.

    Args:
        found: Usable rows, of one engine and one kind of weights.
        around: Where to stay near.
        others: From `errors_of_others`, if it was asked already: it fits once for every model or config.

    Raises:
        ConfigError: If engines or weights are mixed.
    """
    rows = found.rows
    engine = _only("engines", (f"{row.engine} {row.engine_version or ''}".strip() for row in rows))
    weights = _only("weights", (row.weights for row in rows))
    models, hardware = (tuple(sorted({getattr(row, name) for row in rows})) for name in ("model", "hardware"))
    constants = fit(found.measured, "unnamed", around)
    outside, left_out = errors_of_others(found, around) if others is None else others
    values: dict[str, Any] = {name: float(f"{getattr(constants, name):.4g}") for name in CONSTANTS}
    digest = content_hash({"constants": values, "rows": sorted(row.row_id for row in rows)})[:6]
    named = dataclasses.replace(constants, id=f"{'-'.join(hardware)}-{engine.replace(' ', '-')}-{digest}", **values)
    provenance = Provenance(
        source=f"{len(rows)} rows of {', '.join(sorted({row.study_id for row in rows}))}",
        engine=engine,
        weights=weights,
        hardware=hardware,
        models=models,
        num_points=len(rows),
        inside=summary(found.measured.errors(named)),
        outside=None if outside is None else summary(outside),
        left_out=left_out,
    )
    return dataclasses.replace(named, provenance=provenance)


def errors_of_others(found: Usable, around: Calibration) -> Others:
    """Log errors on every model by constants that never saw it, or on every config where there is one model only.

    Neither where all rows are of one config.
    """
    keys: dict[LeftOut, list[str]] = {
        "model": [row.model for row in found.rows], "config": [row.config_hash for row in found.rows]
    }  # fmt: skip
    for left_out, groups in keys.items():
        if len(set(groups)) > 1:
            return errors_without_own(found.measured, groups, around), left_out
    return None, None


def _unusable(row: Row) -> str | None:
    if row.status is not RowStatus.OK:
        return f"invalid ({', '.join(row.reasons)})"
    if row.evidence is not Evidence.MEASURED:
        return f"{row.evidence}, not measured"
    if row.num_gpus < 1 or not row.power_w:
        return "without GPU power"
    if row.concurrency is None:
        return "of open loops, whose batch is not known"
    return None


def _running(row: Row) -> float:
    """Requests in the engine's batch: by its own account, else those that the client kept in flight."""
    if row.num_running_mean:
        return row.num_running_mean
    return (row.concurrency or 1) * (row.occupancy or 1.0)


def _only(what: str, values: Iterable[str]) -> str:
    """The one value there is.

    Raises:
        ConfigError: If there are several.
    """
    several = sorted(set(values))
    if len(several) > 1:
        raise ConfigError(f"rows of several {what} ({', '.join(several)}): each wants constants of its own; name fewer")
    return several[0]
