"""A file of another tool, and its values asked for by key: it may hold anything."""

import csv
import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.engine_config import canonical_json
from pipeline.errors import ConfigError

MAX_NUMBER = 1e12
MAX_NEEDED = 1e9
"""Far above whatever a run could have: what is above it is no measurement. Two of those a row needs are multiplied."""

MAX_NS = 2**62
"""Nanoseconds since 1970, in the year 2116."""

ANY_TOOL = "give a result that the tool wrote"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFile:
    """A file that was read.

    Attributes:
        path: Where it is.
        kind: json: one value; jsonl: a value a line; csv: lines of cells.
        content: What it holds: any JSON value, a list of them, or a list of lists of texts.
        sha256: Of its bytes.
        modified: When it was last written.
    """

    path: Path
    kind: Literal["json", "jsonl", "csv"]
    content: Any
    sha256: str
    modified: datetime


def read_file(path: Path, fix: str = ANY_TOOL) -> ForeignFile:
    """Read a file of JSON, lines of JSON (whatever its name), or comma-separated values (`.csv`).

    Args:
        path: The file.
        fix: What to do about one that cannot be read.

    Raises:
        ConfigError: If it cannot be read, or is none of these.
    """
    try:
        data = path.read_bytes()
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        kind, content = _parsed(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {fix}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply for a report; {fix}") from error
    except csv.Error as error:
        raise ConfigError(f"{path}: is no CSV ({error}); {fix}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); {fix}") from error
    return ForeignFile(
        path=path, kind=kind, content=content, sha256=hashlib.sha256(data).hexdigest(), modified=modified
    )


def _parsed(path: Path, data: bytes) -> tuple[Literal["json", "jsonl", "csv"], Any]:
    if path.suffix.lower() == ".csv":
        return "csv", list(csv.reader(data.decode("utf-8-sig").splitlines()))
    if path.suffix.lower() == ".jsonl":
        return "jsonl", [json.loads(line) for line in data.splitlines() if line.strip()]
    try:
        return "json", json.loads(data)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        return "jsonl", [json.loads(line) for line in data.splitlines() if line.strip()]  # appended, run by run


def digest(tool: str, figures: Any) -> str:
    """Identity of one measurement: SHA-256 of what the tool says of it, wherever it is filed."""
    return hashlib.sha256(canonical_json([tool, figures]).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """JSON that may be anything, asked for values by key; `where` is the file, and the entry within it."""

    where: str
    content: Any

    def value(self, *keys: str) -> Any:
        """Whatever stands there; None where nothing does."""
        found = self.content
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def text(self, *keys: str) -> str | None:
        """A text, such as can be stored; None where there is none."""
        found = self.value(*keys)
        return found.encode("utf-8", "replace").decode() if isinstance(found, str) and found else None

    def number(self, *keys: str) -> float | None:
        """A number; None where it is absent, null, NaN or infinite.

        Raises:
            ConfigError: If it is something else, or absurdly large.
        """
        found = self.value(*keys)
        if found is None or (isinstance(found, float) and not math.isfinite(found)):
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ConfigError(f"{self.where}: {'.'.join(keys)}={found!r}: is no number")
        if abs(found) > MAX_NUMBER:
            raise self._too_large(MAX_NUMBER, *keys)
        return float(found)

    def _too_large(self, most: float, *keys: str) -> ConfigError:
        return ConfigError(f"{self.where}: {'.'.join(keys)} is above {most:g}, which no run can have had")

    def latency_s(self, *keys: str, unit_s: float = 1e-3) -> float | None:
        """A latency in seconds, stored in units of `unit_s`; tools write 0 where they have none, which is None here."""
        found = self.number(*keys)
        return None if found is None or found <= 0 else found * unit_s

    def count(self, *keys: str) -> int | None:
        """A count; None where it is absent or not above 0, which stands for "not set"."""
        found = self.number(*keys)
        return None if found is None or found < 1 else round(found)

    def positive(self, *keys: str) -> float:
        """A number above 0.

        Raises:
            ConfigError: If there is none, or it is absurdly large.
        """
        found = self.number(*keys)
        if found is None or found <= 0:
            raise ConfigError(
                f"{self.where}: {'.'.join(keys)}={self.value(*keys)!r}: a row needs a number above 0 there"
            )
        if found > MAX_NEEDED:
            raise self._too_large(MAX_NEEDED, *keys)
        return found

    def positive_count(self, *keys: str) -> int:
        """A count above 0.

        Raises:
            ConfigError: If there is none, it is no whole number, or absurdly large.
        """
        found = self.positive(*keys)
        if found != round(found):
            raise ConfigError(f"{self.where}: {'.'.join(keys)}={found:g}: is a count, and no whole number")
        return round(found)

    def positive_ns(self, *keys: str) -> int:
        """Nanoseconds since 1970, whole.

        Raises:
            ConfigError: If there are none.
        """
        found = self.value(*keys)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < MAX_NS:
            raise ConfigError(f"{self.where}: {'.'.join(keys)}={found!r}: a request needs its nanoseconds since 1970")
        return found
