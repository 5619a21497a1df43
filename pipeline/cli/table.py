"""Results as a terminal table: the best operating point of every config, computed from rows alone."""

import json
from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from pipeline.record import Row, Trial, TrialStatus
from pipeline.score import best_row, score, usable
from pipeline.study import Slo

MAX_CONFIGS = 10


def result_tables(rows: Sequence[Row], trials: Sequence[Trial], slo: Slo) -> list[Table]:
    """One table per kind of evidence, boundary and weights: they are never ranked together."""

    def kind(row: Row) -> tuple[str, str, str]:
        return (row.evidence, row.boundary, row.weights)

    ordered = sorted(usable(rows), key=kind)
    return [_table(list(group), trials, slo, key) for key, group in groupby(ordered, key=kind)]


def failures(trials: Sequence[Trial]) -> list[str]:
    """One line per trial that did not end well."""
    bad = [trial for trial in trials if trial.status not in {TrialStatus.OK, TrialStatus.INTERRUPTED}]
    return [f"trial {t.number} {t.status}: {'; '.join(t.reasons)}  [{config_text(t.config_json)}]" for t in bad]


def config_text(config_json: str) -> str:
    """A config in one line: the last part of each key, and its value."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in json.loads(config_json).items())


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits; a dash where there is none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if abs(value) >= 10 ** (digits - 1) else text


def _table(rows: list[Row], trials: Sequence[Trial], slo: Slo, kind: tuple[str, str, str]) -> Table:
    evidence, boundary, weights = kind
    first = rows[0]
    title = (
        f"{first.model} on {first.hardware}, {first.engine}, {first.workload}, slo={slo.name}, plan={first.plan}: "
        f"evidence={evidence}, boundary={boundary}, weights={weights}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", show_lines=False)
    for name in (
        "config",
        "conc.",
        "tok/J",
        "±95 %",
        "tok/s",
        "tok/s/user",
        "TTFT p99",
        "TPOT p99",
        "W",
        "by",
        "notes",
    ):
        table.add_column(name, justify="left" if name in {"config", "by", "notes"} else "right", overflow="fold")
    by_config: dict[str, list[Row]] = {}
    for row in rows:
        by_config.setdefault(row.config_hash, []).append(row)
    proposed = {trial.config_hash: trial.proposed_by for trial in trials}
    ranked = sorted(by_config.values(), key=lambda group: -(score(group, slo) or 0.0))
    for position, group in enumerate(ranked[:MAX_CONFIGS]):
        best = best_row(group, slo)
        shown = best or max(group, key=lambda row: row.output_tokens_per_joule or 0.0)
        notes = [*shown.warnings] if best else ["misses the SLO at every load", *shown.warnings]
        ci = shown.output_tokens_per_joule_rel_ci95
        table.add_row(
            config_text(shown.config_json),
            str(shown.concurrency),
            number(shown.output_tokens_per_joule),
            "-" if ci is None else f"{100 * ci:.1f}%",
            number(shown.output_tokens_per_s),
            number(shown.output_tokens_per_s_per_user),
            seconds(shown.ttft_p99_s),
            seconds(shown.tpot_p99_s),
            number(shown.power_w),
            proposed.get(shown.config_hash, "-"),
            " ".join(notes),
            style="green" if position == 0 and best else None,
        )
    return table


def seconds(value: float | None) -> str:
    """A latency in the unit that reads best."""
    if value is None:
        return "-"
    return f"{number(value)} s" if value >= 1 else f"{number(value * 1e3)} ms"
