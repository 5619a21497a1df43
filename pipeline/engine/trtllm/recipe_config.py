"""A recipe as an engine config: what an axis owns goes there, every other argument is a knob of the same name.

A recipe is measured as it is. What it leaves out stands at TensorRT-LLM's default, but for what every config of ours
gets (llm_args.py): the workload's `max_seq_len`, no telemetry, and no reuse of KV blocks unless prompts share a prefix,
since the same prompts come again at each load and a hit would count as the recipe's doing.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.engine.trtllm.llm_args import AXES, DECODING_TYPE, ENV, GRAPHS
from pipeline.engine.trtllm.manifest import find_manifest
from pipeline.engine.trtllm.recipe_folder import Recipe, read_args
from pipeline.engine.trtllm.recipes import weights_of
from pipeline.engine.trtllm.versions import NEWEST, RENAMES, name_in
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.study import Study

FIXED = {"backend": "pytorch", "load_format": "auto"}
"""Arguments that we never pass on: the one value that they may have."""

REFUSED = {"kv_cache_free_gpu_memory_fraction": "kv_cache_config.free_gpu_memory_fraction"}
"""Keys of recipes of 2025 that no release with recipes takes, and their place: LlmArgs forbids unknown keys."""

ON_BY_DEFAULT = frozenset({GRAPHS, "kv_cache_config", "moe_config", "scheduler_config"})
"""Groups that are there whether named or not, so that an empty one says nothing. Source: llm_args.py, LlmArgs."""

_ENGINE_CONFIG = ("precision.", "parallelism.", "batching.")
"""Groups of axes that are fields of an EngineConfig."""

LARGEST_GRAPH = f"{GRAPHS}.max_batch_size"
"""Follows the batch size in a config of ours that pads and names no sizes; 0 is TensorRT-LLM's own choice. Source:
llm_args.py, CudaGraphConfig."""


def engine_config(recipe: Recipe, study: Study) -> EngineConfig:
    """The engine config that renders to the recipe's own arguments.

    Args:
        recipe: Of one of the study's checkpoints.
        study: Names the checkpoints, the version whose arguments count, and whether unknown ones pass.

    Raises:
        ConfigError: If its file cannot be read, or holds what TensorRT-LLM or an engine config cannot take; the message
            begins with the recipe's name.
    """
    weights = weights_of(recipe, study)
    if weights is None:
        raise ConfigError(f"{recipe.name}: is for {recipe.model}, which is no checkpoint of {study.model.name}")
    try:
        return _config(_renamed(_flat(read_args(recipe))), weights, study)
    except ConfigError as error:
        raise ConfigError(f"{recipe.name}: {error}") from error


def _config(args: Mapping[str, Value], weights: str, study: Study) -> EngineConfig:
    values: dict[str, Value | None] = {"precision.weights": weights}
    for key, value in {**_left_out(args), **args}.items():
        place = _place(key, value, args, study)
        if place is not None:
            values[place] = value
    if "parallelism.moe_tp" in values:  # TensorRT-LLM derives the one from the other: mapping.py, class Mapping
        values.setdefault("parallelism.ep", _quotient(values.get("parallelism.tp", 1), values["parallelism.moe_tp"]))
    try:
        return EngineConfig.from_axes("trtllm", values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']}") from error


def _place(key: str, value: Value, args: Mapping[str, Value], study: Study) -> str | None:
    """Where an argument goes in an engine config, by conf path; None where what is always served says it.

    Raises:
        ConfigError: If it has no place, or the study's version does not take it; names the nearest key, or what is
            allowed.
    """
    axis = AXES.get(key)
    if key in REFUSED:
        raise ConfigError(f"{key}: TensorRT-LLM refuses it by now; write {REFUSED[key]}={value}")
    if FIXED.get(key) == value:
        return None
    if axis is not None:
        if not axis.startswith(_ENGINE_CONFIG):
            raise ConfigError(f"{key}={value}: is set by {axis} here; leave it out")
        return axis
    is_off = key == GRAPHS and value is False
    if not (key.startswith(ENV) or is_off or study.engine.allow_unknown):
        version = study.engine.version or NEWEST
        problem = find_manifest(version).problem(name_in(version, key, args.get(DECODING_TYPE)), value)
        if problem is not None:
            raise ConfigError(f"{problem}; engine.allow_unknown=true passes it on")
    return f"engine.knobs.{key}"


def _left_out(args: Mapping[str, Value]) -> dict[str, Value]:
    """TensorRT-LLM's own largest graph where a recipe leaves it, and ours would follow the batch size."""
    is_open = args.get(f"{GRAPHS}.enable_padding") is True and f"{GRAPHS}.batch_sizes" not in args
    return {LARGEST_GRAPH: 0} if is_open and LARGEST_GRAPH not in args else {}


def _flat(group: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Arguments by dotted path, lists as tuples, and env_overrides under ENV.

    Raises:
        ConfigError: If a value has no place in an engine config.
    """
    flat: dict[str, Value] = {}
    for name, value in group.items():
        key = f"{prefix}{name}"
        if key == GRAPHS and value is None:
            flat[key] = False
        elif key == "env_overrides" and isinstance(value, dict):
            flat |= _flat(value, ENV)
        elif isinstance(value, dict) and value:
            flat |= _flat(value, f"{key}.")
        elif isinstance(value, list) and all(_is_scalar(item) for item in value):
            flat[key] = tuple(value)
        elif _is_scalar(value):
            flat[key] = str(value) if prefix == ENV else value  # as TensorRT-LLM makes them: llm_args.py, env_overrides
        elif not _says_nothing(key, value):
            raise ConfigError(f"{key}={value}: cannot be passed on; state a value, or leave the key out")
    return flat


def _renamed(args: Mapping[str, Value]) -> dict[str, Value]:
    """The same under the names of the newest release; the renderer knows what each release calls them.

    Raises:
        ConfigError: If an argument is there under both names.
    """
    decoding_type = args.get(DECODING_TYPE)
    names = {r.old: r.key for r in RENAMES if r.old in args and r.decoding_type in {None, decoding_type}}
    if both := [f"{old} and {key}" for old, key in names.items() if key in args]:
        raise ConfigError(f"{both[0]}: are one argument; leave one out")
    return {names.get(key, key): value for key, value in args.items()}


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float | str)


def _says_nothing(key: str, value: object) -> bool:
    """Whether this is what leaving the key out means: {} for a group that is there anyhow, null for one that is not."""
    return value == {} if key in ON_BY_DEFAULT else value is None and key.endswith("_config")


def _quotient(size: Value | None, part: Value | None) -> Value | None:
    return size // part if isinstance(size, int) and isinstance(part, int) and part > 0 and size % part == 0 else None
