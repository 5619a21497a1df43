"""The split deployment that `tpw render` wrote, whose servers someone started and `tpw measure` measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.disaggregation import Deployment
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.study import Study

KINDS = ("context", "generation")


def read_split(folder: Path) -> tuple[Study, Deployment]:
    """A deployment, and the study that it was rendered under, from the meta.json of its folder.

    Raises:
        ConfigError: If it is no such folder.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        study = TypeAdapter(Study).validate_json(json.dumps(meta["study"]))
        context, generation = (_server(kind, meta["config"], study) for kind in KINDS)
        counts = {key: meta["config"][key] for key in (f"num_{kind}_servers" for kind in KINDS)}
        return study, Deployment(context=context, generation=generation, **counts)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(
            f"--rendered={folder}: is no split deployment that tpw render of this version wrote ({why})"
        ) from error


def _server(kind: str, config: Mapping[str, Any], study: Study) -> EngineConfig:
    own = {key.removeprefix(f"{kind}."): value for key, value in config.items() if key.startswith(f"{kind}.")}
    return EngineConfig.from_axes(study.engine.name, own)
