"""Columns from the fields of a dataclass: the Arrow schema, checks and conversion of a record.

Absent is null, never 0. Units are in the names: `_s`, `_j`, `_w`, `_tokens`, `_c` (degrees Celsius), `_mhz`; a ratio
has none.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self, TypeVar, cast

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.vocabulary import RENAMED_REASONS, Reason

SCHEMA_VERSION = 5
"""History: 1, the first (2026-11). 2 (2026-11): open loops (concurrency may be null), reasons of their own for heat and
power brake, the engine's own counters, the host, bounds on latencies; rows of version 1 are read with these null. 3
(2026-11): rows of other tools, the engine's own account of energy. 4 (2026-11): a trial may end as pruned. 5
(2026-11): imported rows name their tool, and may be of the facility; whether a start found an autotuner's cache."""


def column(meaning: str, **kwargs: Any) -> Any:
    """A dataclass field that carries what its column means."""
    return dataclasses.field(metadata={"meaning": meaning}, **kwargs)


F = TypeVar("F", bound=Callable[..., Any])


def _kept(of_kind: F) -> F:
    """Ask once for each kind of record: all records ask, and it takes milliseconds. mypy holds classes unhashable."""
    return cast("F", functools.cache(of_kind))


class Record:
    """What Row and Trial share: an Arrow schema, checks, and conversion, all derived from the fields."""

    @classmethod
    def schema(cls) -> pa.Schema:
        """The Arrow schema; its metadata carries the schema version and the kind of record."""
        fields = [pa.field(name, arrow, nullable) for name, arrow, nullable, _ in cls.columns()]
        return pa.schema(fields, {"schema_version": str(SCHEMA_VERSION), "record": cls.__name__.lower()})

    @classmethod
    def columns(cls) -> tuple[tuple[str, pa.DataType, bool, str], ...]:
        """Name, Arrow type, nullability and meaning of every column, in order."""
        return tuple((field.name, *arrow_type(hint), field.metadata["meaning"]) for field, hint in _fields(cls))

    def to_dict(self) -> dict[str, Any]:
        """Plain column values.

        Raises:
            StoreError: If a number is NaN or infinite, or a column that must be set is null.
        """
        values = {}
        required = _required(type(self))
        for name in _restorers(type(self)):
            value = getattr(self, name)
            if value is None and name in required:
                raise StoreError(f"column {name} must be set")
            if isinstance(value, float) and not math.isfinite(value):
                raise StoreError(f"column {name} is {value}; absent is null, never NaN or infinite")
            values[name] = [str(v) for v in value] if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build a record from stored columns; columns unknown to this version are left out.

        Raises:
            StoreError: If a column that must be set is null or missing.
            ValueError: If a value is none of its enum's.
        """
        restorers = _restorers(cls)
        for name, has_default in _required(cls).items():
            if values.get(name) is None if name in values else not has_default:
                raise StoreError(f"column {name} must be set")
        return cls(
            **{
                name: value if value is None or (restore := restorers[name]) is None else restore(value)
                for name, value in values.items()
                if name in restorers
            }
        )


_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def arrow_type(hint: Any) -> tuple[pa.DataType, bool]:
    """Arrow type and nullability of a field's type hint."""
    if isinstance(hint, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        return arrow_type(inner)[0], True
    if typing.get_origin(hint) is tuple:
        return pa.list_(pa.string()), False
    return (pa.string() if issubclass(hint, StrEnum) else _ARROW[hint]), False


@_kept
def _fields(kind: Any) -> tuple[tuple[dataclasses.Field[Any], Any], ...]:
    """The fields of a record with their type hints."""
    hints = typing.get_type_hints(kind)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(kind))


@_kept
def _required(kind: Any) -> dict[str, bool]:
    """Columns that must be set, and whether a file may lack them: what came later has a default."""
    return {
        field.name: field.default is not dataclasses.MISSING for field, hint in _fields(kind) if not arrow_type(hint)[1]
    }


@_kept
def _restorers(kind: Any) -> dict[str, Callable[[Any], Any] | None]:
    """How a stored value of each column becomes its field's again; None where it is that already."""
    return {field.name: _restorer(hint) for field, hint in _fields(kind)}


def _restorer(hint: Any) -> Callable[[Any], Any] | None:
    """Enums and tuples come back from strings and lists."""
    if isinstance(hint, types.UnionType):
        return _restorer(next(arg for arg in typing.get_args(hint) if arg is not types.NoneType))
    if typing.get_origin(hint) is tuple:
        restore = _restorer(typing.get_args(hint)[0])
        return tuple if restore is None else lambda value: tuple(map(restore, value))
    if hint is Reason:
        return lambda value: Reason(RENAMED_REASONS.get(value, value))
    return hint if isinstance(hint, type) and issubclass(hint, StrEnum) else None


def markdown_table(kind: type[Record]) -> str:
    """The columns of a record as a Markdown table, for docs/columns.md."""
    lines = ["| column | type | null | meaning |", "|---|---|---|---|"]
    lines += [f"| `{n}` | {t} | {'yes' if null else 'no'} | {m} |" for n, t, null, m in kind.columns()]
    return "\n".join(lines)
