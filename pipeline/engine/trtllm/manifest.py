"""Which arguments a release of TensorRT-LLM takes, of which type, with which values: data/llm_args.tsv, by version.

A key that only some decoding type or sparse attention takes is listed once for all: what is wrong between fields is for
rules.py and the release's own check.
"""

import csv
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pipeline.compose import nearest
from pipeline.engine.trtllm.versions import NEWEST, is_before

_IS_A: dict[str, Callable[[object], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int,
    "int>0": lambda value: type(value) is int and value > 0,
    "int>=0": lambda value: type(value) is int and value >= 0,
    "float": lambda value: type(value) in {int, float},
    "str": lambda value: isinstance(value, str),
    "literal": lambda value: isinstance(value, str),
    "dict": lambda value: isinstance(value, Mapping),
    "group": lambda value: isinstance(value, Mapping),
    "none": lambda value: value is None,
    "any": lambda _: True,
}

_IN_WORDS = {
    "bool": "true or false", "int": "a whole number", "int>0": "a whole number from 1 on",
    "int>=0": "a whole number from 0 on", "float": "a number", "str": "a text", "dict": "a mapping",
    "group": "a group of keys", "none": "null", "any": "anything",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument: what it may be, as type names of data/llm_args.tsv, and the words it may be if they are listed."""

    types: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def is_group(self) -> bool:
        """Whether it only holds other arguments."""
        return "group" in self.types

    @property
    def is_open(self) -> bool:
        """Whether any key may lie below it."""
        return "dict" in self.types

    def takes(self, value: object) -> bool:
        """Whether a value is one of its types, and one of its words if it is a word."""
        return any(self._is(name, value) for name in self.types)

    def _is(self, name: str, value: object) -> bool:
        if name.startswith("list["):
            return isinstance(value, (list, tuple)) and all(self._is(name[5:-1], item) for item in value)
        return _IS_A[name](value) and (name != "literal" or value in self.words)

    def __str__(self) -> str:
        """What it takes, in words."""
        return " or ".join(self._in_words(name) for name in self.types)

    def _in_words(self, name: str) -> str:
        if name.startswith("list["):
            return f"a list, each item {self._in_words(name[5:-1])}"
        return ", ".join(self.words) if name == "literal" else _IN_WORDS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The arguments of one version by dotted path, groups and free-form ones included."""

    version: str
    arguments: Mapping[str, Argument]

    def __contains__(self, path: str) -> bool:
        """Whether the version has a key."""
        return self.find(path) is not None

    def find(self, path: str) -> Argument | None:
        """The argument at a path, or None; whatever lies within a free-form mapping may be anything."""
        argument = self.arguments.get(path)
        if argument is not None:
            return argument
        above = path.rpartition(".")[0]
        while above:
            if above in self.arguments:
                return Argument(types=("any",)) if self.arguments[above].is_open else None
            above = above.rpartition(".")[0]
        return None

    def problem(self, path: str, value: object) -> str | None:
        """Why a key or its value is not allowed, naming what is; or None."""
        argument = self.find(path)
        if argument is None:
            hint = nearest(path, tuple(self.arguments))
            return f"{path}: TensorRT-LLM {self.version} has no such key{hint}"
        return None if argument.takes(value) else f"{path}={_shown(value)}: allowed: {argument}"

    def problems(self, args: Mapping[str, Any]) -> list[str]:
        """Everything that is wrong with a file's content."""
        return list(self._problems(args, ""))

    def _problems(self, args: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in args.items():
            path = f"{prefix}{key}"
            argument = self.find(path)
            if argument is not None and argument.is_group and isinstance(value, Mapping):
                yield from self._problems(value, f"{path}.")
            elif (problem := self.problem(path, value)) is not None:
                yield problem


@functools.cache
def find_manifest(version: str | None) -> Manifest:
    """The arguments of a version, the newest known one if None: a version that is not listed has those of the last
    listed one before it, or of the first.

    Raises:
        ConfigError: If it is no version.
    """
    named = version or NEWEST
    known = {
        row["path"]: Argument(types=tuple(row["type"].split("|")), words=tuple(filter(None, row["words"].split(","))))
        for row in _rows()
        if not (row["since"] and is_before(named, row["since"]))
        and not (row["until"] and not is_before(named, row["until"]))
    }
    return Manifest(version=named, arguments=known)


@functools.cache
def every_argument() -> Manifest:
    """The arguments that any known release has had; types are those of the last that did."""
    known = {row["path"]: Argument(types=tuple(row["type"].split("|"))) for row in _rows()}
    return Manifest(version="of any version", arguments=known)


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    text = (resources.files("pipeline.engine.trtllm") / "data" / "llm_args.tsv").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return tuple(csv.DictReader(lines, delimiter="\t"))


def _shown(value: object) -> str:
    """A value as a file would write it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
