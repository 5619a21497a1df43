"""NVIDIA's tuned recipes, as listed in the two tables of TensorRT-LLM's examples/configs.

`database/lookup.yaml` says for each recipe model, GPU, lengths, concurrency and number of GPUs; `curated/lookup.yaml`
says model and which GPUs it suits. A row names a YAML file of arguments of `trtllm-serve --config`.
Source: examples/configs/database/database.py, class Recipe (validated_trtllm_* and profile came in 2026) and class
CuratedRecipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from pipeline.errors import ConfigError

PLACES = (".", "examples/configs", "configs", "..", "TensorRT-LLM/examples/configs", "tensorrt_llm/examples/configs",
          "app/tensorrt_llm/examples/configs")  # fmt: skip
"""Where the two tables may be, from the folder that was given: it itself, a clone, NVIDIA's container, one level up."""

TABLES = ("database/lookup.yaml", "curated/lookup.yaml")

PREFIX = "examples/configs/"
"""The tables name files from the root of the repository."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The table has thousands of lines: a second by the loader in Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One recipe: a row of a table, and where its file should be.

    Attributes:
        name: Path of the file below examples/configs.
        path: The file, which may be missing.
        model: Hugging Face repository of the checkpoint.
        gpus: GPUs it is for, by the names of the table it is from; None is any.
        isl_tokens: Nominal input length; this and the next three are None in a curated one.
        osl_tokens: Nominal output length.
        concurrency: Requests in flight that it was tuned for.
        num_gpus: GPUs that it takes.
        profile: latency, balanced or throughput, where several recipes are for the same load.
        validated_version: TensorRT-LLM version that it was last checked with, where the table says so.
        disagg: Whether it is one half of disaggregated serving.
    """

    name: str
    path: Path
    model: str
    gpus: tuple[str, ...] | None
    isl_tokens: int | None = None
    osl_tokens: int | None = None
    concurrency: int | None = None
    num_gpus: int | None = None
    profile: str | None = None
    validated_version: str | None = None
    disagg: bool = False


_ROW = ConfigDict(extra="ignore")


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_ROW)
class _DatabaseRow:
    model: str
    gpu: str
    isl: int = Field(gt=0)
    osl: int = Field(gt=0)
    concurrency: int = Field(gt=0)
    config_path: str
    num_gpus: int = Field(gt=0)
    arch: str | None = None
    profile: Literal["latency", "balanced", "throughput"] | None = None
    validated_trtllm_commit: str | None = None
    validated_trtllm_version: str | None = None


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_ROW)
class _CuratedRow:
    model: str
    config_path: str
    arch: str | None = None
    scenario: str = ""
    gpu_compatibility: str = "Any"
    disagg: bool = False


R = TypeVar("R", _DatabaseRow, _CuratedRow)


def read_folder(given: Path) -> tuple[list[Recipe], list[str]]:
    """Read the tables of a recipe folder.

    Args:
        given: TensorRT-LLM's examples/configs, or a tree that has it at one of PLACES.

    Returns:
        The recipes in the order of the tables, database first; and what was left out of account.

    Raises:
        ConfigError: If there is no table, or one is not as it should be.
    """
    found = (given / place for place in PLACES)
    root = next((folder for folder in found if any((folder / table).is_file() for table in TABLES)), None)
    if root is None:
        why = f"holds none of {', '.join(TABLES)}" if given.is_dir() else "no such folder"
        raise ConfigError(
            f"search.recipes={given}: {why}; give the folder examples/configs of TensorRT-LLM, a clone, or "
            "/app/tensorrt_llm of its container"
        )
    recipes, notes = [], list[str]()
    if (table := root / "database/lookup.yaml").is_file():
        recipes += [_database(row, root, table) for row in _rows(table, _DatabaseRow, notes)]
    if (table := root / "curated/lookup.yaml").is_file():
        recipes += [_curated(row, root, table) for row in _rows(table, _CuratedRow, notes)]
    return recipes, notes


def read_args(recipe: Recipe) -> dict[str, Any]:
    """The content of a recipe's file: arguments of `trtllm-serve --config`.

    Raises:
        ConfigError: If it cannot be read, or holds no mapping with words for keys.
    """
    args = _read(recipe.path)
    if not isinstance(args, dict) or not all(isinstance(key, str) for key in args):
        raise ConfigError(f"{recipe.path}: a recipe maps names of arguments to values; this holds {_kind(args)}")
    return args


def _rows(table: Path, kind: type[R], notes: list[str]) -> list[R]:
    """The rows of a table; columns that we do not know are named in the notes.

    Raises:
        ConfigError: If it is not a list of rows with the columns that it must have.
    """
    data = _read(table)
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ConfigError(f"{table}: a table of recipes is a list of mappings; this holds {_kind(data)}")
    known = {field.name for field in fields(kind)}
    if unknown := sorted({str(key) for row in data for key in row} - known):
        notes.append(f"{table}: not taken into account: column {', '.join(unknown)}")
    adapter = TypeAdapter(kind)
    return [_row(adapter, row, f"{table}: row {number}") for number, row in enumerate(data, start=1)]


def _row(adapter: TypeAdapter[R], row: Mapping[str, object], where: str) -> R:
    try:
        return adapter.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}; mend or drop it") from error


def _database(row: _DatabaseRow, root: Path, table: Path) -> Recipe:
    name = _name(row.config_path, table)
    return Recipe(
        name=name, path=root / name, model=row.model, gpus=(row.gpu,), isl_tokens=row.isl, osl_tokens=row.osl,
        concurrency=row.concurrency, num_gpus=row.num_gpus, profile=row.profile,
        validated_version=row.validated_trtllm_version,
    )  # fmt: skip


def _curated(row: _CuratedRow, root: Path, table: Path) -> Recipe:
    name = _name(row.config_path, table)
    gpus = tuple(gpu.strip() for gpu in row.gpu_compatibility.split(",") if gpu.strip())
    is_any = not gpus or "any" in {gpu.lower() for gpu in gpus}
    return Recipe(name=name, path=root / name, model=row.model, gpus=None if is_any else gpus, disagg=row.disagg)


def _name(config_path: str, table: Path) -> str:
    path = PurePosixPath(config_path)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{table}: config_path={config_path}: must lie within the repository; mend or drop it")
    return str(path).removeprefix(PREFIX)


def _read(path: Path) -> object:
    try:
        return yaml.load(path.read_bytes(), _LOADER)  # noqa: S506  # a safe loader, both of them
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
