"""Recipe folders for tests: NVIDIA's own, and small ones made up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parents[2] / "data" / "trtllm_recipes"
CONFIGS = RECIPES / "examples" / "configs"
RECIPE_FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.name != "lookup.yaml")

ARGS = {"tensor_parallel_size": 1, "max_batch_size": 64}
"""Content of a made-up recipe."""


def database_row(**columns: Any) -> dict[str, Any]:
    """A row of database/lookup.yaml for gpt-oss-120b on eight H200."""
    row = {
        "model": "openai/gpt-oss-120b", "arch": "GptOssForCausalLM", "gpu": "H200_SXM", "isl": 1024, "osl": 1024,
        "concurrency": 64, "config_path": "examples/configs/database/a.yaml", "num_gpus": 1,
    }  # fmt: skip
    return row | columns


def curated_row(**columns: Any) -> dict[str, Any]:
    """A row of curated/lookup.yaml for gpt-oss-120b on any GPU."""
    row = {"model": "openai/gpt-oss-120b", "arch": "GptOssForCausalLM", "gpu_compatibility": "Any"}
    return row | {"config_path": "examples/configs/curated/a.yaml", "scenario": "Max Throughput"} | columns


def make_folder(
    folder: Path,
    database: Sequence[Mapping[str, Any]] = (),
    curated: Sequence[Mapping[str, Any]] = (),
    args: Mapping[str, Any] | None = None,
) -> Path:
    """Tables with these rows, and a file for every row that names one; returns the folder."""
    for name, rows in (("database", database), ("curated", curated)):
        if rows:
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "lookup.yaml").write_text(yaml.safe_dump([dict(row) for row in rows]))
        for row in rows:
            path = folder / str(row["config_path"]).removeprefix("examples/configs/")
            path.write_text(yaml.safe_dump(dict(ARGS if args is None else args)))
    return folder
