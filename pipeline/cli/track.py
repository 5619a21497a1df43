"""`tpw track`: what newer software, other hardware or another config gained, and where it was lost."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.bounds import E2eBound, Percentile, SloName, TpotBound, TtftBound, Where, bounds_of
from pipeline.cli.choose import conditions, named
from pipeline.cli.terminal import terminal
from pipeline.errors import ConfigError
from pipeline.store import Store

Given = Annotated[list[str] | None, typer.Argument(help="study ids, or patterns such as 'nightly-*'; else all")]
Side = "engine version, or KEY=VALUE (repeatable): driver_version, image, hardware, plan, gpu_uuids, study_id ..."

TOLERANCE = 0.25


def track(  # noqa: PLR0913, PLR0917  # an option each
    studies: Given = None,
    before: Annotated[list[str] | None, typer.Option("--before", help=f"{Side}; else the first release")] = None,
    after: Annotated[list[str] | None, typer.Option("--after", help="likewise; else the last release")] = None,
    where: Where = None,
    slo: SloName = None,
    ttft_s: TtftBound = None,
    tpot_s: TpotBound = None,
    e2e_s: E2eBound = None,
    percentile: Percentile = "p99",
    fail_on_regression: Annotated[
        str | None,
        typer.Option("--fail-on-regression", help="e.g. 3%: exit 1 if a drop of that size has not come back"),
    ] = None,
    against: Annotated[
        Literal["inferencex", "mlenergy"] | None,
        typer.Option(help="instead: rows beside this tool's published points (docs/import.md)"),
    ] = None,
    boundary: Annotated[Literal["gpu", "facility"], typer.Option(help="with --against")] = "gpu",
    tolerance: Annotated[float, typer.Option(help="with --against: of ISL and OSL")] = TOLERANCE,
    allow_random_weights: Annotated[
        bool, typer.Option("--allow-random-weights", help="with --against: place rows of random weights too")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print what was found as JSON (docs/track.md)")] = False,
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
) -> None:
    """Compare stored rows over releases.

    Raises:
        ConfigError: If an option is wrong, or nothing can be compared.
        StoreError: If rows cannot be read.
        Exit: With status 1 if a regression that is asked for was found.
    """
    store = Store(results_dir)
    of = named(store, studies or ["*"])
    if against is not None:
        from pipeline.against.side_by_side import Asked as AskedOfPoints
        from pipeline.cli.against import against as place
        from pipeline.vocabulary import Boundary

        if any((before, after, where, slo, ttft_s, tpot_s, e2e_s, fail_on_regression)):
            raise ConfigError(
                f"--against={against}: places rows of one time; leave out --before, --after, --where, bounds of an SLO "
                "and --fail-on-regression"
            )
        asked_of_points = AskedOfPoints(
            boundary=Boundary(boundary), tolerance=tolerance, allow_random_weights=allow_random_weights
        )
        place(terminal(), store, against, of, asked_of_points, as_json=as_json)
        return
    if boundary != "gpu" or tolerance != TOLERANCE or allow_random_weights:
        raise ConfigError(
            "--boundary, --tolerance and --allow-random-weights: are about published points; add --against, or leave "
            "them out (--where boundary=... restricts the rows)"
        )
    from pipeline.choose.decision import plain
    from pipeline.choose.owed import owed
    from pipeline.cli.tracked import print_tracking
    from pipeline.resume import study_of
    from pipeline.track.sides import wanted
    from pipeline.track.track import Asked, history_of, share
    from pipeline.track.track import track as compare

    asked = Asked(
        where=conditions(where or []),
        before=wanted("--before", before or []),
        after=wanted("--after", after or []),
        regression=None if fail_on_regression is None else share("--fail-on-regression", fail_on_regression),
    )
    history = history_of(store, of, asked)
    held = {trial.study_json: trial for trial in (history.trials[start.row.trial_id] for start in history.starts)}
    bounds = bounds_of(percentile, ttft_s, tpot_s, e2e_s)
    found = compare(history, owed([study_of(trial).slo for trial in held.values()], slo, bounds), asked)
    if as_json:
        print(json.dumps(plain(found), indent=1))
    else:
        print_tracking(found, terminal())
    if found.is_regressed:
        raise typer.Exit(1)
