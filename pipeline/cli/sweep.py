"""`tpw sweep`: search engine configurations, measure every trial, show the best."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline.cli.host import prepare
from pipeline.cli.running import run_study
from pipeline.errors import ConfigError

Overrides = Annotated[list[str] | None, typer.Argument(help="group=choice or key=value; groups are listed below")]
Cfg = Annotated[str | None, typer.Option("--cfg", help="print the composed configuration (job) and stop")]


def sweep(overrides: Overrides = None, cfg: Cfg = None) -> None:
    """Search engine configurations; every trial is measured and its rows land in results/.

    Raises:
        ConfigError: If its rows could never be scored.
    """
    from pipeline.sweep import sweep as run

    prepared = prepare(overrides or [])
    if cfg is not None:
        print_conf(prepared.overrides, cfg)
        return
    if prepared.study.engine.instrumented:
        raise ConfigError(
            "engine.instrumented=true: such rows are never scored, so a sweep would find nothing; use tpw measure"
        )
    run_study(prepared, run, prepared.study.search.budget_trials)


def print_conf(overrides: Sequence[str], what: str) -> None:
    """Print the composed configuration as YAML.

    Raises:
        ConfigError: If anything but `job` is asked for.
    """
    import yaml

    from pipeline.compose import compose_conf

    if what != "job":
        raise ConfigError(f"--cfg {what}: allowed: job")
    print(yaml.safe_dump(compose_conf(overrides), sort_keys=False), end="")
