"""What conf/ composes to, checked value by value with pydantic: one frozen Study."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.compose import compose_conf, conf_dir, groups, nearest
from pipeline.engine_config import EngineConfig, Scalar, Value, content_hash
from pipeline.errors import ConfigError
from pipeline.held import study_id
from pipeline.lengths import read_lengths
from pipeline.ranges import INTEGERS
from pipeline.study import Plan, Study, check_metered
from pipeline.workload import CONCURRENCY_GRID

T = TypeVar("T")

AXES = {
    "precision": ("weights", "kv_cache"),
    "parallelism": ("tp", "pp", "cp", "ep", "moe_tp", "attention_dp"),
    "batching": ("max_batch_size", "max_num_tokens", "kv_cache_fraction", "chunked_prefill"),
}
"""Conf groups whose keys are axes; `engine.knobs` is one too, with the engine's own names."""

_STUDY_KEYS = ("rig", "meter", "weights", "weights_seed", "calibration", "results_dir", "engines_dir")
_STUDY_GROUPS = ("model", "hardware", "workload", "slo", "plan", "search")


def load_study(overrides: Sequence[str]) -> Study:
    """Compose and check a study.

    Raises:
        ConfigError: For anything the user can mend; the message names key, value, what is allowed and the fix.
    """
    conf = compose_conf(overrides)
    if conf["space"]["name"] == "full" and conf["engine"]["name"] != "trtllm":
        raise ConfigError(
            f"space=full: is of engine=trtllm; engine={conf['engine']['name']} has all its knobs in space=default"
        )
    axes = _axes(conf, tuple(AXES))
    conf["workload"] = _workload(conf["workload"])
    engine = {key: value for key, value in conf["engine"].items() if key != "knobs"}
    fixed = {name: conf[name] for name in _STUDY_GROUPS}
    fixed |= {
        name: conf[name]
        for name in ("rig", "meter", "weights", "weights_seed", "results_dir", "engines_dir", "calibration")
    }
    fixed |= {"power": conf["power"]["name"], "launcher": conf["launcher"]["name"], "engine": engine, "axes": axes}
    fixed["disaggregation"] = _disaggregation(conf)
    if conf["rig"] == "modelled":
        fixed["weights"] = "none"
    if conf["baseline"] is not None:
        fixed["baseline"] = read_engine_config(Path(str(conf["baseline"])), str(engine["name"]))
    name = None if conf["study"] is None else str(conf["study"])
    if name is not None and not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(f"study={name!r}: use letters, digits, '.', '_' and '-' only; it names a folder")
    study = _validate(Study, {**fixed, "id": name or "unnamed"}, "")
    study = dataclasses.replace(study, plan=named(study.plan))
    _check_together(study)
    return study if name else dataclasses.replace(study, id=study_id(study))


def named(plan: Plan) -> Plan:
    """The plan, its name marked where a value is not that of conf/: its rows are not to be taken for the plan's.

    How often something is repeated changes no row, and no name.
    """
    if plan.name not in groups()["plan"]:
        return plan
    own = _validate(Plan, yaml.safe_load((conf_dir() / "plan" / f"{plan.name}.yaml").read_text("utf-8")), "")
    as_is = dataclasses.replace(plan, windows=own.windows, starts=own.starts)
    return (
        plan
        if as_is == own
        else dataclasses.replace(plan, name=f"{plan.name}-{content_hash(dataclasses.asdict(as_is))[:4]}")
    )


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
    check_metered(study)
    if plan.warmup_max_s < plan.warmup_s:
        raise ConfigError(f"plan.warmup_max_s={plan.warmup_max_s:g}: below plan.warmup_s={plan.warmup_s:g}; raise it")
    _check_power(study)
    load = study.workload
    shortest_tokens = round(load.isl_tokens * load.length_ratio_min)
    if load.shared_prefix_tokens and load.shared_prefix_tokens >= shortest_tokens:
        raise ConfigError(
            f"workload.shared_prefix_tokens={load.shared_prefix_tokens}: prompts must differ after it and the shortest "
            f"has {shortest_tokens} tokens; at most {shortest_tokens - 1}"
        )
    if plan.gates == "enforce" and plan.window_s < 3 * plan.block_s:
        raise ConfigError(
            f"plan.block_s={plan.block_s:g}: a window of plan.window_s={plan.window_s:g} needs three blocks to tell "
            f"drift and spread; at most {plan.window_s / 3:g}"
        )


def _check_power(study: Study) -> None:
    """Check the power state that the model is asked for.

    Raises:
        ConfigError: If it would have to be set on a device, or cannot be.
    """
    hardware = study.hardware
    if hardware.power_cap_w is None and hardware.sm_clock_share == 1:
        return
    key = "sm_clock_share" if hardware.power_cap_w is None else "power_cap_w"
    text = f"hardware.{key}={getattr(hardware, key):g}"
    if study.rig == "served":
        raise ConfigError(f"{text}: is of rig=modelled only, nothing here sets a device; leave it out")
    if hardware.power_cap_w is not None and hardware.sm_clock_share != 1:
        raise ConfigError(f"{text}: a cap chooses the clock itself; leave out hardware.sm_clock_share")
    if hardware.power_cap_w is not None and hardware.power_cap_w <= (hardware.idle_power_w or 0):
        raise ConfigError(f"{text}: a board draws hardware.idle_power_w={hardware.idle_power_w:g} doing nothing")


def read_engine_config(path: Path, engine: str, key: str = "baseline") -> EngineConfig:
    """Read an engine config from YAML: the groups precision, parallelism, batching, and engine: {knobs: ...}.

    Args:
        path: The file.
        engine: Name of the engine that it is for.
        key: What named the file, for messages.

    Raises:
        ConfigError: If the file is missing, is not a mapping, or holds an unknown key or a value of the wrong type.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{key}={path}: cannot be read ({why}); give a YAML file") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{key}={path}: holds no mapping; write e.g. 'precision: {{weights: bf16}}'")
    own = data.pop("engine", None) or {}
    unknown = sorted(map(str, data.keys() - AXES.keys()))
    if unknown or not isinstance(own, dict) or own.keys() - {"knobs"}:
        wrong = unknown[0] if unknown else "engine"
        raise ConfigError(f"{key}={path}: {wrong}: allowed are {', '.join(AXES)} and engine: {{knobs: {{...}}}}")
    knobs = own.get("knobs") or {}
    if isinstance(knobs, dict):
        knobs = {name.removeprefix("engine.knobs."): value for name, value in _flat("engine.knobs", knobs)}
    return _validate(EngineConfig, {"engine": engine, "knobs": knobs, **data}, f"{key}={path}: ")


def _disaggregation(conf: dict[str, Any]) -> dict[str, Any] | None:
    """The group disaggregation with the axes of each kind of server; None where one server does both phases.

    Raises:
        ConfigError: If the engine has no such thing, or an axis is unknown or has a wrong value.
    """
    split = conf["disaggregation"]
    if len(split) > 1 and (split["name"] == "none" or conf["engine"]["name"] != "trtllm"):
        raise ConfigError("disaggregation: is of engine=trtllm disaggregation=split; give both, or leave it out")
    own = dict[str, Any]()
    for kind in sorted(split.keys() & {"context", "generation"}):
        try:
            own[kind] = _axes(split[kind] | {"engine": split[kind]}, ("parallelism", "batching"))
        except ConfigError as error:
            raise ConfigError(f"disaggregation.{kind}: {error}") from error
    return split | own if own else None


def _axes(conf: dict[str, Any], in_groups: Sequence[str]) -> dict[str, tuple[Value | None, ...]]:
    axes: dict[str, tuple[Value | None, ...]] = {}
    for group in in_groups:
        names = AXES[group]
        unknown = sorted(set(conf[group]) - set(names))
        if unknown:
            raise ConfigError(
                f"{group}.{unknown[0]}: no such axis{nearest(unknown[0], names)}; allowed: {', '.join(names)}"
            )
        axes |= {f"{group}.{name}": _axis(f"{group}.{name}", conf[group].get(name)) for name in names}
    knobs = conf["engine"].get("knobs") or {}
    if not isinstance(knobs, dict):
        raise ConfigError(f"engine.knobs={knobs!r}: holds knobs by name; write engine.knobs.NAME=VALUE")
    return axes | {name: _axis(name, value) for name, value in _flat("engine.knobs", knobs)}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names: knobs may be paths into an engine's own file."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, value


def _axis(key: str, value: Any) -> tuple[Value | None, ...]:
    """The values of an axis; a list within the list is one value of a knob that takes lists.

    Raises:
        ConfigError: If there is none, one is given twice, or one is of the wrong type.
    """
    values = [tuple(item) if isinstance(item, list) else item for item in value] if isinstance(value, list) else [value]
    if not values:
        raise ConfigError(f"{key}=[]: an axis needs at least one value; write {key}=VALUE, {key}=[A,B] or {key}=null")
    for item in values:
        parts = item if isinstance(item, tuple) and key.startswith("engine.knobs.") else (item,)
        if not all(isinstance(part, Scalar) or (part is None and parts == (None,)) for part in parts):
            shown = list(item) if isinstance(item, tuple) else item
            raise ConfigError(f"{key}={shown!r}: a value of an axis is a number, a word, true, false or null")
        _check_axis_value(key, item)
    if key.rpartition(".")[2] in INTEGERS and not key.startswith("engine.knobs."):
        values = [int(item) if isinstance(item, float) else item for item in values]  # 64.0, which passed the check
    if len(set(map(repr, values))) != len(values):
        raise ConfigError(f"{key}={value}: a value is given twice; give each once")
    return tuple(values)


def _check_axis_value(key: str, value: Value | None) -> None:
    if key == "precision.weights" and value is None:
        raise ConfigError("precision.weights=null: no engine has a default; name a format, e.g. bf16")
    try:
        EngineConfig.from_axes("any", {"precision.weights": "any", key: value})
    except ValidationError as error:
        raise ConfigError(f"{key}={value!r}: {error.errors()[0]['msg']}") from error


def _workload(load: dict[str, Any]) -> dict[str, Any]:
    """A workload with its ladder checked and what its file of lengths says filled in.

    Raises:
        ConfigError: If the loads do not fit the arrival, or the file cannot be read.
    """
    arrival, path = load["arrival"], load["lengths_file"]
    load = load | {"request_rate_per_s": _rates(load["request_rate_per_s"], arrival)}
    load["concurrency"] = _ladder(load["concurrency"]) if arrival == "closed" else []
    if path is None and arrival != "schedule":
        return load
    if path is None:
        raise ConfigError("workload.arrival=schedule: needs workload.lengths_file=FILE.csv with at_s for every request")
    lengths = read_lengths(Path(str(path)))
    if arrival == "schedule" and lengths.at_s is None:
        raise ConfigError(f"workload.lengths_file={path}: has no column at_s, which workload.arrival=schedule sends by")
    isl_tokens, osl_tokens = zip(*lengths.pairs, strict=True)
    ratio = min(isl_tokens) / max(isl_tokens)
    longest = {"isl_tokens": max(isl_tokens), "osl_tokens": max(osl_tokens), "length_ratio_min": ratio}
    return load | longest | {"lengths_sha256": lengths.sha256}


def _rates(given: Any, arrival: str) -> list[float]:
    rates: list[float] = given if isinstance(given, list) else [given]
    if arrival != "poisson" and rates:
        raise ConfigError(f"workload.request_rate_per_s={rates}: only for workload.arrival=poisson; it is {arrival}")
    if arrival == "poisson" and not (rates and all(map(_is_positive, rates)) and rates == sorted(set(rates))):
        raise ConfigError(
            f"workload.request_rate_per_s={rates}: workload.arrival=poisson climbs a ladder of rates above 0; "
            "write e.g. [1,2,4]"
        )
    return rates


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


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


def _validate(kind: type[T], data: dict[str, Any], prefix: str) -> T:
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        given = "" if isinstance(first["input"], dict) else f"={first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")  # pydantic's, before our own
        raise ConfigError(f"{prefix}{key}{given}: {message}") from error
