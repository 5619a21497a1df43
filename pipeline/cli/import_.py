"""`tpw import`: other tools' results as rows of studies of their own."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.cli.table import number
from pipeline.cli.terminal import terminal
from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.record import Row
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.importers.into_store import Outcome

TOOLS = ("trtllm-bench", "inferencex", "mlenergy", "aiperf", "vllm-bench-serve", "benchmark-serving")

MAX_LINES = 8
"""Rows that are printed for one file; of more there is a summary."""


def import_(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TOOL] FILE... [KEY=VALUE...]",
            help=f"files or patterns; which tool's, {', '.join(TOOLS)}, they tell, or it is named first; what they "
            "do not say: model= hardware= engine= parallelism.tp= precision.weights= concurrency= study= ...",
        ),
    ],
) -> None:
    """Make rows of other tools' results.

    Raises:
        ConfigError: If nothing could be imported, a word is no file, or the study has rows of our own.
        StoreError: If rows cannot be stored.
    """
    from pipeline.importers.into_store import import_file, known_trials

    tool, paths, overrides = _sorted_out(words)
    results_dir = next((text.partition("=")[2] for text in overrides if text.startswith("results_dir=")), "results")
    console, store = terminal(), Store(Path(results_dir))
    known = known_trials(store)
    rejected, notes = list[str](), Counter[str]()
    num_usable = 0
    for path in paths:
        outcome = import_file(store, path, tool, overrides, known)
        _print_rows(console, path, outcome)
        rejected += outcome.rejected
        notes.update(outcome.notes)
        num_usable += len(outcome.added) + len(outcome.there)
    if not num_usable and len(rejected) == 1:
        raise ConfigError(rejected[0])
    _print_rejected(console, rejected)
    if not num_usable:
        raise ConfigError(
            f"nothing could be imported: {len(rejected)} files or entries rejected, for the reasons above"
        )
    if notes:
        _say(console, "not mapped, or only so:")
    for note, count in notes.most_common():
        _say(console, f"{count:5} x  {note}")


def _sorted_out(words: Sequence[str]) -> tuple[str | None, list[Path], list[str]]:
    """The tool, the files (JSON first, which says most of a run), and the overrides.

    Raises:
        ConfigError: If a word is none of these, or there is no file.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    rest = [word for word in words if word not in overrides]
    tool = rest.pop(0) if rest and rest[0] in TOOLS and not Path(rest[0]).exists() else None
    paths: dict[Path, None] = {}
    for position, word in enumerate(rest):
        found = _files(Path(word).expanduser())
        if not found and position == 0 and tool is None and len(rest) > 1:
            raise ConfigError(f"tpw import {word}: unknown{nearest(word, TOOLS)}; allowed: {', '.join(TOOLS)}")
        if not found:
            raise ConfigError(f"{word}: there is no such file; give the results of {tool or ', '.join(TOOLS)}")
        paths |= dict.fromkeys(found)
    if not paths:
        raise ConfigError(f"tpw import: names no file; give the results of {tool or ', '.join(TOOLS)}")
    return tool, sorted(paths, key=lambda path: path.suffix != ".json"), overrides


def _files(pattern: Path) -> list[Path]:
    """The file of that name, else those that a pattern matches."""
    if pattern.exists():
        return [pattern] if pattern.is_file() else []
    return sorted(
        path for path in Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))) if path.is_file()
    )


def _print_rows(console: Console, path: Path, outcome: "Outcome") -> None:
    """A line for each row, or one for all of a file that has many."""
    added, there = outcome.added, outcome.there
    if len(there) > MAX_LINES:
        _say(console, f"{path}: {len(there)} entries are rows already; nothing added for these")
    for each in there if len(there) <= MAX_LINES else ():
        _say(console, f"{each.where}: is row {each.row_id} of study {each.study_id} already; nothing added")
    if len(added) > MAX_LINES:
        states = Counter(f"{row.status} {' '.join(row.reasons)}".strip() for row in added)
        said = ", ".join(f"{count} {state}" for state, count in states.most_common())
        _say(console, f"{path}: {len(added)} rows of study {added[0].study_id}: {said}; {_kind(added[0])}")
    for row in added if len(added) <= MAX_LINES else ():
        _say(
            console,
            f"row {row.row_id} of study {row.study_id}: {row.status}, {number(row.output_tokens_per_joule)} tok/J, "
            f"{number(row.output_tokens_per_s)} tok/s at load {row.load_text}; {_kind(row)}; "
            f"{', '.join([*row.reasons, *row.warnings])}",
        )


def _kind(row: Row) -> str:
    tool = " ".join(filter(None, (row.source_tool, row.source_tool_version)))
    return f"origin={row.origin} ({tool}), evidence={row.evidence}, boundary={row.boundary}"


def _print_rejected(console: Console, rejected: Sequence[str]) -> None:
    """Each reason once, with the first entry that it holds for."""
    from pipeline.importers.composed import CHOICES

    first: dict[str, str] = {}
    counts = Counter[str]()
    for text in rejected:
        place, _, reason = text.partition(": ")
        first.setdefault(reason, place)
        counts[reason] += 1
    for reason, count in counts.most_common():
        more = f" (and {count - 1} more like it)" if count > 1 else ""
        text = reason if len(counts) == 1 else reason.partition(CHOICES)[0]  # several lists would hide the reasons
        said = f"rejected {first[reason]}{more}: {text}"
        console.print(said, style="red", soft_wrap=True, highlight=False, markup=False)


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
