"""Stored rows as starts: one engine start at one case, with the release it ran on and what it may be compared with."""

import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import attrgetter
from statistics import fmean

from pipeline.engine_config import EngineConfig
from pipeline.former_names import present_name
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.resume import study_of
from pipeline.score import meets, usable
from pipeline.store import Store
from pipeline.study import Study
from pipeline.track.contrast import Value
from pipeline.track.release import Release
from pipeline.workload import OperatingPoint, Slo

ALWAYS_LIKE = ("evidence", "origin", "calibration_id")
"""Conditions that compared rows share, whatever is asked."""

UNTIL_TOLD = ("boundary", "plan", "weights_init", "gpu_name", "power_limit_w_per_gpu")
"""Conditions that they share unless the two sides are said to differ in them. What a case holds comes on top."""

IMPLIED = {"hardware": ("gpu_name", "power_limit_w_per_gpu"), "weights": ("weights_init",)}
"""What differs with a condition."""

CLOCK_SLACK = timedelta(minutes=5)
"""By which two clocks, or one that was set meanwhile, may disagree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One engine start at one case.

    Attributes:
        case: Identity of the case across releases: its `case_id`, under the model's present name and without what the
            sides are said to differ in.
        problem: What best configs are compared within: everything that is neither config, load nor release.
        facts: Conditions by name, those of the case too.
        release: What it ran on.
        rows: Its valid windows, in order of time.
    """

    case: str
    problem: tuple[tuple[str, object], ...]
    facts: Mapping[str, object]
    release: Release
    rows: tuple[Row, ...]

    @property
    def row(self) -> Row:
        """Its last window."""
        return self.rows[-1]

    @property
    def key(self) -> tuple[object, ...]:
        """What must be the same for two starts to repeat one another but for the release."""
        return (self.case, self.problem)

    @property
    def log(self) -> float:
        """Mean log of tokens per joule over its windows."""
        return fmean(math.log(row.output_tokens_per_joule or math.nan) for row in self.rows)

    @property
    def value(self) -> Value:
        """The same as it is compared."""
        return Value(log=self.log, start=self.row.trial_id, card=self.cards)

    @property
    def cards(self) -> tuple[str, ...]:
        """Devices it ran on; of a CPU the machine. Unknown ones (of imported rows) are no other release's."""
        return self.row.gpu_uuids or (self.row.host_id or f"unknown, of {self.row.study_id} on {self.release}",)

    def meets(self, slo: Slo) -> bool:
        """Whether every window does."""
        return all(meets(row, slo) for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that was read.

    Attributes:
        starts: In order of time.
        rejected: Reason for each row that was left out, by row id, and for failed starts of no possible time, by trial
            id; rows that are merely invalid are none of them.
        num_copies: Rows that were there before, the same in all but their study.
        invalid: Rows that are not valid, with their release.
        trials: Every engine start that ended, by id, once.
    """

    starts: tuple[Start, ...]
    rejected: Mapping[str, str]
    num_copies: int
    invalid: tuple[tuple[Row, Release], ...]
    trials: Mapping[str, Trial]


def read_history(store: Store, studies: Sequence[str], told: Collection[str] = ()) -> History:
    """The starts of studies.

    Args:
        store: Where they are.
        studies: Their ids.
        told: Conditions that two sides are said to differ in.

    Raises:
        StoreError: If a file cannot be read.
    """
    trials = {trial.trial_id: trial for study in studies for trial in store.trials(study)}
    every = [row for study in studies for row in store.rows(study)]
    rejected = _rejected(every, trials)
    kept = {row.row_id: row for row in every if row.row_id not in rejected}
    good = {row.row_id for row in usable(list(kept.values()))}
    held = dict[str, Study]()
    starts = [
        _start(rows, trials[trial_id], frozenset(told), held)
        for (trial_id, _), rows in grouped(
            (row for row in kept.values() if row.row_id in good), attrgetter("trial_id", "case_id")
        ).items()
    ]
    return History(
        starts=tuple(sorted(starts, key=lambda start: start.row.started_utc)),
        rejected=rejected,
        num_copies=len(every) - len({row.row_id for row in every}),
        invalid=tuple((row, release_of(row, trials[row.trial_id])) for row in kept.values() if row.row_id not in good),
        trials=trials,
    )


def release_of(record: Row | Trial, trial: Trial) -> Release:
    """What a start ran on; of a trial that has no row the driver is not known."""
    return Release(
        engine=record.engine,
        engine_version=record.engine_version,
        driver_version=record.driver_version if isinstance(record, Row) else None,
        image=_image(trial.study_json),
    )


@cache
def _image(study_json: str) -> str | None:
    image = json.loads(study_json).get("engine", {}).get("image")
    return None if image is None else str(image)


def _rejected(rows: Iterable[Row], trials: Mapping[str, Trial]) -> dict[str, str]:
    """Rows that are no evidence, and failed starts whose time cannot be, and why."""
    found: dict[str, str] = {}
    now = datetime.now(UTC)
    for row_id, same in grouped(rows, attrgetter("row_id")).items():
        row = same[0]
        if any(dataclasses.replace(other, study_id=row.study_id) != row for other in same[1:]):
            found[row_id] = f"{len(same)} different rows have this id"
        elif row.trial_id not in trials:
            found[row_id] = f"its start {row.trial_id} has no record: it still runs, or was killed"
        elif (why := _clock(row, trials[row.trial_id], now)) is not None:
            found[row_id] = why
        elif row.output_tokens_per_joule is not None and row.output_tokens_per_joule <= 0:
            found[row_id] = f"output_tokens_per_joule={row.output_tokens_per_joule:g} is not above 0"
    failed = (trial for trial in trials.values() if trial.status.is_failure)
    return found | {trial.trial_id: f"a failed start: {why}" for trial in failed if (why := _misdated(trial, now))}


def _time(record: Row | Trial) -> datetime:
    """When it began; ValueError where that is no time."""
    time = datetime.fromisoformat(record.started_utc)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _misdated(record: Row | Trial, now: datetime) -> str | None:
    """What is wrong with the time of a record; None where nothing is."""
    try:
        is_to_come = _time(record) > now + CLOCK_SLACK
    except ValueError:
        return f"started_utc={record.started_utc} is no time (ISO 8601)"
    return f"clocks out of order: started_utc={record.started_utc} has not come yet" if is_to_come else None


def _clock(row: Row, trial: Trial, now: datetime) -> str | None:
    """What is wrong with the times of a row and its start; None where nothing is."""
    why = _misdated(row, now) or _misdated(trial, now)
    if why is not None:
        return why
    if _time(row) < _time(trial) - CLOCK_SLACK:
        return f"clocks out of order: started_utc={row.started_utc} is before its engine's start, {trial.started_utc}"
    return None


def _start(rows: Sequence[Row], trial: Trial, told: frozenset[str], held: dict[str, Study]) -> Start:
    row = rows[-1]
    facts = {
        **{name: getattr(row, name) for name in (*ALWAYS_LIKE, "boundary", "plan", "weights_init", "gpu_name")},
        "power_limit_w_per_gpu": None if row.power_limit_w is None else row.power_limit_w / max(1, row.num_gpus),
        "model": present_name(row.model),
        "hardware": row.hardware,
        "weights": row.weights,
        "workload": row.workload,
        "isl_tokens": row.isl_tokens,
        "osl_tokens": row.osl_tokens,
    }
    blank = told | {implied for name in told for implied in IMPLIED.get(name, ())}
    return Start(
        case=_case(row, trial, told, held),
        problem=tuple((name, value) for name, value in facts.items() if name not in blank),
        facts=facts,
        release=release_of(row, trial),
        rows=tuple(rows),
    )


def _case(row: Row, trial: Trial, told: frozenset[str], held: dict[str, Study]) -> str:
    """The case's identity: as stored, or taken anew where the model has another name now or the sides differ in it.

    Raises:
        StoreError: If it must be taken anew and this version cannot read the study.
    """
    name = present_name(row.model)
    if name == row.model and not told & {"hardware", "weights", "power_limit_w_per_gpu"}:
        return row.case_id
    study = held.get(trial.study_json) or held.setdefault(trial.study_json, study_of(trial))
    hardware, changes = study.hardware, dict[str, object]()
    if "hardware" in told:
        hardware = dataclasses.replace(hardware, name="any")
    if told & {"hardware", "power_limit_w_per_gpu"}:
        hardware = dataclasses.replace(hardware, power_cap_w=None, sm_clock_share=1.0)
    if "weights" in told:
        changes = {"weights": "none", "weights_seed": 0}
    study = dataclasses.replace(study, model=dataclasses.replace(study.model, name=name), hardware=hardware, **changes)  # type: ignore[arg-type]  # as the fields are
    config = EngineConfig.from_axes(row.engine, json.loads(row.config_json))
    point = OperatingPoint(concurrency=row.concurrency, request_rate_per_s=row.request_rate_per_s)
    return study.case_id(config, point)
