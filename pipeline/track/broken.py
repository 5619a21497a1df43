"""Configs that ran once and no longer do: the worst regression leaves no row."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from operator import attrgetter

from pipeline.former_names import present_name
from pipeline.grouping import grouped
from pipeline.record import Trial
from pipeline.track.starts import Start


def broken(trials: Iterable[Trial], starts: Sequence[Start]) -> list[Trial]:
    """The last start of every config that has a valid row, where that start failed."""
    ran = {start.row.trial_id for start in starts}
    found = []
    for own in grouped(trials, lambda trial: (trial.config_hash, *_held(trial.study_json))).values():
        last = max(own, key=attrgetter("started_utc"))
        if last.status.is_failure and any(trial.trial_id in ran for trial in own):
            found.append(last)
    return found


@cache
def _held(study_json: str) -> tuple[str, str, str]:
    """Model, hardware and workload of a study."""
    study = json.loads(study_json)
    name, hardware, workload = (str(study.get(key, {}).get("name")) for key in ("model", "hardware", "workload"))
    return present_name(name), hardware, workload
