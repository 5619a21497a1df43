"""What was found over releases as a person reads it: gains, where they come from, steps, and what is missing."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from pipeline.cli.repeatability import percent
from pipeline.cli.table import number
from pipeline.track.release import short
from pipeline.track.tracking import (
    AttributionFound,
    BestFound,
    ChangeFound,
    GroupFound,
    Ratio,
    ReleaseFound,
    SeriesFound,
    Tracking,
)

MAX_SHOWN = 12
"""Lines of a table, and of a list of what is missing; `--json` has all of them."""

TITLE = ("model", "workload", "plan", "evidence", "boundary", "weights", "origin")


def print_tracking(found: Tracking, console: Console) -> None:
    """Print it."""
    for group in found.groups:
        console.print()
        console.print(_title(group), style="bold", markup=False, highlight=False, soft_wrap=True)
        for line in _gains(group):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if group.cases:
            console.print(_cases(group))
        if group.series:
            console.print(_series(group.series))
        if any(each.changes for each in group.series):
            console.print(_steps(group.series))
        for line in (*_missing(group), *(f"mind: {note}" for note in group.notes)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print()
    for line in _closing(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _title(group: GroupFound) -> str:
    held = group.conditions
    device = held.get("gpu_name") or held.get("hardware") or "different hardware"
    told = ", ".join(f"{key}={held[key]}" for key in TITLE if key in held)
    return f"{told}; on {device}; before: {group.before}; after: {group.after}"


def _gains(group: GroupFound) -> Iterator[str]:
    yield f"frozen config, mean of {len(group.cases)} cases: {ratio_text(group.frozen)} tokens/J"
    yield f"re-tuned, best against best under the SLO: {ratio_text(group.retuned)} tokens/J"
    yield f"  before: {_best(group.best_before)}"
    yield f"  after:  {_best(group.best_after)}"
    if group.attribution is not None:
        yield from _attribution(group.attribution)
    yield f"  intervals: starts {group.start_spread}; cards {group.card_spread}"


def _attribution(found: AttributionFound) -> Iterator[str]:
    parts = " x ".join(
        f"{each.factor} {'not measured' if each.gain is None else number(each.gain.ratio, 4)}" for each in found.factors
    )
    yield f"  {number(found.total.ratio, 4)} = {parts}, changed in this order; plain means over starts"
    for factor in found.factors:
        yield f"    {factor.factor}: {ratio_text(factor.gain)}"
    for pair in found.interactions:
        yield f"    {' and '.join(pair.factors)} beyond the product of each alone: {ratio_text(pair.gain)}"


def _best(found: BestFound | None) -> str:
    if found is None:
        return "nothing meets the SLO"
    starts = f"{found.num_starts} start{'' if found.num_starts == 1 else 's'}"
    return f"{number(found.output_tokens_per_joule)} tok/J, {found.label}, load {found.load}, {starts}"


def ratio_text(found: Ratio | None) -> str:
    """A ratio as a change in per cent, with its interval."""
    if found is None:
        return "not measured"
    if found.low is None or found.high is None:
        return f"{_change(found.ratio)} (no interval)"
    across = ", across cards" if found.is_across_cards else ""
    return f"{_change(found.ratio)} (95 %: {_change(found.low)} to {_change(found.high)}{across})"


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _cases(group: GroupFound) -> Table:
    table = _table("frozen configs: the same case before and after", "config", "load", "tok/J before", "tok/J after")
    for name in ("gain", "95 %", "starts"):
        table.add_column(name, justify="right")
    for case in group.cases[:MAX_SHOWN]:
        low, high = case.gain.low, case.gain.high
        table.add_row(
            case.label,
            case.load,
            number(case.before_output_tokens_per_joule),
            number(case.after_output_tokens_per_joule),
            _change(case.gain.ratio),
            "-" if low is None or high is None else f"{_change(low)} to {_change(high)}",
            f"{case.num_starts_before} / {case.num_starts_after}",
        )
    table.caption = f"and {len(group.cases) - MAX_SHOWN} more" if len(group.cases) > MAX_SHOWN else None
    return table


def _series(series: tuple[SeriesFound, ...]) -> Table:
    table = _table("over releases", "config", "load", "releases", "values", "noise SD", "a drop shows from", "steps")
    for each in series[:MAX_SHOWN]:
        steps = ", ".join(_change(change.ratio) for change in each.changes) or "none"
        cells = (str(each.num_releases), str(each.num_visits), percent(each.noise_sd), percent(each.detectable), steps)
        table.add_row(each.label, each.load or "all", *cells)
    table.caption = f"and {len(series) - MAX_SHOWN} more" if len(series) > MAX_SHOWN else None
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for position, name in enumerate(names):
        table.add_column(name, justify="right" if position else "left", overflow="fold")
    return table


def _steps(series: tuple[SeriesFound, ...]) -> Table:
    """All of them, those of all cases together first."""
    title = "steps: the newest release of the old level and the oldest of the new one, 95 % sure of each"
    table = _table(title, "config", "load", "tok/J", "95 %", "now", "last good", "first bad", "differs")
    ordered = sorted(series, key=lambda each: each.load is not None)
    steps = [(each, change) for each in ordered for change in each.changes]
    for each, change in steps[:MAX_SHOWN]:
        table.add_row(
            each.label,
            each.load or "all",
            _change(change.ratio),
            f"{_change(change.low)} to {_change(change.high)}",
            _change(change.remaining_ratio),
            _apart(change.last_good, change.changed),
            _apart(change.first_bad, change.changed),
            " ".join(change.changed),
            style="red" if max(change.ratio, change.remaining_ratio) < 1 else None,
        )
    table.caption = f"and {len(steps) - MAX_SHOWN} more" if len(steps) > MAX_SHOWN else None
    return table


def _apart(found: ReleaseFound, changed: Sequence[str]) -> str:
    """A release of one engine with what tells it from the other, for a narrow cell."""
    parts = [found.engine_version or "(version unknown)"]
    parts += [f"driver {found.driver_version}"] if "driver_version" in changed else []
    parts += [short(found.image)] if found.image and "engine_version" not in changed and "image" in changed else []
    return " ".join(parts)


def change_text(change: ChangeFound) -> str:
    """A step, and which releases it lies between."""
    what = ", ".join(change.changed) or "nothing known"
    return (
        f"{_change(change.ratio)} tokens/J (95 %: {_change(change.low)} to {_change(change.high)}), now "
        f"{_change(change.remaining_ratio)}; last good {release_text(change.last_good)}, first bad "
        f"{release_text(change.first_bad)}; differs: {what}"
    )


def release_text(found: ReleaseFound) -> str:
    """A release in a line."""
    driver = f" driver {found.driver_version}" if found.driver_version else ""
    image = f" {short(found.image)}" if found.image else ""
    return f"{found.engine} {found.engine_version or '(version unknown)'}{driver}{image}"


def _missing(group: GroupFound) -> Iterator[str]:
    for each in group.missing[:MAX_SHOWN]:
        yield f"missing {each.side}: [{each.label}] load {each.load}: {each.reason}"
    if len(group.missing) > MAX_SHOWN:
        yield f"  and {len(group.missing) - MAX_SHOWN} more are missing on one side"


def _closing(found: Tracking) -> Iterator[str]:
    slo = ", ".join(f"{key}={value}" for key, value in found.slo.items() if key != "name")
    owed = f"{found.slo['name']}{f' ({slo})' if slo else ''}"
    yield f"{found.num_rows} valid rows of {len(found.studies)} studies; slo={owed}"
    if found.told:
        yield f"compared although they differ, as asked for: {', '.join(found.told)}"
    yield from _left_out(found)
    if any(group.series for group in found.groups):
        yield (
            f"steps: false alarm in any of the series with a probability of {100 * found.false_alarm_rate:g} %, each "
            "time that this is asked; a drop that shows is found 4 times of 5"
        )
    for broken in found.broken:
        yield (
            f"no longer runs: [{broken.label}] {broken.status} on {release_text(broken.release)}, study "
            f"{broken.study_id}: {broken.reason}"
        )
    for each in found.unmeasured:
        yield (
            f"mind: the last start of [{each.label}], on {release_text(each.release)}, study {each.study_id}, has no "
            f"valid window: {each.reason}"
        )
    if found.regression_threshold is not None:
        yield from _verdict(found, found.regression_threshold)


def _left_out(found: Tracking) -> Iterator[str]:
    """Rows and cases that were not compared."""
    if found.num_copies:
        yield f"{found.num_copies} rows were there twice, and count once"
    for record_id, why in list(found.rejected.items())[:MAX_SHOWN]:
        yield f"left out: {record_id}: {why}"
    if len(found.rejected) > MAX_SHOWN:
        yield f"  and {len(found.rejected) - MAX_SHOWN} more rows were left out"
    for unlike in found.unlike[:MAX_SHOWN]:
        differs = "; ".join(f"{key}: {', '.join(values)}" for key, values in unlike.differs.items())
        yield f"not compared, measured under other conditions: [{unlike.label}] load {unlike.load}: {differs}"
    if found.num_single:
        yield f"{found.num_single} groups of rows have one side only and are not shown"


def _verdict(found: Tracking, threshold: float) -> Iterator[str]:
    """Whether there is a regression, and where it would have been missed."""
    together = [each for each in found.regressions if each.load is None]
    for each in (together or found.regressions)[:MAX_SHOWN]:
        name = "all cases together" if each.load is None else f"[{each.label}] load {each.load}"
        yield f"REGRESSION: {name} {change_text(each.change)}"
    if together and len(found.regressions) > len(together):
        yield f"  and {len(found.regressions) - len(together)} drops of single cases, see above"
    series = [each for group in found.groups for each in group.series]
    blind = sum(each.detectable is None or each.detectable > threshold for each in series)
    if not found.is_regressed:
        yield f"no regression of {percent(threshold)} found in {len(series)} series"
    if blind:
        what = f"a drop of {percent(threshold)} at the newest release"
        yield f"mind: in {blind} of {len(series)} series {what} may not show"
