"""`tpw export`: a study for another tool to look at."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import chosen_study
from pipeline.cli.terminal import terminal
from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.store import Store
from pipeline.vocabulary import TrialStatus

TOOLS = ("optuna",)


def export(
    tool: Annotated[str, typer.Argument(help=f"for which tool: {', '.join(TOOLS)}")],
    study: Annotated[str, typer.Argument(help="study id")],
    out: Annotated[Path, typer.Option("--out", help="the file to write, for optuna a journal; must not be there yet")],
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
) -> None:
    """Write a study's trials as a journal that optuna-dashboard opens.

    Raises:
        ConfigError: If there is no such tool or study, or the file is there already.
        StoreError: If the study has no complete trial, or the file cannot be written.
    """
    from pipeline.optuna_journal import write_journal
    from pipeline.resume import stored_study

    if tool not in TOOLS:
        raise ConfigError(f"tpw export {tool}: unknown{nearest(tool, TOOLS)}; allowed: {', '.join(TOOLS)}")
    store = Store(results_dir)
    study_id = chosen_study(store, study)
    trials = store.trials(study_id)
    write_journal(stored_study(store, study_id), trials, store.rows(study_id), out)
    num_stopped = Counter(trial.status for trial in trials)[TrialStatus.INTERRUPTED]
    said = f"{out}: {len(trials)} trials" + (f", {num_stopped} of them interrupted (FAIL)" if num_stopped else "")
    terminal().print(f"{said}; look at them with: optuna-dashboard {out}", soft_wrap=True, highlight=False)
