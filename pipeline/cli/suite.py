"""`tpw suite`: pick a few cases that track the front, and measure them again on another release."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.choose import conditions, named
from pipeline.cli.host import prepare
from pipeline.cli.running import run_study
from pipeline.cli.table import number
from pipeline.cli.terminal import terminal
from pipeline.config_text import config_text
from pipeline.engine_config import canonical_json
from pipeline.errors import ConfigError
from pipeline.store import Store
from pipeline.vocabulary import TrialStatus

suite = typer.Typer(no_args_is_help=True, add_completion=False)

Given = Annotated[list[str] | None, typer.Argument(help="study ids, or patterns such as 'h100-*'; the latest study")]
Where = Annotated[list[str] | None, typer.Option("--where", help="KEY=VALUE: only rows of this condition; repeatable")]


@suite.command(help="Write the smallest set of cases that still tracks the front and the winner; measures nothing.")
def pick(  # an option each
    name: Annotated[str, typer.Argument(help="of the suite; begins the names of its studies")],
    studies: Given = None,
    where: Where = None,
    slo: Annotated[str | None, typer.Option(help="choice of conf/slo; else that of the studies")] = None,
    tolerance: Annotated[str, typer.Option(help="how far below the front a case may lie that stands for it")] = "5%",
    out: Annotated[Path, typer.Option("--out", help="folder for the file NAME.yaml")] = Path("suites"),
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
) -> None:
    """Pick a suite.

    Raises:
        ConfigError: If an option is wrong, rows cannot be compared, nothing meets the SLO, or the file is there.
        StoreError: If rows cannot be read, or the file cannot be written.
    """
    from pipeline.choose.conditions import comparable
    from pipeline.choose.owed import owed
    from pipeline.resume import study_of
    from pipeline.suite.pick import pick as fewest
    from pipeline.suite.suite import suite_of, write_suite
    from pipeline.track.track import share

    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ConfigError(f"suite {name!r}: use letters, digits, '.', '_' and '-' only; it names a file")
    below = share("--tolerance", tolerance)
    store = Store(results_dir)
    pool = comparable(store, named(store, studies or []), conditions(where or []))
    held = {trial.study_json: trial for trial in (pool.trials[row.trial_id] for row in pool.rows)}
    picks, num_front = fewest(pool, owed([study_of(trial).slo for trial in held.values()], slo, {}), below)
    made = suite_of(name, picks, pool, below)
    path = write_suite(out, made)
    console = terminal()
    num_cases = len({row.case_id for row in pool.rows})
    said = f"{len(picks)} of {num_cases} cases, {len(made.members)} engine starts"
    for member in made.members:
        loads = ", ".join(f"{load:g}" for load in member.loads)
        mark = "  (the winner)" if member.is_winner else ""
        console.print(f"{config_text(canonical_json(member.config))}: load {loads}{mark}", markup=False, soft_wrap=True)
    console.print(
        f"{said}, stand for the {num_front} points of the front within {number(100 * below)} %",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"{path}: measure it with tpw suite run {path}", markup=False, soft_wrap=True)


@suite.command(help="Measure every case of a suite afresh, on the engine that is here now.")
def run(
    file: Annotated[Path, typer.Argument(help="what `tpw suite pick` wrote")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="of this machine and release: engine.python= engine.image= model.path= ..."),
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="fresh engine starts of each config")] = 1,
) -> None:
    """Run a suite.

    Raises:
        ConfigError: If the file is no suite, or other cases than its own would be measured.
        Exit: With status 1 if a config could not be measured.
    """
    from pipeline.repeat import measure_once
    from pipeline.suite.suite import on_release, only, read_suite, words_of

    asked = read_suite(file)
    prepared = []
    for member in asked.members:  # all of them before anything is announced or written
        ready = prepare(words_of(asked, member, overrides or []))
        prepared.append((member, replace(ready, study=only(asked, member, ready.study))))
    is_whole = True
    for _ in range(starts):
        for member, ready in prepared:
            study = run_study(ready, measure_once, 1, name=partial(on_release, asked, member))
            is_whole &= Store(Path(study.results_dir)).trials(study.id)[-1].status is TrialStatus.OK
    if not is_whole:
        raise typer.Exit(1)
