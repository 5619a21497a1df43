"""Models that were renamed in conf/: rows keep the name they were stored with, and join under the present one."""

from collections.abc import Mapping
from functools import cache

import yaml

from pipeline.compose import conf_dir

KEY = "former_names"


def present_name(model: str) -> str:
    """The present name of a model, whose conf/model file lists the stored one under `former_names`; else the same."""
    return _present_names().get(model, model)


@cache
def _present_names() -> Mapping[str, str]:
    texts = (path.read_text("utf-8") for path in sorted((conf_dir() / "model").glob("*.yaml")))
    models = (yaml.safe_load(text) for text in texts if KEY in text)  # the few that have it: reading YAML is slow
    return {former: model["name"] for model in models for former in model.get(KEY, ())}
