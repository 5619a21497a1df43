"""`tpw repeatability`: start one configuration afresh, again and again, and say how far the results agree."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.host import prepare, with_default_knobs
from pipeline.cli.running import run_study
from pipeline.cli.terminal import terminal
from pipeline.errors import ConfigError
from pipeline.store import Store


def repeatability(
    overrides: Annotated[list[str] | None, typer.Argument(help="group=choice or key=value; plan.starts=N")] = None,
    only_report: Annotated[bool, typer.Option("--report", help="measure nothing; every case in the results")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
    results_dir: Annotated[Path, typer.Option("--results", help="results folder, with --report")] = Path("results"),
) -> None:
    """Measure one configuration over several fresh starts, then tell components of spread from all its rows.

    Raises:
        ConfigError: If the axes span several configurations, or there is nothing to report.
    """
    from pipeline.cli.repeatability import case_results, report, weights_results
    from pipeline.repeat import on_gpu, only_config, repeat

    if only_report:
        if overrides:
            raise ConfigError(f"--report: measures nothing, so {overrides[0]} has no use; leave it out")
        store = Store(results_dir)
        rows = [row for study in store.studies() for row in store.rows(study)]
        if not rows:
            raise ConfigError(f"--results={results_dir}: holds no row; name another folder")
    else:
        prepared = with_default_knobs(prepare(overrides or []))
        only_config(prepared.study)  # before anything is announced or written
        study = run_study(
            prepared, repeat, prepared.study.plan.starts, name=lambda study, rig: on_gpu(study, rig.first_gpu)
        )
        store = Store(Path(study.results_dir))
        own = {row.case_id for row in store.rows(study.id)}
        rows = [row for name in store.studies() for row in store.rows(name) if row.case_id in own]
    if as_json:
        print(json.dumps({"cases": case_results(rows), "weights": weights_results(rows)}, indent=1))
    else:
        report(rows, terminal())
