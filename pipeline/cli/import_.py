"""`tpw import`: another tool's report as a row of a study of its own."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.table import number
from pipeline.cli.terminal import terminal
from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.store import Store

TOOLS = ("trtllm-bench",)


def import_(
    tool: Annotated[str, typer.Argument(help=f"whose report: {', '.join(TOOLS)}")],
    report: Annotated[Path, typer.Argument(help="the file, of trtllm-bench that of --report_json")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="what the report does not say: model= hardware= concurrency= precision.weights= study= ..."
        ),
    ] = None,
) -> None:
    """Make a row of another tool's report.

    Raises:
        ConfigError: If the report cannot be read or does not say enough, or the study has rows of our own.
        StoreError: If the row cannot be stored.
    """
    from pipeline.importers.records import IMPORTED, compose_study, records
    from pipeline.importers.trtllm_bench import read_report

    if tool not in TOOLS:
        raise ConfigError(f"tpw import {tool}: unknown{nearest(tool, TOOLS)}; allowed: {', '.join(TOOLS)}")
    words = list(overrides or [])
    concurrency = _concurrency(words)
    read = read_report(report)
    study, config = compose_study(read, words)
    console, store = terminal(), Store(Path(study.results_dir))
    with store.lock(study.id):
        trials, rows = store.trials(study.id), store.rows(study.id)
        if any(t.proposed_by != IMPORTED for t in trials) or any(row.origin != IMPORTED for row in rows):
            raise ConfigError(f"study={study.id}: has rows measured here, which imported ones never join; name another")
        trial, row = records(read, study, config, len(trials), concurrency)
        known = next((s for s in store.studies() for t in store.trials(s) if t.trial_id == trial.trial_id), None)
        if known is not None:
            console.print(f"{report}: is row {row.row_id} of study {known} already; nothing added", soft_wrap=True)
            return
        store.append(row)
        store.append(trial)
    said = (
        f"row {row.row_id} of study {study.id}: {row.status}, {number(row.output_tokens_per_joule)} tok/J, "
        f"{number(row.output_tokens_per_s)} tok/s at load {row.load_text}; {', '.join([*row.reasons, *row.warnings])}"
    )
    console.print(said, soft_wrap=True, highlight=False)
    if concurrency is None:
        note = (
            "the load is the mean in flight, as a report does not say what was asked for; of the next say concurrency=N"
        )
        console.print(note, soft_wrap=True, highlight=False)


def _concurrency(words: list[str]) -> int | None:
    """The number after `concurrency=`.

    Raises:
        ConfigError: If it is none.
    """
    text = next((word.partition("=")[2] for word in words if word.startswith("concurrency=")), None)
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"concurrency={text}: write the number of requests that trtllm-bench kept in flight")
    return None if text is None else int(text)
