"""Hydra composes conf/ with the user's overrides. The only file that sees OmegaConf.

Overrides are checked first, so that a misspelt group, choice or key is one line with the nearest match.
"""

import difflib
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import ConfigError
from pipeline.ranges import expanded, is_range

_KNOBS = ("engine.knobs.", "disaggregation.context.knobs.", "disaggregation.generation.knobs.")
_ENV = "engine.env."
_FREE = (*_KNOBS, _ENV, "model.hf_config.", "model.checkpoints.")


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

    Axes given as ranges are the lists they stand for.

    Raises:
        ConfigError: If a group, a choice or a key is unknown, an override cannot be parsed, or a range is wrong.
    """
    overrides = [_env_as_text(text) for text in overrides]
    parsed = _parse(overrides)
    overrides = [_range_as_list(text, override) for text, override in zip(overrides, parsed, strict=True)]
    _check_choices(parsed)
    known = groups()
    choices = [text for text, o in zip(overrides, parsed, strict=True) if o.key_or_group in known]
    _check_keys(parsed, _compose(tuple(choices)))
    try:
        added = tuple(f"++{text}" if text.startswith((*_KNOBS, _ENV)) else text for text in overrides)
        composed = OmegaConf.to_container(_compose(added), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot resolve the configuration: {' '.join(str(error).split())}") from error
    return cast("dict[str, Any]", expanded(composed))


def _env_as_text(text: str) -> str:
    """An override; the value of a variable of the environment in quotes, for 0, true and a,b are texts there."""
    key, equals, value = text.partition("=")
    if not (key.lstrip("+").startswith(_ENV) and equals) or value[:1] in {"'", '"'}:
        return text
    # Hydra takes a backslash for one but before a quote.
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"{key}='{escaped}'"


def _range_as_list(text: str, override: Override) -> str:
    """An override; a range as the one item of a list, for Hydra puts no mapping in the place of a list."""
    if override.is_delete() or not is_range(override.key_or_group, override.value()):
        return text
    key, _, value = text.partition("=")
    return f"{key}=[{value}]"


def nearest(word: str, allowed: Sequence[str]) -> str:
    """Ask "did you mean ...?" with the closest allowed word; empty where none is close."""
    match = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""


@functools.lru_cache(maxsize=512)  # a tenth of a second each; nobody changes what is returned
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
        if key.startswith((*_KNOBS, _ENV)) or (override.is_add() and key.startswith(_FREE)):
            continue  # an engine may have hundreds of knobs, which conf/ does not list: the engine checks them
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
