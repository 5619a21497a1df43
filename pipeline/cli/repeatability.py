"""`tpw repeatability`: how far windows, engine starts and visits to a machine agree, from rows alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.cli.table import number
from pipeline.config_text import config_text
from pipeline.record import Row
from pipeline.repeatability import (
    Repeatability,
    Response,
    cases,
    repeatability,
    weights_cases,
    weights_differences,
)
from pipeline.variance_components import Component
from pipeline.vocabulary import Evidence

MAX_HALF_WIDTH = 0.01
"""Goal for one run: half-width of the 95 % interval of a window."""

MAX_START_SD = 0.015
"""Goal between starts of one config."""

NUM_STARTS = (3, 5)
"""Starts of each config for which the smallest detectable difference is told."""

LEVELS = ("window", "start", "visit")


def report(rows: Sequence[Row], console: Console, response: Response = "output_tokens_per_joule") -> None:
    """Print a table per case, then what other random weights change."""
    results = case_results(rows, response)
    for result in results:
        console.print(f"\n{_title(result)}", style="bold", highlight=False, markup=False)
        if result["window"]["num_units"] == 1:
            console.print("one row: nothing to compare it with yet")
            continue
        console.print(_table(result))
        for line in _lines(result):
            console.print(line, highlight=False)
    for result in weights_results(rows, response):
        console.print()
        for line in _weights_lines(result):
            console.print(line, highlight=False)
    if not results:
        console.print("\nno valid row yet")


def case_results(rows: Sequence[Row], response: Response = "output_tokens_per_joule") -> list[dict[str, Any]]:
    """One dict per case, strongest evidence first: what it is, its spread, and what that spread lets one tell apart.

    Spreads, half-widths and differences are relative (0.01 is 1 %); absent is None.
    """
    groups = [group for evidence in Evidence for group in cases(rows, evidence)]
    return [_case_result(group, response) for group in groups if any(getattr(row, response) for row in group)]


def weights_results(rows: Sequence[Row], response: Response = "output_tokens_per_joule") -> list[dict[str, Any]]:
    """One dict per case that was measured with several random weights; `differences` are log ratios."""
    groups = [group for evidence in Evidence for group in weights_cases(rows, evidence)]
    return [
        _identity(group, response) | {"differences": [dataclasses.asdict(d) for d in found]}
        for group in groups
        if (found := weights_differences(group, response))
    ]


def _identity(rows: Sequence[Row], response: Response) -> dict[str, Any]:
    first = rows[0]
    return {
        "model": first.model,
        "engine": " ".join(filter(None, (first.engine, first.engine_version))),
        "hardware": first.gpu_name or first.hardware,
        "config": config_text(first.config_json),
        "workload": first.workload,
        "load": first.load_text,
        "plan": first.plan,
        "evidence": first.evidence.value,
        "boundary": first.boundary.value,
        "weights": first.weights,
        "response": response,
    }


def _case_result(rows: Sequence[Row], response: Response) -> dict[str, Any]:
    found = repeatability(rows, response)
    return {
        **_identity(rows, response),
        "case_id": rows[0].case_id,
        "weights_init": rows[0].weights_init,
        "mean": found.mean,
        **{level: dataclasses.asdict(getattr(found.spread, level)) for level in LEVELS},
        "half_width_median": found.half_width_median,
        "half_width_max": found.half_width_max,
        "is_half_width_reached": None if found.half_width_max is None else found.half_width_max <= MAX_HALF_WIDTH,
        "is_start_sd_reached": _is_reached(found.spread.start),
        "detectable": {str(count): found.detectable(count) for count in NUM_STARTS},
        "limits": _limits(found),
    }


def _limits(found: Repeatability) -> list[str]:
    """What the design cannot tell, in words."""
    window, start, visit = (getattr(found.spread, level) for level in LEVELS)
    limits = []
    if not window.df:
        limits.append("one window per start: the spread of starts holds that of windows")
    if not start.df:
        limits.append("one start per visit: no spread between starts is known; start the engine again")
    if not visit.df:
        limits.append("one visit: nothing is known of other GPUs, or of this one after a reboot")
    elif visit.df < 3:
        limits.append(f"{visit.num_units} visits: the interval between visits says little more than its lower end")
    return limits


def _title(result: dict[str, Any]) -> str:
    """What a case is, and the mean of its results."""
    return (
        f"{result['model']} on {result['hardware']}, {result['engine']}, {result['config']}; {result['workload']}, "
        f"load {result['load']}, plan={result['plan']}; evidence={result['evidence']}, boundary={result['boundary']}, "
        f"weights={result['weights_init'] or result['weights']}; {result['response']} {number(result['mean'], 4)}"
    )


def _table(result: dict[str, Any]) -> Table:
    """The three components of one case."""
    table = Table()
    for name in ("component", "SD", "95 % interval", "upper bound", "n", "df"):
        table.add_column(name, justify="left" if name == "component" else "right")
    for level in LEVELS:
        component = Component(**result[level])
        name = " + ".join((level, *component.includes))
        interval = f"{percent(component.low)} .. {percent(component.high)}" if component.df else "-"
        counts = (str(component.num_units), str(component.df))
        table.add_row(name, percent(component.sd), interval, percent(component.upper), *counts)
    return table


def _lines(result: dict[str, Any]) -> list[str]:
    """What stands below a table: the goals, what can be told apart, and what limits it."""
    start = Component(**result["start"])
    told = [
        f"{percent(value)} from {count} starts" for count, value in result["detectable"].items() if value is not None
    ]
    return [
        f"within a run: 95 % half-width {percent(result['half_width_median'])} (median), "
        f"{percent(result['half_width_max'])} (widest); goal {percent(MAX_HALF_WIDTH)}: "
        f"{_reached(result['is_half_width_reached'])}",
        f"between starts: SD {percent(start.sd)}, upper bound {percent(start.upper)}; goal {percent(MAX_START_SD)}: "
        f"{_reached(result['is_start_sd_reached'])}",
        f"smallest difference between two configs that shows (5 %, power 80 %): {', '.join(told) or 'unknown'}",
        *(f"limit: {text}" for text in result["limits"]),
    ]


def _weights_lines(result: dict[str, Any]) -> list[str]:
    """What other random weights change in one case."""
    differences = result["differences"]
    head = (
        f"sensitivity to weights: {result['model']}, {result['engine']}, {result['config']}, load {result['load']}, "
        f"{result['response']}, evidence={result['evidence']}, against {differences[0]['reference']}"
    )
    return [head] + [
        f"  {d['weights_init']}: {100 * d['log_ratio']:+.2f} %"
        + (" (no interval: no weights with two starts in one visit)" if d["half_width"] is None else "")
        + ("" if d["half_width"] is None else f" ± {percent(d['half_width'])} (95 %, {d['df']} df)")
        for d in differences
    ]


def percent(value: float | None) -> str:
    """A share as a percentage with three digits at most; a dash where there is none."""
    return "-" if value is None else f"{number(100 * value, 2 if value < 0.1 else 3)} %"


def _is_reached(start: Component) -> bool | None:
    """Whether starts agree as they should: yes by the upper bound, no by the estimate, else not known."""
    if start.sd is None or start.upper is None:
        return None
    return False if start.sd > MAX_START_SD else True if start.upper <= MAX_START_SD else None


def _reached(is_reached: bool | None) -> str:
    return {None: "not decided", True: "reached", False: "not reached"}[is_reached]
