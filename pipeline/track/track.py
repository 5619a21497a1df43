"""From stored rows to what changed: the rows are grouped by what may be compared, and every group is looked at."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from pipeline import __version__
from pipeline.compose import nearest
from pipeline.config_text import label
from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.record import Trial
from pipeline.store import Store
from pipeline.track.broken import broken, unmeasured
from pipeline.track.group import Group, release_found
from pipeline.track.series import ALPHA, judged, lines_of
from pipeline.track.sides import KEYS, RELEASE, Sides, Wanted, engine_releases, has, sides, texts, told
from pipeline.track.starts import History, Start, read_history, release_of
from pipeline.track.tracking import BrokenFound, ChangeFound, GroupFound, RegressionFound, Tracking, UnlikeFound
from pipeline.workload import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to compare.

    Attributes:
        where: Conditions to restrict the rows to.
        before: What the side before has; empty for the first release.
        after: What the side after has; empty for the last.
        regression: Smallest relative drop that counts as a regression; None where none is asked for.
    """

    where: Wanted = dataclasses.field(default_factory=dict)
    before: Wanted = dataclasses.field(default_factory=dict)
    after: Wanted = dataclasses.field(default_factory=dict)
    regression: float | None = None


def history_of(store: Store, studies: Sequence[str], asked: Asked) -> History:
    """The starts that are asked for.

    Raises:
        ConfigError: If there is none, or a condition is unknown.
        StoreError: If a file cannot be read.
    """
    history = read_history(store, studies, told(asked.before, asked.after))
    starts = list(history.starts)
    for key, value in asked.where.items():
        known = sorted({*KEYS, *(starts[0].facts if starts else ())})
        if key not in known:
            raise ConfigError(
                f"--where {key}={value}: unknown condition{nearest(key, known)}; allowed: {', '.join(known)}"
            )
        kept = [start for start in starts if has(start, key, value)]
        if starts and not kept:
            there = ", ".join(dict.fromkeys(texts(start, key) for start in starts))
            raise ConfigError(f"--where {key}={value}: no row has it; there are: {there}")
        starts = kept
    if not starts:
        first = next(iter(history.rejected.items()), None)
        why = f"; {len(history.rejected)} rows were left out, row {first[0]}: {first[1]}" if first else ""
        raise ConfigError(f"no valid row to track in {len(studies)} studies{why}; `tpw show` says why rows are invalid")
    return dataclasses.replace(history, starts=tuple(starts))


def track(history: History, slo: Slo, asked: Asked) -> Tracking:
    """Compare the sides, and look for steps.

    Raises:
        ConfigError: If nothing can be compared; the message says why.
    """
    differing = told(asked.before, asked.after)
    chosen = sides(history.starts, asked.before, asked.after) if asked.before or asked.after else None
    groups, single = _groups(history, chosen)
    lines = {
        index: [line for own in _by_engine(group, asked) for line in lines_of(own, group.start, group.card)]
        for index, group in enumerate(groups)
        if not differing and not group.is_modelled
    }
    series = judged([line for own in lines.values() for line in own])
    if asked.regression is not None and not series and groups:
        raise ConfigError(
            "--fail-on-regression: no case was measured here with two releases, so there is nothing to look for it in; "
            "leave it out, or name sides by release"
        )
    found = []
    for index, group in enumerate(groups):
        num = len(lines.get(index, ()))
        found.append(group.sharpened(lines.get(index, ())).found(slo, series[:num]))
        series = series[num:]
    compared = {case.case_id for each in found for case in each.cases}
    unlike = _unlike([start for start in history.starts if start.case not in compared])
    lost = broken(history)
    if not any(each.cases or each.retuned for each in found) and not (lost and asked.regression is not None):
        raise ConfigError(_nothing(history.starts, chosen, unlike, found))
    return Tracking(
        tool_version=__version__,
        studies=tuple(sorted({start.row.study_id for start in history.starts})),
        num_rows=sum(len(start.rows) for start in history.starts),
        num_copies=history.num_copies,
        rejected=history.rejected,
        told=tuple(sorted(differing)),
        slo={key: value for key, value in dataclasses.asdict(slo).items() if value is not None and key != "source"},
        false_alarm_rate=ALPHA,
        groups=tuple(found),
        unlike=tuple(unlike),
        num_single=single,
        broken=tuple(_told(lost, history)),
        unmeasured=tuple(_told(unmeasured(history), history)),
        regression_threshold=asked.regression,
        regressions=tuple(_regressions(found, asked.regression)),
    )


def _groups(history: History, chosen: Sides | None) -> tuple[list[Group], int]:
    """Groups with two sides, and how many have one only."""
    groups, num_single = [], 0
    for own in grouped(history.starts, attrgetter("problem")).values():
        found = sides(own, {}, {}) if chosen is None else _within(chosen, own)
        if found is None:
            num_single += 1
        else:
            groups.append(Group.of(own, found, history))
    return groups, num_single


def _within(chosen: Sides, starts: Sequence[Start]) -> Sides | None:
    """The sides as far as they are of one group; None where one of them is not."""
    own = {id(start) for start in starts}
    before, after = (tuple(start for start in side if id(start) in own) for side in (chosen.before, chosen.after))
    return dataclasses.replace(chosen, before=before, after=after) if before and after else None


def _by_engine(group: Group, asked: Asked) -> list[list[Start]]:
    """The starts of each engine, from the releases of the one side to those of the other where releases were named."""
    found = []
    for engine, releases in engine_releases(group.starts).items():
        place = {release: number for number, release in enumerate(releases)}
        first, last = 0, len(releases) - 1
        if asked.before.keys() & set(RELEASE):
            first = min((place[start.release] for start in group.sides.before if start.release in place), default=first)
        if asked.after.keys() & set(RELEASE):
            last = max((place[start.release] for start in group.sides.after if start.release in place), default=last)
        own = [start for start in group.starts if start.release.engine == engine]
        found.append([start for start in own if first <= place[start.release] <= last])
    return found


def _unlike(starts: Sequence[Start]) -> list[UnlikeFound]:
    """Cases among these that lie in several groups: the same case under conditions that are not compared."""
    found = []
    for case, own in grouped(starts, attrgetter("case")).items():
        differs = _differing(own)
        if differs and len({(start.release, start.cards, start.row.study_id) for start in own}) > 1:
            configs = {start.row.config_json for start in starts}
            text = label(own[0].row.config_json, configs) if len(configs) > 1 else "the only config"
            found.append(UnlikeFound(case_id=case, label=text, load=own[0].row.load_text, differs=differs))
    return found


def _differing(starts: Sequence[Start]) -> dict[str, tuple[str, ...]]:
    """Conditions in which groups of these starts differ, with their values."""
    values: dict[str, dict[str, None]] = {}
    for start in starts:
        for name, value in start.problem:
            values.setdefault(name, {})[str(value)] = None
    return {name: tuple(several) for name, several in values.items() if len(several) > 1}


def _apart(chosen: Sides) -> dict[str, tuple[str, ...]]:
    """Conditions of which the sides share no value, with the values of both."""
    differs = _differing([*chosen.before, *chosen.after])
    shared = [{pair for start in side for pair in start.problem} for side in (chosen.before, chosen.after)]
    alike = {name for name, _ in shared[0] & shared[1]}
    return {name: values for name, values in differs.items() if name not in alike}


def _nothing(
    starts: Sequence[Start], chosen: Sides | None, unlike: Sequence[UnlikeFound], found: Sequence[GroupFound]
) -> str:
    """Why nothing can be compared."""
    if found:
        return "no case is on both sides, and nothing meets the SLO on both: nothing to compare; relax it (--slo none)"
    differs = _apart(chosen) if chosen else unlike[0].differs if unlike else {}
    said = "; ".join(f"{name}: {', '.join(values)}" for name, values in differs.items())
    releases = dict.fromkeys(str(start.release) for start in starts)
    if chosen is None and len(releases) == 1:
        return (
            f"nothing to compare: one release only ({next(iter(releases))}); measure another, or name the sides, e.g. "
            "--before study_id=A --after study_id=B"
        )
    if differs:
        key, (one, other, *_) = next(iter(differs.items()))
        return (
            f"nothing in common: the two sides were nowhere measured alike; they differ in {said}; to compare them all "
            f"the same name both, e.g. --before {key}='{one}' --after {key}='{other}'"
        )
    return f"nothing in common: no case was measured with two releases; there are: {'; '.join(releases)}"


def _told(trials: Sequence[tuple[Trial, str]], history: History) -> list[BrokenFound]:
    """Starts by what went wrong, as they are told."""
    configs = {start.row.config_json for start in history.starts} | {trial.config_json for trial, _ in trials}
    return [
        BrokenFound(
            label=label(trial.config_json, configs) if len(configs) > 1 else "the only config",
            config_hash=trial.config_hash,
            study_id=trial.study_id,
            status=trial.status.value,
            reason=reason,
            release=release_found(release_of(trial, trial)),
        )
        for trial, reason in trials
    ]


def _regressions(groups: Sequence[GroupFound], threshold: float | None) -> list[RegressionFound]:
    """Drops of at least the threshold, or that add up to it, that have not come back to within it."""
    if threshold is None:
        return []
    return [
        RegressionFound(label=series.label, load=series.load, change=change)
        for group in groups
        for series in group.series
        for change in _drops(series.changes, 1 - threshold)
    ]


def _drops(changes: Sequence[ChangeFound], limit: float) -> list[ChangeFound]:
    """Steps that are such a drop each; where none is, those that add up to one: a slow decline is a decline."""
    single = [change for change in changes if max(change.ratio, change.remaining_ratio) <= limit]
    first = next((place for place, change in enumerate(changes) if change.remaining_ratio <= limit), len(changes))
    return single or [change for change in changes[first:] if change.ratio < 1]


def share(option: str, text: str) -> float:
    """A percentage such as 3% as a share.

    Raises:
        ConfigError: If it is none between 0 and 100.
    """
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise ConfigError(f"{option}={text}: no percentage above 0 and below 100; write e.g. 3%")
    return value
