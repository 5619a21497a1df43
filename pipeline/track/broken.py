"""Configs that ran once and whose last start left no row to compare: the worst regression is one of them."""

import json
from functools import cache
from operator import attrgetter

from pipeline.former_names import present_name
from pipeline.grouping import grouped
from pipeline.record import Trial
from pipeline.track.starts import History
from pipeline.vocabulary import TrialStatus


def broken(history: History) -> list[tuple[Trial, str]]:
    """The last start of every config that has a valid row, where that start failed; and what went wrong."""
    return [
        (trial, "; ".join(trial.reasons) or "no reason given")
        for trial in _last_starts(history)
        if trial.status.is_failure
    ]


def unmeasured(history: History) -> list[tuple[Trial, str]]:
    """The last start of every config that has a valid row, where that start went well without one; and why."""
    reasons = grouped((row for row, _ in history.invalid), attrgetter("trial_id"))
    return [
        (trial, ", ".join(sorted({reason for row in reasons[trial.trial_id] for reason in row.reasons})))
        for trial in _last_starts(history)
        if trial.status is TrialStatus.OK and trial.trial_id in reasons and trial.trial_id not in _ran(history)
    ]


def _last_starts(history: History) -> list[Trial]:
    """Of every config that has a valid row; one that was stopped from outside says nothing."""
    ended = [
        trial
        for trial in history.trials.values()
        if trial.status not in {TrialStatus.INTERRUPTED, TrialStatus.PRUNED} and trial.trial_id not in history.rejected
    ]
    ran = _ran(history)
    return [
        max(own, key=attrgetter("started_utc"))
        for own in grouped(ended, lambda trial: (trial.config_hash, *_held(trial.study_json))).values()
        if any(trial.trial_id in ran for trial in own)
    ]


def _ran(history: History) -> set[str]:
    return {start.row.trial_id for start in history.starts}


@cache
def _held(study_json: str) -> tuple[str, str, str]:
    """Model, hardware and workload of a study."""
    study = json.loads(study_json)
    name, hardware, workload = (str(study.get(key, {}).get("name")) for key in ("model", "hardware", "workload"))
    return present_name(name), hardware, workload
