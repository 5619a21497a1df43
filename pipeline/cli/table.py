"""Results as a terminal table: the best operating point of every config, computed from rows alone."""

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import attrgetter

from rich.table import Table

from pipeline.config_text import config_text, label, shared_text
from pipeline.grouping import grouped
from pipeline.neighbours import cross_row_warnings
from pipeline.recipe_gain import recipe_names
from pipeline.record import Row, Trial
from pipeline.roofline.share import share_of_limit
from pipeline.score import best_row, score, usable
from pipeline.study import Study
from pipeline.workload import Slo

MAX_CONFIGS = 10

COLUMNS = ["config", "load", "tok/J", "±95 %", "tok/s", "tok/s/user", "TTFT p99", "TPOT p99", "W", "by", "notes"]
"""Best operating point of a config: load, output tokens per joule with its interval over blocks, latencies, watts."""


NARROW_COLUMNS = 110
"""A terminal below this width has no room for these."""

LEFT_OUT = frozenset({"±95 %", "tok/s/user", "TPOT p99", "by"})


def result_tables(
    rows: Sequence[Row], trials: Sequence[Trial], study: Study, width: int = NARROW_COLUMNS
) -> list[Table]:
    """One table per kind of row, see `_kinds`: they are never ranked together.

    Args:
        rows: Those of a study.
        trials: Those of a study.
        study: Its latency owed, and the facts that limit it.
        width: Of the terminal, in characters; a narrow one gets fewer columns, and is told so.
    """
    tables, is_narrow = [], width < NARROW_COLUMNS
    shown = [name for name in COLUMNS if not (is_narrow and name in LEFT_OUT)]
    brackets = "in brackets: share of what the hardware's published limits allow at that load (docs/model.md)"
    room = f"left out for lack of room: {', '.join(sorted(LEFT_OUT))}"
    names = recipe_names(trials)
    for group in _kinds(rows):
        title = _title(group, study.slo, names)
        notes = [brackets] * (study.hardware.kind == "gpu") + [room] * is_narrow  # a CPU has no limits that are known
        caption = "; ".join(notes) or None
        table = Table(title=title, title_justify="left", title_style="bold", caption=caption, caption_justify="left")
        for name in shown:
            table.add_column(name, justify="left" if name in {"config", "by", "notes"} else "right", overflow="fold")
        for position, line in enumerate(_lines(group, trials, study)):
            cells = [cell for name, cell in zip(COLUMNS, line, strict=True) if name in shown]
            table.add_row(*cells, style="green" if position == 0 else None)
        tables.append(table)
    return tables


def failures(trials: Sequence[Trial]) -> list[str]:
    """One line per trial that did not end well."""
    bad = [trial for trial in trials if trial.status.is_failure]
    return [f"trial {t.number} {t.status}: {'; '.join(t.reasons)}  [{config_text(t.config_json)}]" for t in bad]


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits; a dash where there is none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if abs(value) >= 10 ** (digits - 1) else text


def _kinds(rows: Sequence[Row]) -> list[list[Row]]:
    """Usable rows by evidence, boundary, weights and origin, and by what imported rows of one study may differ in."""
    kind = attrgetter("evidence", "boundary", "weights", "origin", "model", "hardware", "workload")
    return [list(group) for _, group in groupby(sorted(usable(rows), key=kind), key=kind)]


def _title(rows: Sequence[Row], slo: Slo, recipes: Collection[str]) -> str:
    """What all lines of a table share: the conditions, then the settings that do not vary."""
    first = rows[0]
    counts = "/".join(str(count) for count in sorted({max(1, row.num_gpus) for row in rows}))
    device = f"{counts} x {first.gpu_name}" if first.gpu_name else first.hardware
    version = "".join(f" {name}" for name in sorted({row.engine_version for row in rows if row.engine_version}))
    error = first.output_tokens_per_joule_rel_error
    band = "" if error is None else f" (tok/J within {100 * error:.0f} % in nine cases of ten)"
    return (
        f"{first.model} on {device}, {first.engine}{version}, {first.workload}, slo={slo.name}, plan={first.plan}; "
        f"origin={first.origin}, evidence={first.evidence}{band}, boundary={first.boundary}, weights={first.weights}; "
        f"{shared_text(_compared(rows, recipes))}"
    )


def _lines(rows: Sequence[Row], trials: Sequence[Trial], study: Study) -> list[list[str]]:
    """The best configs, a line each, cells as in COLUMNS; modelled ones whose values are the same share one."""
    slo = study.slo
    by_config = grouped(rows, attrgetter("config_hash"))
    proposed = {trial.config_hash: trial.proposed_by for trial in trials}
    recipes = recipe_names(trials)
    configs = _compared(rows, recipes)
    warnings = cross_row_warnings(rows)
    ranked = sorted(by_config.values(), key=lambda group: -(score(group, slo) or 0.0))
    lines = []
    alike: dict[tuple[object, ...], list[Row]] = {}
    for group in ranked:
        best = best_row(group, slo)
        row = best or max(group, key=lambda row: row.output_tokens_per_joule or 0.0)
        same = (row.load, row.output_tokens_per_joule, row.power_w, row.ttft_p99_s, best is None)
        if same not in alike and len(alike) == MAX_CONFIGS:
            break
        alike.setdefault(same, []).append(row)
    for (*_, is_missed), (row, *others) in alike.items():
        ci, share = row.output_tokens_per_joule_rel_ci95, share_of_limit(row, study)
        notes = [*(["misses the SLO at every load"] if is_missed else []), *warnings[row.row_id]]
        notes += [f"and {len(others)} alike"] if others else []
        lines.append(
            [
                recipes.get(row.config_hash) or label(row.config_json, configs),
                row.load_text,
                _of_limit(row.output_tokens_per_joule, share.output_tokens_per_joule),
                "-" if ci is None else f"{100 * ci:.1f} %",
                _of_limit(row.output_tokens_per_s, share.output_tokens_per_s),
                number(row.output_tokens_per_s_per_user),
                seconds(row.ttft_p99_s),
                seconds(row.tpot_p99_s),
                number(row.power_w),
                "recipe" if row.config_hash in recipes else proposed.get(row.config_hash, "-"),
                " ".join(notes),
            ]
        )
    return lines


def _of_limit(value: float | None, share: float | None) -> str:
    return number(value) if share is None else f"{number(value)} ({100 * share:.0f} %)"


def _compared(rows: Sequence[Row], recipes: Collection[str]) -> frozenset[str]:
    """The configs that are told apart by their settings: a recipe has many that the others have not, and a name."""
    return frozenset(
        {row.config_json for row in rows if row.config_hash not in recipes} or {row.config_json for row in rows}
    )


def seconds(value: float | None) -> str:
    """A latency in the unit that reads best."""
    if value is None:
        return "-"
    return f"{number(value)} s" if value >= 1 else f"{number(value * 1e3)} ms"
