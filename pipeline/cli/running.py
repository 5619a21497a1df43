"""What the commands that measure share: limits, signals, a display, and what to print when it is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from pipeline.cli.display import LiveDisplay, PlainDisplay
from pipeline.cli.show import print_results
from pipeline.cli.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from pipeline.cli.host import Prepared
    from pipeline.rig.protocol import Rig
    from pipeline.store import Store
    from pipeline.study import Study
    from pipeline.sweep import SweepProgress


class Run(Protocol):
    """Measures a study: `sweep`, or `repeat` of one config."""

    def __call__(self, study: Study, rig: Rig, store: Store, progress: SweepProgress) -> None:
        """Measure and store."""
        ...


def run_study(
    prepared: Prepared,
    run: Run,
    num_trials: int | None,
    *,
    name: Callable[[Study, Rig], Study] | None = None,
    is_ladder_chosen: bool = False,
) -> Study:
    """Measure a prepared study under a display, and print its results; returns it under the name it got.

    Args:
        prepared: The study and what was decided for it.
        run: What measures it.
        num_trials: Engine starts to expect, for the display; None where none is started.
        name: Names a study that got no name, once the rig says on what it runs.
        is_ladder_chosen: Whether loads are as `search.ladder` says; else every load of the workload is measured.

    Raises:
        Exit: With status 130 after Ctrl-C.
    """
    import resource
    import signal

    from pipeline.rig.catalog import open_rig
    from pipeline.store import Store

    console, study = terminal(), prepared.study
    store = Store(Path(study.results_dir))
    store.check_writable(study.id)
    rig = open_rig(study)
    if name is not None and not any(text.startswith("study=") for text in prepared.overrides):
        study = name(study, rig)
        rig.study = replace(rig.study, id=study.id)  # its rows go where its trials do
    trials = "every feasible config" if num_trials is None else f"{num_trials} trials at most"
    loads = _loads(study, is_ladder_chosen=is_ladder_chosen)
    _announce(console, prepared, [f"study {study.id}: {trials}, loads {loads}", *rig.describe()])
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # each request in flight is an open file
    # A polite kill ends like Ctrl-C: rows kept, engine stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    display = (LiveDisplay if console.is_terminal else PlainDisplay)(console, num_trials or 0, store.trials(study.id))
    try:
        with display:
            run(study, rig, store, display)
    except KeyboardInterrupt:
        print_results(console, study, store)
        console.print(f"\nstopped; {len(store.rows(study.id))} rows are kept. The same command resumes.")
        raise typer.Exit(130) from None
    print_results(console, study, store)
    return study


def _announce(console: Console, prepared: Prepared, lines: list[str]) -> None:
    """Say what was decided and what will be measured."""
    for note in prepared.notes:
        is_modelled = prepared.study.rig == "modelled"
        console.print(note, style="bold yellow" if is_modelled else "yellow", soft_wrap=True)
    for line in lines:
        console.print(line, soft_wrap=True)


def _loads(study: Study, *, is_ladder_chosen: bool) -> str:
    """The loads of a trial, in words."""
    points = study.workload.ladder
    if is_ladder_chosen and study.search.ladder == "adaptive" and len(points) > 1:
        return f"chosen from {points[0]} to {points[-1]}"
    return ", ".join(map(str, points))
