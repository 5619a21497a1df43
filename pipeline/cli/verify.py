"""`tpw verify`: recompute stored rows from their evidence, or a production bundle's hashes; fail where they differ."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.terminal import terminal
from pipeline.compose import nearest
from pipeline.errors import ConfigError, StoreError
from pipeline.record import Row
from pipeline.store import Store
from pipeline.study import Study


def verify(
    which: Annotated[
        list[str] | None,
        typer.Argument(help="row ids (or beginnings), study ids, or folders of engines/production; all rows if none"),
    ] = None,
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
    live: Annotated[bool, typer.Option("--live", help="start a bundle again, measure its load, compare")] = False,
    engines_dir: Annotated[Path, typer.Option("--engines", help="with --live: folder for its start")] = Path("engines"),
    python: Annotated[
        str | None, typer.Option("--python", help="with --live: the engine's interpreter, if it is another here")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="with --live: the model's folder, likewise")] = None,
) -> None:
    """Recompute rows from their traces, and bundles from their files.

    Raises:
        ConfigError: If there is no such row, study or bundle, or nothing to recompute.
        Exit: With status 1 if a row does not follow from its evidence, or a bundle is not what was measured.
    """
    store, console = Store(results_dir), terminal()
    bundles = [Path(word) for word in which or () if Path(word).is_dir()]
    if live and not bundles:
        raise ConfigError("--live: starts a production bundle; name its folder, e.g. engines/production/NAME")
    if not bundles:
        return _verify_rows(console, store, which or ())
    if len(bundles) < len(which or ()):
        raise ConfigError(f"{' '.join(which or ())}: name bundles or rows, not both at once")
    from pipeline.cli.bundle import say_measured_again, say_verified

    good = [say_verified(console, folder, store) for folder in bundles]
    if live and all(good):
        good += [say_measured_again(console, folder, store, engines_dir, python, model) for folder in bundles]
    if not all(good):
        raise typer.Exit(1)
    return None


def _verify_rows(console: Console, store: Store, which: Sequence[str]) -> None:
    from pipeline.resume import stored_study
    from pipeline.rig.verify import verify as recompute
    from pipeline.trace_file import from_table

    studies: dict[str, Study] = {}
    num_bad = 0
    rows = find_rows(store, which)
    recorded = [row for row in rows if row.trace_file is not None]
    here = [row for row in recorded if (store.results_dir / str(row.trace_file)).parent.is_dir()]
    for row in here:
        name = f"row {row.row_id} ({row.study_id}, load {row.load_text})"
        try:
            trace = from_table(store.read_trace(row))
            if trace.context is None and row.study_id not in studies:
                studies[row.study_id] = stored_study(store, row.study_id)
        except StoreError as error:
            num_bad += 1
            console.print(f"{name}: {error}", style="bold red", soft_wrap=True)
            continue
        found = recompute(row, trace, studies.get(row.study_id))
        for difference in found.differences:
            console.print(
                f"{name}: {difference.column} is stored as {difference.stored}, its evidence gives "
                f"{difference.recomputed}", style="bold red", soft_wrap=True,
            )  # fmt: skip
        num_bad += bool(found.differences)
        if not found.differences:
            left = f", {len(found.not_compared)} not compared" if found.not_compared else ""
            console.print(f"{name}: {found.num_equal} columns follow from its evidence{left}", soft_wrap=True)
            if row.method == 1 and len(rows) == 1:
                console.print(f"  not compared, as method 1 had other formulae or did not record: "
                              f"{', '.join(found.not_compared)}", soft_wrap=True)  # fmt: skip
    elsewhere = Counter(row.study_id for row in recorded) - Counter(row.study_id for row in here)
    for study_id, count in elsewhere.items():
        console.print(f"{study_id}: none of its traces is here, so {count} rows were not checked", style="yellow",
                      soft_wrap=True)  # fmt: skip
    num_good, num_modelled = len(here) - num_bad, len(rows) - len(recorded)
    others = f", {num_modelled} are modelled or imported and have none" if num_modelled else ""
    console.print(f"{num_good} rows follow from their evidence, {num_bad} do not{others}", soft_wrap=True)
    if num_bad or not num_good:
        raise typer.Exit(1)


def find_rows(store: Store, which: Sequence[str]) -> list[Row]:
    """The rows that are meant.

    Raises:
        ConfigError: If one of the words is no row and no study.
    """
    studies = store.studies()
    if not studies:
        raise ConfigError(f"--results={store.results_dir}: holds no study; name another folder")
    every = [row for study in studies for row in store.rows(study)]
    if not which:
        return every
    found: list[Row] = []
    for word in which:
        matches = [row for row in every if row.study_id == word] or [r for r in every if r.row_id.startswith(word)]
        if not matches:
            raise ConfigError(f"{word!r}: no row and no study{nearest(word, studies)}; studies: {', '.join(studies)}")
        if len(matches) > 1 and matches[0].study_id != word:
            raise ConfigError(f"{word!r}: is the beginning of {len(matches)} row ids; write more of it")
        found += matches
    return found
