"""`tpw calibrate`: fit the model's constants to measured rows, and say how far off the model is before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli.terminal import terminal
from pipeline.cli.verify import find_rows
from pipeline.grouping import grouped
from pipeline.roofline.calibration import CONSTANTS, SHIPPED, Calibration
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.calibrate import Others, Usable

SHOWN_CHANGE = 0.05
"""Constants that moved by less are not listed."""


def calibrate_(
    rows: Annotated[list[str], typer.Argument(help="row ids (or beginnings), or study ids")],
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
    out: Annotated[Path | None, typer.Option("--out", help="folder for the file; else results/calibrations")] = None,
    around: Annotated[
        Path | None, typer.Option("--around", help="calibration to start from; else the shipped one")
    ] = None,
) -> None:
    """Fit the constants and store them.

    Raises:
        ConfigError: If there is no such row or study, too few are usable, or engines or weights are mixed.
    """
    from pipeline.calibrate import calibrate, errors_of_others, usable
    from pipeline.resume import stored_study
    from pipeline.roofline.calibration_file import read_calibration, write_calibration

    store, console = Store(results_dir), terminal()
    base = SHIPPED if around is None else read_calibration(around)
    chosen = find_rows(store, rows)
    found = usable(chosen, {name: stored_study(store, name) for name in {row.study_id for row in chosen}})
    others = errors_of_others(found, base)
    calibration = calibrate(found, base, others)
    path = write_calibration(calibration, out or results_dir / "calibrations")
    _show(console, found, base, calibration, others)
    for reason, count in found.left_out.most_common():
        console.print(f"left out: {count} {reason}", soft_wrap=True, highlight=False)
    moved = [
        f"{name} {getattr(base, name):.3g} -> {getattr(calibration, name):.3g}"
        for name in CONSTANTS
        if abs(getattr(calibration, name) / getattr(base, name) - 1) > SHOWN_CHANGE
    ]
    console.print(f"moved from {base.id}: {', '.join(moved) or 'nothing'}", soft_wrap=True, highlight=False)
    console.print(f"{path}  (use it with calibration={path})", soft_wrap=True, highlight=False)


def _show(console: Console, found: Usable, base: Calibration, calibration: Calibration, others: Others) -> None:
    """Median errors by GPU and model."""
    from pipeline.roofline.fit import summary

    outside, left_out = others
    table = Table("GPU", "model", "n", *(f"{q} {w}" for q in ("tok/s", "W", "J/tok") for w in ("was", "is", "out")))
    table.caption = (
        f"median |modelled / measured - 1|; was: {base.id}, is: {calibration.id}, "
        f"out: fitted without this {left_out or 'config (there is one only)'}"
    )
    positions = grouped(range(len(found.rows)), lambda n: (found.rows[n].hardware, found.rows[n].model))
    every = [found.measured.errors(base), found.measured.errors(calibration), outside]
    for (hardware, model), own in sorted(positions.items()):
        judged = [e and summary({name: values[own] for name, values in e.items()}) for e in every]
        cells = [
            f"{100 * getattr(errors, quantity).median:.1f} %" if errors else "-"
            for quantity in ("tokens_per_s", "power_w", "j_per_token")
            for errors in judged
        ]
        table.add_row(hardware, model, str(len(own)), *cells)
    console.print(table)
