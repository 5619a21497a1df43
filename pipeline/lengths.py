"""The lengths, and if need be the times, of the requests of a recorded load: one CSV file, one line per request."""

import csv
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError

COLUMNS = ("isl_tokens", "osl_tokens")


@dataclass(frozen=True, slots=True)
class Lengths:
    """What the file says, in the order of its lines.

    Attributes:
        pairs: (isl_tokens, osl_tokens) of every request.
        at_s: When each is due, seconds, ascending, spanning some time; None without that column.
        sha256: Of the file's bytes.
    """

    pairs: tuple[tuple[int, int], ...]
    at_s: tuple[float, ...] | None
    sha256: str


def read_lengths(path: Path) -> Lengths:
    """Read a CSV file with the columns isl_tokens, osl_tokens and maybe at_s; other columns are ignored.

    Raises:
        ConfigError: If the file cannot be read, a column is missing, or a value is not what it should be.
    """
    try:
        content = path.read_bytes()
        reader = csv.DictReader(
            io.StringIO(content.decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True
        )
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"workload.lengths_file={path}: cannot be read as CSV: {error}") from error
    if missing := [name for name in COLUMNS if name not in names]:
        raise ConfigError(f"workload.lengths_file={path}: has no column {missing[0]}; its first line names {names}")
    if not rows:
        raise ConfigError(f"workload.lengths_file={path}: has no requests; write one line for each")
    pairs = tuple((_tokens(path, line, row, COLUMNS[0]), _tokens(path, line, row, COLUMNS[1])) for line, row in rows)
    at_s = _times(path, rows) if "at_s" in names else None
    return Lengths(pairs, at_s, hashlib.sha256(content).hexdigest())


def _tokens(path: Path, line: int, row: dict[str, str], name: str) -> int:
    text = (row[name] or "").strip()
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ConfigError(f"workload.lengths_file={path}: line {line}: {name}={text!r} is not a positive whole number")
    return int(text)


def _times(path: Path, rows: list[tuple[int, dict[str, str]]]) -> tuple[float, ...]:
    """Column at_s.

    Raises:
        ConfigError: If a value is not a time, they do not ascend, or they all are one moment.
    """
    times: list[float] = []
    for line, row in rows:
        try:
            at_s = float(row["at_s"])
        except (TypeError, ValueError):
            at_s = math.nan
        if not 0 <= at_s < math.inf:
            raise ConfigError(
                f"workload.lengths_file={path}: line {line}: at_s={row['at_s']!r} is not a number of seconds from 0 on"
            )
        if times and at_s < times[-1]:
            raise ConfigError(
                f"workload.lengths_file={path}: line {line}: at_s={at_s:g} is before the line above ({times[-1]:g}); "
                "sort the lines by at_s"
            )
        times.append(at_s)
    if times[-1] == times[0]:
        raise ConfigError(f"workload.lengths_file={path}: at_s is {times[0]:g} throughout, and so spans no time")
    return tuple(times)
