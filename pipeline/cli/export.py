"""`tpw export`: a study for another tool to look at."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.show import chosen_study
from pipeline.cli.terminal import terminal
from pipeline.compose import nearest
from pipeline.errors import ConfigError, StoreError
from pipeline.store import Store
from pipeline.vocabulary import TrialStatus

TOOLS = ("optuna", "inferencex")


def export(
    tool: Annotated[str, typer.Argument(help=f"for which tool: {', '.join(TOOLS)}")],
    study: Annotated[str, typer.Argument(help="study id")],
    out: Annotated[
        Path, typer.Option("--out", help="what to write, not there yet: for optuna a journal, for inferencex a folder")
    ],
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
) -> None:
    """Write a study's trials as a journal that optuna-dashboard opens, or its rows as points of InferenceX.

    Raises:
        ConfigError: If there is no such tool or study, what is to be written is there already, or no row is a point.
        StoreError: If the study has no complete trial, or the file cannot be written.
    """
    if tool not in TOOLS:
        raise ConfigError(f"tpw export {tool}: unknown{nearest(tool, TOOLS)}; allowed: {', '.join(TOOLS)}")
    store = Store(results_dir)
    study_id = chosen_study(store, study)
    (_optuna if tool == "optuna" else _inferencex)(terminal(), store, study_id, out)


def _optuna(console: Console, store: Store, study_id: str, out: Path) -> None:
    from pipeline.optuna_journal import write_journal
    from pipeline.resume import stored_study

    trials = store.trials(study_id)
    write_journal(stored_study(store, study_id), trials, store.rows(study_id), out)
    num_stopped = Counter(trial.status for trial in trials)[TrialStatus.INTERRUPTED]
    said = f"{out}: {len(trials)} trials" + (f", {num_stopped} of them interrupted (FAIL)" if num_stopped else "")
    console.print(f"{said}; look at them with: optuna-dashboard {out}", soft_wrap=True, highlight=False)


def _inferencex(console: Console, store: Store, study_id: str, out: Path) -> None:
    """One `agg_*.json` a row.

    Raises:
        ConfigError: If the folder holds something already, or no row is a point.
        StoreError: If it cannot be written.
    """
    from pipeline.inferencex_point import point, why_not
    from pipeline.resume import study_of

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out={out}: is there already; name another folder")
    trials = {trial.trial_id: trial for trial in store.trials(study_id)}
    rows = [row for row in store.rows(study_id) if row.trial_id in trials]
    left_out = Counter(reason for row in rows if (reason := why_not(row)))
    points = {row.row_id: point(row, study_of(trials[row.trial_id])) for row in rows if not why_not(row)}
    if not points:
        said = "; ".join(f"{count} x {reason}" for reason, count in left_out.most_common())
        raise ConfigError(f"study {study_id}: no row is a point of InferenceX: {said or 'it has no complete trial'}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for row_id, each in points.items():
            (out / f"agg_{study_id}_{row_id}.json").write_text(json.dumps(each, indent=2), "utf-8")
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error.strerror}); name another folder") from error
    num_valid = sum(each["power_valid"] for each in points.values())
    console.print(f"{out}: {len(points)} points, {num_valid} with measured power", soft_wrap=True, highlight=False)
    for reason, count in left_out.most_common():
        console.print(f"left out, {count} x: {reason}", soft_wrap=True, highlight=False)
