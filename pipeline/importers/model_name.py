"""The choice of conf/model that a published checkpoint is one of."""

import re
from functools import cache
from typing import Any

import yaml

from pipeline.compose import conf_dir, groups

_SUFFIX = re.compile(r"-(instruct|thinking|it|bf16|fp8|fp4|mxfp4|nvfp4|v\d|\d{4}|17b-\d+e)(?=-|$)")
_NAMES = {"qwen3-coder-30b-a3b": "qwen3-30b-a3b"}
"""Same architecture under another name."""


def conf_name(name: str) -> str:
    """The name that conf/model would give a checkpoint: Qwen/Qwen3-235B-A22B-Thinking-2507-FP8 is qwen3-235b-a22b.

    Releases of one architecture share a name: as far as speed and power go they are one model.
    """
    short = _SUFFIX.sub("", name.rstrip("/").rpartition("/")[2].lower())
    return _NAMES.get(short, short)


def checkpoint(name: str) -> tuple[str | None, str | None]:
    """The choice of conf/model that has a checkpoint of this name, and which of its weights that is; None if unknown.

    A release that is not listed is found by `conf_name`; its name does not say the weights' format then.
    """
    for choice, conf in choices("model").items():
        for weights, each in conf["checkpoints"].items():
            if each["repo"] == name:
                return choice, weights
    short = conf_name(name)
    return (short if short in groups()["model"] else None), None


@cache
def choices(group: str) -> dict[str, dict[str, Any]]:
    """What the files of a conf group say."""
    folder = conf_dir() / group
    return {choice: yaml.safe_load((folder / f"{choice}.yaml").read_text("utf-8")) for choice in groups()[group]}
