"""A file of another tool into the store: its measurements as rows, once, and what became of the rest."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.importers.composed import compose_study, own_values
from pipeline.importers.model_name import checkpoint
from pipeline.importers.records import IMPORTED, records, row_id_of, trial_id_of
from pipeline.importers.reported import Reported
from pipeline.importers.tools import read_foreign
from pipeline.record import Row, Trial
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class There:
    """A measurement that is a row already: the entry, the row, its study."""

    where: str
    row_id: str
    study_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file.

    Attributes:
        added: Rows that were stored.
        there: Measurements that were rows before.
        rejected: Why each other entry is none, in a sentence that begins with the entry.
        notes: For each row, what of it could not be mapped, or was taken for something.
    """

    added: tuple[Row, ...] = ()
    there: tuple[There, ...] = ()
    rejected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def known_trials(store: Store) -> dict[str, str]:
    """The study of every stored trial, by which a measurement is recognised.

    Raises:
        StoreError: If a file cannot be read.
    """
    return {trial.trial_id: study for study in store.studies() for trial in store.trials(study)}


def import_file(store: Store, path: Path, tool: str | None, overrides: Sequence[str], known: dict[str, str]) -> Outcome:
    """Store what a file holds; one that cannot be read is a rejected entry.

    Args:
        store: Where to.
        path: The file.
        tool: Whose it is; None recognises it.
        overrides: What the file does not say.
        known: From `known_trials`; grows by what is added.

    Raises:
        ConfigError: If an override is wrong whatever the file, or the study has rows that were measured here.
        StoreError: If rows cannot be stored.
    """
    concurrency = own_values(overrides).get("concurrency")
    try:
        read = read_foreign(path, tool)
    except ConfigError as error:
        return Outcome(rejected=(str(error),))
    made: list[tuple[Trial, Row]] = []
    there, rejected, notes = list[There](), list(read.rejected), list[str]()
    for each in read.reported:
        key = trial_id_of(each)
        if key in known:
            there.append(There(each.where, row_id_of(each), known[key]))
            continue
        try:
            study, config = compose_study(each, overrides)
            made.append(records(each, study, config, 0, concurrency))
        except ConfigError as error:
            rejected.append(str(error))
            continue
        known[key] = study.id
        notes += _notes(each, study.model.name, is_load_given=concurrency is not None)
    _append(store, made)
    return Outcome(tuple(row for _, row in made), tuple(there), tuple(rejected), tuple(notes))


def _notes(reported: Reported, model: str, *, is_load_given: bool) -> list[str]:
    """What could not be mapped, or was taken for something: beside what the importer says, the model and the load."""
    is_listed = checkpoint(reported.model)[1] is not None
    is_load_known = reported.concurrency or reported.request_rate_per_s or is_load_given
    return [
        *([] if is_listed else [f"model: {reported.model or '(not said)'} taken for {model}"]),
        *(
            []
            if is_load_known
            else ["load: the mean in flight, for what was asked for is not said; else concurrency=N"]
        ),
        *reported.notes,
    ]


def _append(store: Store, made: Sequence[tuple[Trial, Row]]) -> None:
    """Store the rows, study by study, and then their trials, which mark them complete.

    Raises:
        ConfigError: If a study has rows that were measured here.
        StoreError: If they cannot be stored.
    """
    for study_id, group in grouped(made, lambda each: each[1].study_id).items():
        with store.lock(study_id):
            trials, rows = store.trials(study_id), store.rows(study_id)
            if any(trial.proposed_by != IMPORTED for trial in trials) or any(row.origin != IMPORTED for row in rows):
                raise ConfigError(
                    f"study={study_id}: has rows measured here, which imported ones never join; name another"
                )
            stored = {row.row_id for row in rows}  # of an import that was killed before it wrote the trials
            if new := [row for _, row in group if row.row_id not in stored]:
                store.append_all(new)
            numbered = enumerate((trial for trial, _ in group), start=len(trials))
            store.append_all([dataclasses.replace(trial, number=number) for number, trial in numbered])
