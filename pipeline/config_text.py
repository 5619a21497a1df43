"""Configs in words: what one sets, what tells several apart, and what they share."""

import json
from collections.abc import Collection
from functools import lru_cache

from pipeline.engine_config import canonical_json, split_key


def config_text(config_json: str, keys: Collection[str] | None = None) -> str:
    """A config in one line: each key without its group, and its value; of these keys only, if given."""
    config = json.loads(config_json).items()
    return " ".join(f"{split_key(key)[1]}={value}" for key, value in config if keys is None or key in keys)


def varying_keys(configs: Collection[str]) -> set[str]:
    """Keys that tell these configs (as JSON) apart; that the engine's default sets none of them is no difference."""
    return _varying_keys(frozenset(configs))


@lru_cache(maxsize=4)  # of thousands of configs it takes a second, and every line asks
def _varying_keys(configs: frozenset[str]) -> set[str]:
    chosen = [config for config in configs if not is_default(config)] or list(configs)
    keys = {key for config in configs for key in json.loads(config)}
    values = {key: {canonical_json(json.loads(config).get(key)) for config in chosen} for key in keys}
    for config in configs:
        for key, value in json.loads(config).items():
            values[key].add(canonical_json(value))
    return {key for key, several in values.items() if len(several) > 1}


def label(config: str, configs: Collection[str]) -> str:
    """What tells one config from the others, and whether it leaves to the engine what the others set."""
    text = config_text(config, varying_keys(configs)) or "as above"
    leaves = is_default(config) and not all(map(is_default, configs))
    return f"{text}, else engine default" if leaves else text


def is_default(config: str) -> bool:
    """Whether a config sets nothing but what must be chosen: precision and parallelism."""
    return all(key.startswith(("precision.", "parallelism.")) for key in json.loads(config))


def shared_text(configs: Collection[str]) -> str:
    """The settings that configs share, where they set them."""
    fullest = max(configs, key=lambda config: (not is_default(config), len(json.loads(config))))
    return config_text(fullest, json.loads(fullest).keys() - varying_keys(configs))
