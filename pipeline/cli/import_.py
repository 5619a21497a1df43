"""`tpw import`: other tools' results as rows of studies of their own."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.table import number
from pipeline.cli.terminal import terminal
from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.importers.composed import compose_study, own_values
from pipeline.importers.records import IMPORTED, records, row_id_of, trial_id_of
from pipeline.importers.reported import Reported
from pipeline.importers.tools import IMPORTERS, read_foreign
from pipeline.record import Row, Trial
from pipeline.store import Store
from pipeline.study import Study

MAX_LINES = 8
"""Of rows, or of reasons, that are printed for one file; of more there is a summary."""

MAX_FULL = 3
"""Reasons that are printed with their remedy; of more the list of choices would hide them."""

Made = tuple[Study, Trial, Row]


def import_(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TOOL] FILE... [KEY=VALUE...]",
            help=f"files or patterns; which tool's, {', '.join(IMPORTERS)}, they tell, or it is named first; what they "
            "do not say: model= hardware= engine= parallelism.tp= precision.weights= concurrency= study= ...",
        ),
    ],
) -> None:
    """Make rows of other tools' results.

    Raises:
        ConfigError: If nothing could be imported, a word is no file, or the study has rows of our own.
        StoreError: If rows cannot be stored.
    """
    tool, paths, overrides = _sorted_out(words)
    concurrency = own_values(overrides).get("concurrency")
    results_dir = next((text.partition("=")[2] for text in overrides if text.startswith("results_dir=")), "results")
    console, store = terminal(), Store(Path(results_dir))
    known = {trial.trial_id: study for study in store.studies() for trial in store.trials(study)}
    rejected, notes = list[str](), Counter[str]()
    num_added = num_there = 0
    for path in paths:
        try:
            read = read_foreign(path, tool)
        except ConfigError as error:
            rejected.append(str(error))
            continue
        there = [each for each in read.reported if trial_id_of(each) in known]
        rejected += read.rejected
        made: list[Made] = []
        for each in read.reported:
            if trial_id_of(each) not in known:
                try:
                    study, config = compose_study(each, overrides)
                    made.append((study, *records(each, study, config, len(made), concurrency)))
                except ConfigError as error:
                    rejected.append(str(error))
                    continue
                known[trial_id_of(each)] = study.id
                notes.update(each.notes)
        _append(store, made)
        _print_rows(console, path, made, there, known)
        num_added, num_there = num_added + len(made), num_there + len(there)
    if not num_added + num_there and len(rejected) == 1:
        raise ConfigError(rejected[0])
    _print_rejected(console, rejected)
    if not num_added + num_there:
        raise ConfigError(
            f"nothing could be imported: {len(rejected)} files or entries rejected, for the reasons above"
        )
    if notes:
        _say(console, "not mapped, or only so:")
    for note, count in notes.most_common():
        _say(console, f"{count:5} x  {note}")


def _sorted_out(words: Sequence[str]) -> tuple[str | None, list[Path], list[str]]:
    """The tool, the files (JSON first, which says most of a run), and the overrides.

    Raises:
        ConfigError: If a word is none of these, or there is no file.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    rest = [word for word in words if word not in overrides]
    tool = rest.pop(0) if rest and rest[0] in IMPORTERS and not Path(rest[0]).exists() else None
    paths: dict[Path, None] = {}
    for position, word in enumerate(rest):
        pattern = Path(word).expanduser()
        found = (
            [pattern]
            if pattern.exists()
            else sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
        )
        if not found and position == 0 and tool is None and len(rest) > 1:
            raise ConfigError(
                f"tpw import {word}: unknown{nearest(word, list(IMPORTERS))}; allowed: {', '.join(IMPORTERS)}"
            )
        if not found:
            raise ConfigError(f"{word}: there is no such file; give the results of {tool or ', '.join(IMPORTERS)}")
        paths |= dict.fromkeys(path for path in found if path.is_file())
    if not paths:
        raise ConfigError(f"tpw import: names no file; give the results of {tool or ', '.join(IMPORTERS)}")
    return tool, sorted(paths, key=lambda path: path.suffix != ".json"), overrides


def _append(store: Store, made: Sequence[Made]) -> None:
    """Store the rows of one file, study by study, and then their trials, which mark them complete.

    Raises:
        ConfigError: If a study has rows that were measured here.
        StoreError: If they cannot be stored.
    """
    for study_id, group in grouped(made, lambda each: each[0].id).items():
        with store.lock(study_id):
            trials, rows = store.trials(study_id), store.rows(study_id)
            if any(trial.proposed_by != IMPORTED for trial in trials) or any(row.origin != IMPORTED for row in rows):
                raise ConfigError(
                    f"study={study_id}: has rows measured here, which imported ones never join; name another"
                )
            stored = {row.row_id for row in rows}  # of an import that was killed before it wrote the trials
            if new := [row for _, _, row in group if row.row_id not in stored]:
                store.append_all(new)
            store.append_all(
                [dataclasses.replace(trial, number=len(trials) + place) for place, (_, trial, _) in enumerate(group)]
            )


def _print_rows(
    console: Console, path: Path, made: Sequence[Made], there: Sequence[Reported], known: Mapping[str, str]
) -> None:
    """A line for each row, or one for all of a file that has many."""
    if len(there) > MAX_LINES:
        _say(console, f"{path}: {len(there)} entries are rows already; nothing added for these")
    for each in there if len(there) <= MAX_LINES else ():
        study_id = known[trial_id_of(each)]
        _say(console, f"{each.where}: is row {row_id_of(each)} of study {study_id} already; nothing added")
    if len(made) > MAX_LINES:
        states = Counter(f"{row.status} {' '.join(row.reasons)}".strip() for _, _, row in made)
        said = ", ".join(f"{count} {state}" for state, count in states.most_common())
        names = ", ".join(sorted({study.id for study, _, _ in made}))
        _say(console, f"{path}: {len(made)} rows of study {names}: {said}; {_kind(made[0][2])}")
    for study, _, row in made if len(made) <= MAX_LINES else ():
        _say(
            console,
            f"row {row.row_id} of study {study.id}: {row.status}, {number(row.output_tokens_per_joule)} tok/J, "
            f"{number(row.output_tokens_per_s)} tok/s at load {row.load_text}; {_kind(row)}; "
            f"{', '.join([*row.reasons, *row.warnings])}",
        )


def _kind(row: Row) -> str:
    tool = " ".join(filter(None, (row.source_tool, row.source_tool_version)))
    return f"origin={row.origin} ({tool}), evidence={row.evidence}, boundary={row.boundary}"


def _print_rejected(console: Console, rejected: Sequence[str]) -> None:
    """Each reason once, with the first entry that it holds for."""
    first: dict[str, str] = {}
    counts = Counter[str]()
    for text in rejected:
        place, _, reason = text.partition(": ")
        first.setdefault(reason, place)
        counts[reason] += 1
    for reason, count in counts.most_common():
        more = f" (and {count - 1} more like it)" if count > 1 else ""
        text = reason if len(counts) <= MAX_FULL else reason.split("; ")[0]
        console.print(
            f"rejected {first[reason]}{more}: {text}", style="red", soft_wrap=True, highlight=False, markup=False
        )


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
