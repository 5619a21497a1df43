"""TensorRT-LLM's TorchLlmArgs as a pydantic model, built from its list of arguments.

Like the real one it refuses unknown keys at every level and unknown values, and its errors are pydantic's own. What it
does not know: most rules between fields, and which variant of a union a key belongs to.
"""

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union

from annotated_types import Ge, Gt
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

ARGUMENTS = Path(__file__).parents[4] / "pipeline" / "engine" / "trtllm" / "data" / "llm_args.tsv"
"""Path, type, words, and the versions between which a release takes it."""

TYPES: dict[str, Any] = {
    "bool": bool, "int": int, "int>0": Annotated[int, Gt(0)], "int>=0": Annotated[int, Ge(0)], "float": float,
    "str": str, "dict": dict[str, Any], "none": None, "any": Any,
}  # fmt: skip


class StrictBaseModel(BaseModel):
    """Every level of the arguments."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class TopLevel(StrictBaseModel):
    """A rule between fields that costs a start where it is broken."""

    @model_validator(mode="after")
    def check_graph_sizes(self) -> Self:
        """Source: CudaGraphConfig in tensorrt_llm/llmapi/llm_args.py.

        Raises:
            ValueError: If the sizes and their maximum contradict each other.
        """
        graphs = self.model_dump().get("cuda_graph_config") or {}
        sizes, largest = graphs.get("batch_sizes"), graphs.get("max_batch_size")
        if sizes and largest and max(sizes) != largest:
            raise ValueError(f"cuda_graph_config: max_batch_size {largest} is not the largest of batch_sizes {sizes}")
        return self


@cache
def torch_llm_args(version: str, absent_keys: tuple[str, ...] = ()) -> type[BaseModel]:
    """The model of a version, without some of its keys."""
    rows = {row["path"]: row for row in _rows(Version(version)) if row["path"] not in absent_keys}
    return _model("", rows, TopLevel)


def _rows(version: Version) -> Iterator[dict[str, str]]:
    """What a version has."""
    lines = [line for line in ARGUMENTS.read_text("utf-8").splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines, delimiter="\t"):
        is_there = not row["since"] or version >= Version(row["since"])
        if is_there and not (row["until"] and version >= Version(row["until"])):
            yield row


def _model(group: str, rows: dict[str, dict[str, str]], base: type[BaseModel] = StrictBaseModel) -> type[BaseModel]:
    """The keys of a group; that of the top level has no name."""
    fields: dict[str, Any] = {}
    for path, row in rows.items():
        above, _, name = path.rpartition(".")
        if above == group:
            kinds = [_type(kind, path, rows) for kind in row["type"].split("|")]
            fields[name] = (Union[tuple(kinds)], Field(default=None))  # noqa: UP007  # made of a list
    return create_model(group or "TorchLlmArgs", __base__=base, **fields)


def _type(kind: str, path: str, rows: dict[str, dict[str, str]]) -> Any:
    if kind == "group":
        return _model(path, rows)
    if kind == "literal":
        return Literal[tuple(rows[path]["words"].split(","))]
    if kind.startswith("list["):
        return list[_type(kind[5:-1], path, rows)]  # type: ignore[misc]  # made as we go
    return TYPES[kind]
