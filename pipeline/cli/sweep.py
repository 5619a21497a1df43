"""`tpw sweep`: search engine configurations, measure every trial, show the best."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.display import LiveDisplay, PlainDisplay
from pipeline.cli.host import Prepared, prepare
from pipeline.cli.show import print_results
from pipeline.cli.terminal import terminal

Overrides = Annotated[list[str] | None, typer.Argument(help="group=choice or key=value; groups are listed below")]
Cfg = Annotated[str | None, typer.Option("--cfg", help="print the composed configuration (job) and stop")]


def sweep(overrides: Overrides = None, cfg: Cfg = None) -> None:
    """Search engine configurations; every trial is measured and its rows land in results/.

    Raises:
        Exit: With status 130 after Ctrl-C.
    """
    import resource
    import signal

    from pipeline.rig.catalog import open_rig
    from pipeline.store import Store
    from pipeline.sweep import sweep as run

    console = terminal()
    prepared = prepare(overrides or [])
    if cfg is not None:
        print_conf(prepared.overrides, cfg)
        return
    study = prepared.study
    store = Store(Path(study.results_dir))
    store.check_writable(study.id)
    rig = open_rig(study)
    announce(console, prepared, rig.describe())
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # each request in flight is an open file
    # A polite kill ends like Ctrl-C: rows kept, engine stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    display = (LiveDisplay if console.is_terminal else PlainDisplay)(console, study, store.trials(study.id))
    try:
        with display:
            run(study, rig, store, display)
    except KeyboardInterrupt:
        print_results(console, study, store)
        console.print(f"\nstopped; {len(store.rows(study.id))} rows are kept. The same command resumes.")
        raise typer.Exit(130) from None
    print_results(console, study, store)


def announce(console: Console, prepared: Prepared, lines: list[str]) -> None:
    """Say what was decided and what will be measured."""
    study = prepared.study
    for note in prepared.notes:
        console.print(note, style="bold yellow" if study.rig == "modelled" else "yellow", soft_wrap=True)
    loads = ", ".join(str(load) for load in study.workload.concurrency)
    console.print(f"study {study.id}: budget {study.search.budget_trials} trials, loads {loads}", soft_wrap=True)
    for line in lines:
        console.print(line, soft_wrap=True)


def print_conf(overrides: Sequence[str], what: str) -> None:
    """Print the composed configuration as YAML.

    Raises:
        ConfigError: If anything but `job` is asked for.
    """
    import yaml

    from pipeline.config import compose_conf
    from pipeline.errors import ConfigError

    if what != "job":
        raise ConfigError(f"--cfg {what}: allowed: job")
    print(yaml.safe_dump(compose_conf(overrides), sort_keys=False), end="")
