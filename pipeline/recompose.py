"""A stored study as the overrides that compose it again: the command line that goes on with it."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from pipeline.compose import compose_conf, groups
from pipeline.config import load_study
from pipeline.errors import ConfigError
from pipeline.held import held
from pipeline.study import Study

GROUPS = ("model", "hardware", "engine", "workload", "slo", "plan")
"""Conf groups whose choice a study's own names tell."""

SINGLE = ("rig", "meter", "weights", "weights_seed", "calibration")

AGAIN = "-again"
"""Behind the name of a study that was made when a plan with a value changed kept its name: it cannot be resumed."""


def overrides_of(study: Study) -> tuple[str, ...]:
    """Overrides that compose a study with the same axes and all that its rows share, under its name if it can go on.

    Where results and engines lie is left out.

    Raises:
        ConfigError: If conf/ no longer holds what it was composed of; the message says which part.
    """
    known = groups()
    own = TypeAdapter(Study).dump_python(study, mode="json")
    names = {group: _choice(own[group]["name"], known[group]) for group in GROUPS}
    chosen = [f"{group}={name}" for group, name in names.items() if name is not None]
    conf = compose_conf(chosen)
    changed = list[str]()
    for group in (*GROUPS, "search"):
        changed += _changed(group, own[group], conf[group], skip={"name", "source", "lengths_sha256", "hf_config"})
    modelled = {"rig": "modelled"} if own["rig"] == "modelled" else None
    changed += [f"{key}={_hydra(own[key])}" for key in modelled or SINGLE if own[key] != conf[key]]
    composed = load_study([*chosen, *changed])
    changed += [
        f"{key}={_hydra(list(values) if len(values) > 1 else values[0])}"
        for key, values in study.axes.items()
        if composed.axes.get(key, (None,)) != values
    ]
    again = load_study([*chosen, *changed])
    wrong = _wrong(study, again)
    if set(wrong) - {"plan.name"}:
        raise ConfigError(f"study {study.id}: conf/ no longer composes it: {', '.join(wrong)} would differ")
    return (*chosen, *changed, f"study={study.id}{AGAIN if wrong else ''}")


def _choice(name: str, known: list[str]) -> str | None:
    """The choice of a group; the name of a plan with other values has a mark behind it."""
    return next((each for each in (name, name.rpartition("-")[0]) if each in known), None)


def _changed(group: str, own: dict[str, Any], conf: dict[str, Any], skip: set[str]) -> Iterator[str]:
    """Values that differ from those of the chosen file, `key=value`; only keys that conf/ still has."""
    for key, value in own.items():
        if key in skip or key not in conf or isinstance(value, dict):
            continue
        if value != conf[key] and not (isinstance(value, list) and not value and not conf[key]):
            yield f"{group}.{key}={_hydra(value)}"


def _hydra(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_hydra, value))}]"
    if (
        isinstance(value, str)
        and not value.replace("_", "").replace("-", "").replace(".", "").replace("/", "").isalnum()
    ):
        return f"'{value}'"
    return value if isinstance(value, str) else json.dumps(value)


def _wrong(study: Study, composed: Study) -> list[str]:
    """What would be lost."""
    had, has = held(study), held(composed)
    wrong = [key for key in had if had[key] != has.get(key)]
    wrong += [key for key in study.axes if study.axes[key] != composed.axes.get(key, (None,))]
    return wrong + (["baseline"] if study.baseline is not None else [])
