"""`tpw show`: print the results of a study again, from its rows alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.bill import baseline_gain, bill
from pipeline.cli.bill import bill_lines, payback_line
from pipeline.cli.gain import gain_lines
from pipeline.cli.table import failures, result_tables
from pipeline.cli.terminal import terminal
from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.held import VERIFY
from pipeline.recipe_gain import recipe_gains
from pipeline.record import Trial
from pipeline.store import Store
from pipeline.study import Study


def show(
    study: Annotated[str | None, typer.Argument(help="study id; the latest if left out")] = None,
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
) -> None:
    """Print the best configurations of a study from its rows.

    Raises:
        ConfigError: If there is no such study.
    """
    store = Store(results_dir)
    study_id = chosen_study(store, study)
    from pipeline.resume import stored_study

    print_results(terminal(), stored_study(store, study_id), store)


def chosen_study(store: Store, study: str | None) -> str:
    """The id of a stored study; of the latest if none is asked for, bundles that were started again left out.

    Raises:
        ConfigError: If there is no such study.
    """
    studies = store.studies()
    if not studies:
        raise ConfigError(
            f"--results={store.results_dir}: holds no study; run `make sweep` first, or name another folder"
        )
    if study is not None and study not in studies:
        raise ConfigError(f"study {study!r}: unknown{nearest(study, studies)}; there are: {', '.join(studies)}")
    own = [name for name in studies if not name.startswith(VERIFY)]
    return study or max(own or studies, key=lambda name: store.study_dir(name).stat().st_mtime)


def print_results(console: Console, study: Study, store: Store) -> None:
    """The tables, the gain over recipes, the failures, what it all cost and where the rows are."""
    rows, trials = store.rows(study.id), store.trials(study.id)
    tables = result_tables(rows, trials, study, console.width)
    for table in tables:
        console.print()
        console.print(table)
    if not tables:
        console.print("\nno valid row yet")
    from pipeline.cli.finals import finals_lines  # statistics, which few commands need

    gains = gain_lines(recipe_gains(rows, trials, study.slo), study.slo)
    for line in (*gains, *finals_lines(study, trials, rows), *_bound_lines(trials)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for line in failures(trials):
        console.print(line, style="red", highlight=False, soft_wrap=True, markup=False)
    invalid = [row for row in rows if row.reasons]
    for row in invalid:
        text = f"row {row.row_id} load {row.load_text} is {row.status}: {', '.join(row.reasons)}"
        console.print(text, style="red", highlight=False)
    if (spent := bill(study, trials, rows)) is not None:
        lines = bill_lines(spent)
        if len({trial.config_hash for trial in trials}) > 1:
            lines.append(payback_line(spent, baseline_gain(rows, trials, study.slo), study.slo))
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"{len(rows)} rows of {len(trials)} trials: {store.study_dir(study.id)}/  (`tpw show {study.id}` prints this)",
        highlight=False,
        soft_wrap=True,
    )


def _bound_lines(trials: Sequence[Trial]) -> list[str]:
    """How good the bound is by which `search.prune` cuts."""
    from pipeline.search.score_bound import coverage

    held, count = coverage(trials)
    return [f"bound of the score, taken after the first load: held in {held} of {count} trials"] if count else []
