"""Columns from the fields of a dataclass: the Arrow schema, checks and conversion of a record.

Absent is null, never 0. Units are in the names: `_s`, `_j`, `_w`, `_tokens`, `_c` (degrees Celsius), `_mhz`; a ratio
has none.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Self

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.vocabulary import RENAMED_REASONS, Reason

SCHEMA_VERSION = 3
"""History: 1, the first (2026-11). 2 (2026-11): open loops (concurrency may be null), reasons of their own for heat and
power brake, the engine's own counters, the host, bounds on latencies; rows of version 1 are read with these null."""


def column(meaning: str, **kwargs: Any) -> Any:
    """A dataclass field that carries what its column means."""
    return dataclasses.field(metadata={"meaning": meaning}, **kwargs)


_type_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)
"""Kept, because every record asks and it takes a millisecond."""


class Record:
    """What Row and Trial share: an Arrow schema, checks, and conversion, all derived from the fields."""

    @classmethod
    def schema(cls) -> pa.Schema:
        """The Arrow schema; its metadata carries the schema version and the kind of record."""
        fields = [pa.field(name, arrow, nullable) for name, arrow, nullable, _ in cls.columns()]
        return pa.schema(fields, {"schema_version": str(SCHEMA_VERSION), "record": cls.__name__.lower()})

    @classmethod
    def columns(cls) -> Iterator[tuple[str, pa.DataType, bool, str]]:
        """Name, Arrow type, nullability and meaning of every column, in order."""
        hints = _type_hints(cls)
        for item in dataclasses.fields(cls):  # type: ignore[arg-type]  # subclasses are dataclasses
            arrow, nullable = arrow_type(hints[item.name])
            yield item.name, arrow, nullable, item.metadata["meaning"]

    def to_dict(self) -> dict[str, Any]:
        """Plain column values.

        Raises:
            StoreError: If a number is NaN or infinite, or a column that must be set is null.
        """
        values = {}
        for name, _, nullable, _ in self.columns():
            value = getattr(self, name)
            if value is None and not nullable:
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
        hints = _type_hints(cls)
        required = {item.name for item in dataclasses.fields(cls) if item.default is dataclasses.MISSING}  # type: ignore[arg-type]  # subclasses are dataclasses
        names = [name for name, *_ in cls.columns() if name in values]
        for name, _, nullable, _ in cls.columns():
            if not nullable and (values.get(name) is None if name in values else name in required):
                raise StoreError(f"column {name} must be set")
        return cls(**{name: _restore(hints[name], values[name]) for name in names})


_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def arrow_type(hint: Any) -> tuple[pa.DataType, bool]:
    """Arrow type and nullability of a field's type hint."""
    if isinstance(hint, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        return arrow_type(inner)[0], True
    if typing.get_origin(hint) is tuple:
        return pa.list_(pa.string()), False
    return (pa.string() if issubclass(hint, StrEnum) else _ARROW[hint]), False


def _restore(hint: Any, value: Any) -> Any:
    """A stored value as its field's type: enums and tuples come back from strings and lists."""
    if value is None:
        return None
    if isinstance(hint, types.UnionType):
        return _restore(next(arg for arg in typing.get_args(hint) if arg is not types.NoneType), value)
    if typing.get_origin(hint) is tuple:
        return tuple(_restore(typing.get_args(hint)[0], item) for item in value)
    if hint is Reason:
        return Reason(RENAMED_REASONS.get(value, value))
    return hint(value) if isinstance(hint, type) and issubclass(hint, StrEnum) else value


def markdown_table(kind: type[Record]) -> str:
    """The columns of a record as a Markdown table, for docs/columns.md."""
    lines = ["| column | type | null | meaning |", "|---|---|---|---|"]
    lines += [f"| `{n}` | {t} | {'yes' if null else 'no'} | {m} |" for n, t, null, m in kind.columns()]
    return "\n".join(lines)
