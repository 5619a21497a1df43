"""What a trial can still score at most, so that one which cannot beat the best so far need not go on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.record import Row, Trial
from pipeline.roofline.bound import physical_limit
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import predict_loads
from pipeline.score import score, usable
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from pipeline.workload import OperatingPoint

MIN_ROWS = 8
"""Usable rows of the study from which on the model's word counts; until then only physics does."""

PHYSICAL = "physical"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBound:
    """An upper bound of a score.

    Attributes:
        value: Output tokens per joule.
        by: PHYSICAL, or the id of the calibration that the model rests on.
    """

    value: float
    by: str


def score_bound(
    study: Study, config: EngineConfig, rows: Sequence[Row], left: Sequence[OperatingPoint], num_rows: int
) -> ScoreBound | None:
    """The most that a config can score: what it scores already, or the bound of a load that is left.

    The model's bound of a load is its prediction, times the largest measured / modelled of the config's own rows, times
    1 + the error that its calibration has in one case of ten (docs/model.md).

    Args:
        study: Model, hardware, workload, SLO, calibration.
        config: What is being measured.
        rows: Of this config so far.
        left: Loads that may still be measured.
        num_rows: Usable rows of the study so far.

    Returns:
        The lower of the bounds that are known; None where there is none, or nothing is left.
    """
    if not left or study.hardware.kind != "gpu":
        return None
    bounds = [_physical(study, config, left), _modelled(study, config, rows, left) if num_rows >= MIN_ROWS else None]
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return None
    lowest = min(known, key=lambda bound: bound.value)
    return ScoreBound(value=max(lowest.value, score(rows, study.slo) or 0.0), by=lowest.by)


def coverage(trials: Sequence[Trial]) -> tuple[int, int]:
    """Of the trials that ran to their end, with a score and a bound of it: in how many it held, of how many."""
    held = [
        trial.score <= trial.score_bound
        for trial in trials
        if trial.status is TrialStatus.OK and trial.score is not None and trial.score_bound is not None
    ]
    return sum(held), len(held)


def _physical(study: Study, config: EngineConfig, left: Sequence[OperatingPoint]) -> ScoreBound | None:
    limits = [physical_limit(study.model, study.hardware, study.workload, config, point) for point in left]
    values = [None if limit is None else limit.output_tokens_per_joule for limit in limits]
    known = [value for value in values if value is not None]
    return ScoreBound(value=max(known), by=PHYSICAL) if len(known) == len(values) else None


def _modelled(
    study: Study, config: EngineConfig, rows: Sequence[Row], left: Sequence[OperatingPoint]
) -> ScoreBound | None:
    calibration, good = calibration_of(study), usable(rows)
    errors = calibration.error_of(study.model.name)
    done = [OperatingPoint(concurrency=row.concurrency, request_rate_per_s=row.request_rate_per_s) for row in good]
    points = [*left, *done]
    found = predict_loads(study.model, study.hardware, study.workload, config, points, calibration)
    if errors is None or isinstance(found, str):
        return None
    modelled = [each.output_tokens_per_joule for each in found]
    ratios = [
        row.output_tokens_per_joule / expected
        for row, expected in zip(good, modelled[len(left) :], strict=True)
        if row.output_tokens_per_joule is not None
    ]
    factor = max([1.0, *ratios]) * (1 + errors.j_per_token.p90)
    value = max(modelled[: len(left)]) * factor
    return ScoreBound(value=value, by=calibration.id) if math.isfinite(value) else None
