"""Which rows may be compared: those that share everything that is no config and no load.

Engines may differ, as any axis of a config may; versions of one engine may not. Configs of one and of several GPUs are
compared where the smaller set of cards lies within the larger, for identical cards differ by several per cent.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.score import usable
from pipeline.store import Store

COLUMNS = (
    "evidence", "boundary", "origin", "model", "hardware", "gpu_name", "workload", "isl_tokens", "osl_tokens",
    "weights", "weights_init", "driver_version", "calibration_id",
)  # fmt: skip
"""Columns of a row that all compared rows share."""

OF_STUDY = {
    "workload.arrival": "closed", "workload.length_ratio_min": None, "workload.seed": 0,
    "workload.lengths_sha256": None, "workload.shared_prefix_tokens": 0,
    "hardware.power_cap_w": None, "hardware.sm_clock_share": 1.0,  # of the model
    "hardware.declared_idle_w": None, "hardware.declared_busy_w_per_core": None,  # of a CPU, all that its energy is
}  # fmt: skip
"""What the study says beyond the columns, and what it means where an older study knew nothing of it."""

ENGINE_VERSION = "engine_version"
GPUS = "gpu_uuids"
PLAN = "plan"
"""A plan may differ, say quick for a screening and publish for the finals; rows can be restricted to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Rows that may be compared.

    Attributes:
        rows: Valid ones with tokens per joule, tokens per second and power.
        invalid: Rows under the same conditions that are not valid: they never count, but say where a ladder has holes.
        trials: Every start of their studies, by id.
        conditions: What they share, by name; `engine_version` by engine.
        gpu_uuids: Every card that one of them ran on.
    """

    rows: tuple[Row, ...]
    invalid: tuple[Row, ...]
    trials: Mapping[str, Trial]
    conditions: Mapping[str, object]
    gpu_uuids: tuple[str, ...]

    @property
    def studies(self) -> tuple[str, ...]:
        """The studies that the valid rows are of."""
        return tuple(sorted({row.study_id for row in self.rows}))


def comparable(store: Store, studies: Sequence[str], where: Mapping[str, str]) -> Pool:
    """The valid rows of studies, once they are found to be comparable.

    Args:
        store: Where they are.
        studies: Their ids.
        where: Conditions to restrict them to, by name; a GPU by the beginning of its UUID.

    Raises:
        ConfigError: If none is left, a condition is unknown, or rows differ in one.
        StoreError: If a file cannot be read.
    """
    trials = {trial.trial_id: trial for study in studies for trial in store.trials(study)}
    held = {trial.study_json: _of_study(trial) for trial in trials.values()}
    every = [
        (row, _conditions(row, held[trials[row.trial_id].study_json]))
        for study in studies
        for row in store.rows(study)
        if row.trial_id in trials  # of a start that still runs, or was killed, nothing is known yet
    ]
    for key, wanted in where.items():
        every = _restricted(every, key, wanted)
    good = {row.row_id for row in usable([row for row, _ in every]) if row.power_w and row.output_tokens_per_s}
    compared = [(row, facts) for row, facts in every if row.row_id in good]
    if not compared:
        raise ConfigError(_why_none([row for row, _ in every], studies))
    shared = _shared(compared)
    first = attrgetter("started_utc")
    return Pool(
        rows=tuple(sorted((row for row, _ in compared), key=first)),
        invalid=tuple(sorted((row for row, _ in every if row.row_id not in good), key=first)),
        trials={key: trial for key, trial in trials.items() if trial.study_id in {row.study_id for row, _ in compared}},
        conditions=shared,
        gpu_uuids=max((row.gpu_uuids for row, _ in compared), key=len),
    )


def _of_study(trial: Trial) -> dict[str, object]:
    study = json.loads(trial.study_json)
    found = {}
    for path, default in OF_STUDY.items():
        group, _, name = path.partition(".")
        value = study.get(group, {}).get(name)
        if value not in {None, default}:
            found[path] = value
    return found


def _conditions(row: Row, of_study: Mapping[str, object]) -> dict[str, object]:
    """Everything about a row that a comparison holds fixed, and by which rows can be restricted."""
    limit_w = None if row.power_limit_w is None else row.power_limit_w / max(1, row.num_gpus)
    return {
        **{name: getattr(row, name) for name in COLUMNS},
        **of_study,
        "power_limit_w_per_gpu": limit_w,
        f"{ENGINE_VERSION}.{row.engine}": row.engine_version,
    }


def _restricted(
    every: Sequence[tuple[Row, dict[str, object]]], key: str, wanted: str
) -> list[tuple[Row, dict[str, object]]]:
    """The rows of which a condition holds.

    Raises:
        ConfigError: If there is no such condition, or no row of which it holds.
    """

    def values(row: Row, facts: dict[str, object]) -> list[str]:
        if key == GPUS:
            return [",".join(row.gpu_uuids)]
        if key == PLAN:
            return [row.plan]
        return [str(value) for name, value in facts.items() if name == key or name.startswith(f"{key}.")]

    known = sorted({name for _, facts in every for name in facts} | {GPUS, PLAN, ENGINE_VERSION})
    if every and key not in known:
        raise ConfigError(
            f"--where {key}={wanted}: unknown condition{nearest(key, known)}; allowed: {', '.join(known)}"
        )
    found = [(row, facts) for row, facts in every if any(_is(key, value, wanted) for value in values(row, facts))]
    if every and not found:
        there = Counter(value for row, facts in every for value in values(row, facts))
        raise ConfigError(f"--where {key}={wanted}: no row has it; there are: {'; '.join(map(str, there))}")
    return found


def _is(key: str, value: str, wanted: str) -> bool:
    return value.startswith(wanted) if key == GPUS else value == wanted


def _shared(compared: Sequence[tuple[Row, dict[str, object]]]) -> dict[str, object]:
    """The conditions, the same for all.

    Raises:
        ConfigError: If rows differ in one; the message names it, its values, their studies, and how to keep one.
    """
    shared: dict[str, object] = {}
    for key in sorted({name for _, facts in compared for name in facts}, key=_order):
        is_version = key.startswith(ENGINE_VERSION)  # of one engine: only its own rows have it
        by_value: dict[object, list[str]] = {}
        for row, facts in compared:
            if key in facts or not is_version:
                by_value.setdefault(facts.get(key), []).append(row.study_id)
        if len(by_value) > 1:
            raise ConfigError(_differ(key, {str(value): studies for value, studies in by_value.items()}))
        shared[key] = next(iter(by_value))
    sets = grouped((row for row, _ in compared), lambda row: frozenset(row.gpu_uuids))
    if not all(small <= large for small, large in pairwise(sorted(sets, key=len))):
        raise ConfigError(
            _differ(GPUS, {",".join(rows[0].gpu_uuids): [r.study_id for r in rows] for rows in sets.values()})
        )
    return shared


def _order(key: str) -> int:
    """Evidence and the like first: where they differ the rest differs too."""
    return COLUMNS.index(key) if key in COLUMNS else len(COLUMNS)


def _differ(key: str, studies: Mapping[str, Iterable[str]]) -> str:
    said = "; ".join(f"{value} ({_listed(names)})" for value, names in studies.items())
    first = next(iter(studies))
    return (
        f"rows differ in {key}, and such rows are never ranked together: {said}; name the studies of one, or add e.g. "
        f"--where {key}='{first.split(',', maxsplit=1)[0] if key == GPUS else first}'"
    )


def _why_none(rows: Sequence[Row], studies: Sequence[str]) -> str:
    """Why there is nothing to choose from."""
    reasons = Counter(reason for row in rows for reason in row.reasons)
    said = f": {', '.join(f'{reason} ({count})' for reason, count in reasons.most_common())}" if reasons else ""
    return (
        f"no valid row in {_listed(studies)}: {len(rows)} invalid{said}; `tpw show {studies[0]}` prints "
        "them; mend the cause, and measure again"
    )


def _listed(studies: Iterable[str]) -> str:
    names = sorted(set(studies))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'study' if len(names) == 1 else 'studies'} {', '.join(names[:3])}{more}"
