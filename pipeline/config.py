"""Hydra in, one frozen Study out. The only file that sees OmegaConf.

Hydra composes conf/ with the user's overrides; overrides are checked first, so that a misspelt group, choice
or key is one line with the nearest match; pydantic then checks every value.
"""

import dataclasses
import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError
from pipeline.study import CONCURRENCY_GRID, EngineConfig, Scalar, Study, content_hash

T = TypeVar("T")

AXES = {
    "precision": ("weights", "kv_cache"),
    "parallelism": ("tp", "pp", "ep", "attention_dp"),
    "batching": ("max_batch_size", "max_num_tokens", "kv_cache_fraction", "chunked_prefill"),
}
"""Conf groups whose keys are axes; `engine.knobs` is one too, with the engine's own names."""

_FREE = ("engine.knobs.", "engine.env.", "model.hf_config.", "model.checkpoints.")
_STUDY_GROUPS = ("model", "hardware", "workload", "slo", "plan", "search")


def conf_dir() -> Path:
    """The conf/ folder: beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def groups() -> dict[str, list[str]]:
    """Every conf group with its choices."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def compose_conf(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose conf/ with overrides (`group=choice`, `some.key=value`) into plain data.

    Raises:
        ConfigError: If a group, a choice or a key is unknown, or an override cannot be parsed.
    """
    parsed = _parse(overrides)
    _check_choices(parsed)
    known = groups()
    choices = [text for text, o in zip(overrides, parsed, strict=True) if o.key_or_group in known]
    _check_keys(parsed, _compose(tuple(choices)))
    try:
        return cast("dict[str, Any]", OmegaConf.to_container(_compose(tuple(overrides)), resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot resolve the configuration: {' '.join(str(error).split())}") from error


def load_study(overrides: Sequence[str]) -> Study:
    """Compose and check a study.

    Raises:
        ConfigError: For anything the user can mend; the message names key, value, what is allowed and the fix.
    """
    conf = compose_conf(overrides)
    axes = _axes(conf)
    conf["workload"]["concurrency"] = _ladder(conf["workload"]["concurrency"])
    engine = {key: value for key, value in conf["engine"].items() if key != "knobs"}
    fixed = {name: conf[name] for name in _STUDY_GROUPS}
    fixed |= {name: conf[name] for name in ("rig", "meter", "weights", "results_dir", "engines_dir")}
    fixed |= {"power": conf["power"]["name"], "launcher": conf["launcher"]["name"], "engine": engine, "axes": axes}
    if conf["rig"] == "modelled":
        fixed["weights"] = "none"
    if conf["baseline"] is not None:
        fixed["baseline"] = read_engine_config(Path(str(conf["baseline"])), str(engine["name"]))
    name = None if conf["study"] is None else str(conf["study"])
    if name is not None and not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(f"study={name!r}: use letters, digits, '.', '_' and '-' only; it names a folder")
    study = _validate(Study, {**fixed, "id": name or "unnamed"}, "")
    _check_together(study)
    return study if name else _validate(Study, {**fixed, "id": _study_id(study)}, "")


def _check_together(study: Study) -> None:
    """Check what no single value shows.

    Raises:
        ConfigError: If values do not go together.
    """
    plan = study.plan
    if study.search.budget_trials < 1:
        raise ConfigError(
            f"search.budget_trials={study.search.budget_trials}: at least 1 trial is needed; give e.g. BUDGET=12"
        )
    if study.rig == "served" and study.weights == "none":
        raise ConfigError("weights=none: a server needs weights; allowed: checkpoint, random")
    if plan.warmup_max_s < plan.warmup_s:
        raise ConfigError(f"plan.warmup_max_s={plan.warmup_max_s:g}: below plan.warmup_s={plan.warmup_s:g}; raise it")
    if plan.gates == "enforce" and plan.window_s < 3 * plan.block_s:
        raise ConfigError(
            f"plan.block_s={plan.block_s:g}: a window of plan.window_s={plan.window_s:g} needs three blocks to tell "
            f"drift and spread; at most {plan.window_s / 3:g}"
        )


def read_engine_config(path: Path, engine: str) -> EngineConfig:
    """Read an engine config from YAML: the groups precision, parallelism, batching, and engine: {knobs: ...}.

    Raises:
        ConfigError: If the file is missing, is not a mapping, or holds an unknown key or a value of the wrong type.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"baseline={path}: cannot be read ({why}); give a YAML file") from error
    if not isinstance(data, dict):
        raise ConfigError(f"baseline={path}: holds no mapping; write e.g. 'precision: {{weights: bf16}}'")
    own = data.pop("engine", None) or {}
    unknown = sorted(map(str, data.keys() - AXES.keys()))
    if unknown or not isinstance(own, dict) or own.keys() - {"knobs"}:
        wrong = unknown[0] if unknown else "engine"
        raise ConfigError(f"baseline={path}: {wrong}: allowed are {', '.join(AXES)} and engine: {{knobs: {{...}}}}")
    return _validate(EngineConfig, {"engine": engine, "knobs": own.get("knobs") or {}, **data}, f"baseline={path}: ")


def nearest(word: str, allowed: Sequence[str]) -> str:
    """Ask "did you mean ...?" with the closest allowed word; empty where none is close."""
    match = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""


@functools.lru_cache(maxsize=64)  # a tenth of a second each; nobody changes what is returned
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3", job_name="tpw"):
            return compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot compose the configuration: {' '.join(str(error).split())}") from error


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser, parsed = OverridesParser.create(), list[Override]()
    for text in overrides:
        try:
            parsed += parser.parse_overrides([text])
        except HydraException as error:
            raise ConfigError(
                f"{text!r} is no override; write key=value, lists as key=[1,2], and quote what the shell would take"
            ) from error
    return parsed


def _check_choices(parsed: Sequence[Override]) -> None:
    known = groups()
    for override in parsed:
        group, text = override.key_or_group, override.input_line
        if override.is_sweep_override():
            raise ConfigError(f"{text}: one value is allowed; a list of values is written {group}=[A,B]")
        if override.is_delete() and not group.startswith(_FREE):
            raise ConfigError(f"{text}: cannot be taken away; give it another value")
        if group not in known:
            continue
        choice, options = override.value(), known[group]
        if str(choice) not in options:
            raise ConfigError(
                f"{group}={choice}: unknown{nearest(str(choice), options)}; allowed: {', '.join(options)}"
            )


def _check_keys(parsed: Sequence[Override], conf: DictConfig) -> None:
    known = groups()
    plain = OmegaConf.to_container(conf, resolve=False)
    keys = list(_flat_keys(plain))
    for override in parsed:
        key = override.key_or_group
        if key in known or key in keys or key.startswith("hydra"):
            continue
        if override.is_add() and key.startswith(_FREE):
            continue
        allowed = (
            sorted({k.split(".")[0] for k in keys})
            if "." not in key
            else [k for k in keys if k.startswith(key.split(".")[0] + ".")]
        )
        hint = f"; to add one, write +{key}={override.value()}" if key.startswith(_FREE) else ""
        shown = ", ".join(allowed[:24]) or ", ".join(sorted({k.split(".")[0] for k in keys}))
        raise ConfigError(f"{key}: unknown key{nearest(key, keys)}; allowed: {shown}{hint}")


def _flat_keys(value: Any, prefix: str = "") -> Any:
    for key, item in value.items():
        yield prefix + str(key)
        if isinstance(item, dict):
            yield from _flat_keys(item, f"{prefix}{key}.")


def _axes(conf: dict[str, Any]) -> dict[str, tuple[Scalar | None, ...]]:
    axes: dict[str, tuple[Scalar | None, ...]] = {}
    for group, names in AXES.items():
        unknown = sorted(set(conf[group]) - set(names))
        if unknown:
            raise ConfigError(
                f"{group}.{unknown[0]}: no such axis{nearest(unknown[0], names)}; allowed: {', '.join(names)}"
            )
        axes |= {f"{group}.{name}": _axis(f"{group}.{name}", conf[group].get(name)) for name in names}
    knobs = conf["engine"].get("knobs") or {}
    if not isinstance(knobs, dict):
        raise ConfigError(f"engine.knobs={knobs!r}: holds knobs by name; write engine.knobs.NAME=VALUE")
    axes |= {f"engine.knobs.{name}": _axis(f"engine.knobs.{name}", value) for name, value in knobs.items()}
    return axes


def _axis(key: str, value: Any) -> tuple[Scalar | None, ...]:
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values:
        raise ConfigError(f"{key}=[]: an axis needs at least one value; write {key}=VALUE, {key}=[A,B] or {key}=null")
    for item in values:
        if item is not None and not isinstance(item, (bool, int, float, str)):
            raise ConfigError(f"{key}={item!r}: a value of an axis is a number, a word, true, false or null")
        _check_axis_value(key, item)
    if len(set(map(repr, values))) != len(values):
        raise ConfigError(f"{key}={list(values)}: a value is given twice; give each once")
    return values


def _check_axis_value(key: str, value: Scalar | None) -> None:
    if key == "precision.weights" and value is None:
        raise ConfigError("precision.weights=null: no engine has a default; name a format, e.g. bf16")
    try:
        EngineConfig.from_axes("any", {"precision.weights": "any", key: value})
    except ValidationError as error:
        raise ConfigError(f"{key}={value!r}: {error.errors()[0]['msg']}") from error


def _ladder(concurrency: Any) -> list[int]:
    values = concurrency if isinstance(concurrency, list) else [concurrency]
    if not values:
        raise ConfigError("workload.concurrency=[]: the ladder needs at least one load; write e.g. [1,4,16,64]")
    for value in values:
        if type(value) is not int or value not in CONCURRENCY_GRID:
            numeric = [g for g in CONCURRENCY_GRID if isinstance(value, int)]
            close = min(numeric, key=lambda g: abs(g - value)) if numeric else 1
            raise ConfigError(
                f"workload.concurrency: {value!r} is not on the grid 1, 2, 3, 4, 6, 8, 12, 16, 24 ... "
                f"{CONCURRENCY_GRID[-1]} that lets rows of different studies join; use {close}"
            )
    if values != sorted(set(values)):
        raise ConfigError(f"workload.concurrency={values}: a ladder is climbed; write {sorted(set(values))}")
    return values


def held(study: Study) -> dict[str, object]:
    """What all rows of one study share, by conf path; the rest may change from one run to the next."""
    hardware, workload, plan = study.hardware, dataclasses.asdict(study.workload), dataclasses.asdict(study.plan)
    return {
        "model.name": study.model.name,
        "model.path": study.model.path,
        "weights": study.weights,
        "hardware.name": hardware.name,
        "hardware.num_gpus": hardware.num_gpus,
        "hardware.declared_idle_w": hardware.declared_idle_w,
        "hardware.declared_busy_w_per_core": hardware.declared_busy_w_per_core,
        "engine.name": study.engine.name,
        "engine.env": study.engine.env,
        "rig": study.rig,
        "meter": study.meter,
        **{f"workload.{name}": value for name, value in workload.items() if name != "source"},
        **{f"plan.{name}": value for name, value in plan.items()},
    }


def _study_id(study: Study) -> str:
    """Name a study after what it holds fixed, so that the same command finds its rows again."""
    name = "_".join([study.model.name, study.hardware.name, study.engine.name, study.workload.name, study.plan.name])
    return f"{name}{'_modelled' if study.rig == 'modelled' else ''}-{content_hash(held(study))[:6]}"


def _validate(kind: type[T], data: dict[str, Any], prefix: str) -> T:
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        given = "" if isinstance(first["input"], dict) else f"={first['input']!r}"
        raise ConfigError(f"{prefix}{key}{given}: {first['msg']}") from error
