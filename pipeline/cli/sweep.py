"""`tpw sweep`: search engine configurations, measure every trial, show the best."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline.cli.host import as_modelled, prepare
from pipeline.cli.running import run_study
from pipeline.errors import ConfigError

Overrides = Annotated[list[str] | None, typer.Argument(help="group=choice or key=value; groups are listed below")]
Cfg = Annotated[str | None, typer.Option("--cfg", help="print the composed configuration (job) and stop")]


def sweep(overrides: Overrides = None, cfg: Cfg = None) -> None:
    """Search engine configurations; every trial is measured and its rows land in results/.

    Of modelled hardware every config is predicted, unless a search is asked for (search=..., BUDGET=...).

    Raises:
        ConfigError: If its rows could never be scored.
    """
    prepared = prepare(overrides or [])
    if cfg is not None:
        print_conf(prepared.overrides, cfg)
        return
    if prepared.study.engine.instrumented:
        raise ConfigError(
            "engine.instrumented=true: such rows are never scored, so a sweep would find nothing; use tpw measure"
        )
    from pipeline.survey import survey
    from pipeline.sweep import sweep as run

    is_survey = prepared.study.rig == "modelled" and not any(word.startswith("search") for word in overrides or [])
    if is_survey:
        run_study(as_modelled(prepared), survey, None)
    else:
        run_study(prepared, run, prepared.study.search.budget_trials, is_ladder_chosen=True)


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
