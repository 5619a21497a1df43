"""The command line of `trtllm-serve`, from options.tsv, and how it goes together with the YAML file."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

OPTIONS = Path(__file__).with_name("options.tsv")
"""Option, aliases, type, default, status and the key it sets. Source: tensorrt_llm/commands/serve.py of mid-2026."""

SUB_COMMANDS = ("disaggregated", "disaggregated_mpi_worker", "embeddings", "mm_embedding_serve")
"""Besides `serve`, which may be left out."""

LOG_LEVELS = ("internal_error", "error", "warning", "info", "verbose", "debug")


def rows() -> list[dict[str, str]]:
    """The options, the model left out."""
    with OPTIONS.open(newline="") as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if row["option"].startswith("--")]


def command(serve: Callable[[str, dict[str, Any], dict[str, Any]], None]) -> click.Command:
    """`trtllm-serve`; calls `serve(model, options, typed)`, `typed` being keys of the YAML file."""

    def callback(model: str, **options: Any) -> None:
        context = click.get_current_context()
        typed: dict[str, Any] = {}
        for row in rows():
            name = _parameter_name(row)
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and row["llm_args_key"]:
                key, value = row["llm_args_key"], options[name]
                if key == "telemetry_config.disabled (inverted)":
                    key, value = "telemetry_config.disabled", not value
                if "(" not in key:
                    group, _, last = key.rpartition(".")
                    (typed.setdefault(group, {}) if group else typed)[last] = value
        serve(model, options, typed)

    params: list[click.Parameter] = [click.Argument(["model"]), *(_option(row) for row in rows())]
    return click.Command("serve", callback=callback, params=params)


def run(argv: list[str], serve: Callable[[str, dict[str, Any], dict[str, Any]], None]) -> None:
    """Run a command line; click ends the process with status 2 where it is wrong."""
    if argv and argv[0] in SUB_COMMANDS:
        raise SystemExit(f"the stand-in has no `trtllm-serve {argv[0]}`")
    command(serve).main(argv[1:] if argv[:1] == ["serve"] else argv, prog_name="trtllm-serve")


def merge(typed: Mapping[str, Any], config: str | None, *, cli_wins: bool) -> dict[str, Any]:
    """The arguments that typed options and a YAML file make together, groups joined key by key.

    Only `kv_cache_config` is joined so by the real one; no option sets a part of another group that a file of ours has.

    Raises:
        ValueError: If the file is not there, or holds no mapping.
    """
    try:
        read = yaml.safe_load(Path(config).read_text()) if config else None
    except OSError as error:
        raise ValueError(f"--config {config}: {error.strerror}") from error
    if read is not None and not isinstance(read, dict):
        raise ValueError(f"--config {config}: not a mapping")
    weak, strong = (read or {}, typed) if cli_wins else (typed, read or {})
    merged = dict(weak)
    for key, value in strong.items():
        below = merged.get(key)
        merged[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _parameter_name(row: Mapping[str, str]) -> str:
    return row["option"].split("/")[0].removeprefix("--")


def _option(row: Mapping[str, str]) -> click.Option:
    aliases = [word for word in row["aliases"].replace("(deprecated)", "").split() if word.startswith("--")]
    names = [row["option"], *aliases, _parameter_name(row)]
    kind, default = row["type"], row["default"].split(" ")[0]
    if kind.startswith("flag"):
        return click.Option(names, is_flag=True, default=default == "True")
    types: dict[str, Any] = {"int": int, "float": float, "str": str, "path,": str}
    first = kind.split(" ")[0]
    if first == "choice" and "registry" not in kind:
        listed = kind.removeprefix("choice").split("(")[0].strip()
        found: Any = click.Choice(listed.split(",") if listed else LOG_LEVELS)
    elif ">=1" in kind:
        found = click.IntRange(min=1)
    else:
        found = types.get(first.rstrip(",") if first != "path," else first, str)
    return click.Option(names, type=found, default=None if default == "None" else default or None,
                        multiple="multiple" in kind)  # fmt: skip
