"""A study as an Optuna journal, which optuna-dashboard opens: one Optuna trial per stored trial, readable parameters.

It is for looking at: the search itself rebuilds its study from the stored records and reads no journal.
"""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalChoiceType, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipeline.axes import bears, stated
from pipeline.engine_config import EngineConfig, Value, canonical_json
from pipeline.errors import ConfigError, StoreError
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.score import best_row, score, slack, usable
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

CONSTRAINT = "broken"
"""Above 0 where a trial failed, has no valid row, or misses the SLO at every load (then log of the worst ratio)."""

OLD_CONSTRAINTS = "constraints"
"""Where Optuna kept a list of constraints before they had names, and where optuna-dashboard 0.21 looks."""

METRIC = "output_tokens_per_joule"

Params = dict[str, CategoricalChoiceType]


def write_journal(study: Study, trials: Sequence[Trial], rows: Sequence[Row], path: Path) -> None:
    """Write a study's trials to a new file.

    A trial is COMPLETE with its score, taken anew under the study's SLO; one without a score has the worst of the
    others instead, for Optuna takes no null, its CONSTRAINT broken and the user attribute `score` null. An interrupted
    trial is FAIL, with neither. Parameters are the axes that tell trials apart; one that has no effect in a config is
    left out.

    Args:
        study: As stored with its last trial.
        trials: All of them, in order of number.
        rows: All of them.
        path: Where to; nothing may be there.

    Raises:
        ConfigError: If there is a file of that name.
        StoreError: If it cannot be written.
    """
    backend = _InMemory()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    exported = optuna.create_study(storage=JournalStorage(backend), study_name=study.id, direction="maximize")
    for name, value in _study_attrs(study, rows).items():
        exported.set_user_attr(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        exported.set_metric_names([METRIC])
    exported.add_trials(_optuna_trials(study, trials, rows))
    try:
        _write_new(backend.logs, path)
    except FileExistsError as error:
        raise ConfigError(f"--out={path}: is there already; name another file, or remove that one") from error
    except OSError as error:
        raise StoreError(f"--out={path}: cannot be written ({error.strerror}); name another file") from error


def _write_new(logs: list[dict[str, Any]], path: Path) -> None:
    """Write a journal file where none is, whole or not at all.

    Raises:
        OSError: If something is there, or it cannot be written.
    """
    path.touch(exist_ok=False)
    try:
        JournalFileBackend(str(path)).append_logs(logs)
    except OSError:
        path.unlink()
        raise


class _InMemory(BaseJournalBackend):
    """Gathers a journal, so that a file is written once and whole: an append to a file is synced each time."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


def _study_attrs(study: Study, rows: Sequence[Row]) -> dict[str, Any]:
    """What the values are and what was held fixed; several kinds of evidence or boundary are all named."""
    return {
        "objective": "output tokens per joule within the boundary, at the best load that meets the SLO",
        "evidence": sorted({row.evidence for row in rows}),
        "boundary": sorted({row.boundary for row in rows}),
        "origin": sorted({row.origin for row in rows}),
        "weights": study.weights,
        "model": study.model.name,
        "hardware": study.hardware.name,
        "engine": study.engine.name,
        "workload": study.workload.name,
        "slo": study.slo.name,
        "plan": study.plan.name,
    }


def _optuna_trials(study: Study, trials: Sequence[Trial], rows: Sequence[Row]) -> list[FrozenTrial]:
    """Every stored trial as one of Optuna's."""
    configs = [EngineConfig.from_axes(t.engine, json.loads(t.config_json)).requested() for t in trials]
    params, choices = _params(study, configs)
    distributions = {key: CategoricalDistribution(values) for key, values in choices.items()}
    by_trial, left = grouped(rows, attrgetter("trial_id")), dict[str, list[Row]]()
    seen = []
    for trial in trials:
        # A resumed trial goes on from the rows of the starts that were interrupted.
        seen.append(left.pop(trial.config_hash, []) + by_trial.get(trial.trial_id, []))
        if trial.status is TrialStatus.INTERRUPTED:
            left[trial.config_hash] = seen[-1]
    is_cut = [trial.status is TrialStatus.INTERRUPTED for trial in trials]
    scores = [None if cut else score(own, study.slo) for own, cut in zip(seen, is_cut, strict=True)]
    worst = min((value for value in scores if value is not None), default=0.0)
    exported = []
    for trial, own, cut, value, given in zip(trials, seen, is_cut, scores, params, strict=True):
        broken = min((slack(row, study.slo) for row in usable(own)), default=1.0)
        broken = max(broken, 1e-3) if value is None else broken
        found = optuna.create_trial(
            state=TrialState.FAIL if cut else TrialState.COMPLETE,
            value=None if cut else worst if value is None else value,
            params=given,
            distributions={key: distributions[key] for key in given},
            user_attrs=_trial_attrs(study, trial, own, value),
            constraints=None if cut else {CONSTRAINT: broken},
            system_attrs=None if cut else {OLD_CONSTRAINTS: [broken]},
        )
        found.datetime_start = datetime.fromisoformat(trial.started_utc)
        found.datetime_complete = found.datetime_start + timedelta(seconds=trial.total_s)
        exported.append(found)
    return exported


def _trial_attrs(study: Study, trial: Trial, rows: Sequence[Row], value: float | None) -> dict[str, Any]:
    """What is known of a trial, and of its best row; null where nothing is."""
    of_trial = ("trial_id", "number", "config_hash", "status", "reasons", "proposed_by", "started_utc", "total_s",
                "start_s", "evidence", "config_json")  # fmt: skip
    of_row = ("load_text", "output_tokens_per_s", "power_w", "ttft_p99_s", "tpot_p99_s", "boundary")
    best = best_row(rows, study.slo)
    return {
        **{name: getattr(trial, name) for name in of_trial},
        **{name: None if best is None else getattr(best, name) for name in of_row},
        "score": value,
    }


def _params(
    study: Study, configs: Sequence[Mapping[str, Value]]
) -> tuple[list[Params], dict[str, list[CategoricalChoiceType]]]:
    """Parameters of each config, and the choices of each parameter: values of its axis, then others that were tried."""
    params: list[Params] = [{} for _ in configs]
    choices = {}
    for key in sorted({*study.axes, *(key for config in configs for key in config)}):
        # A config states a value its own way, or leaves it out where it is neutral: this is the way of the axis.
        written = {repr(stated(study.engine.name, key, value)): value for value in study.axes.get(key, ())}
        values: dict[int, Value | None] = {}
        for number, config in enumerate(configs):
            if key in config or bears(key, config, study):
                value = config.get(key)
                values[number] = written.get(repr(value), value)
        if len(written) < 2 and len({repr(value) for value in values.values()}) < 2:
            continue
        texts = {repr(value): value for value in (*written.values(), *values.values())}
        # Optuna cannot tell 1 from True, and takes no lists.
        is_plain = len(set(texts.values())) == len(texts) and not any(isinstance(v, tuple) for v in texts.values())
        choices[key] = [value if is_plain else canonical_json(value) for value in texts.values()]
        for number, value in values.items():
            params[number][key] = value if is_plain else canonical_json(value)  # type: ignore[assignment]  # no tuple
    return params, choices  # type: ignore[return-value]  # no tuple
