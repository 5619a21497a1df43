"""The SLO to choose under: that of the studies, one of conf/slo, or bounds of one's own."""

import dataclasses
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from pipeline.config import load_study
from pipeline.errors import ConfigError
from pipeline.workload import Slo

CUSTOM = "custom"
"""Name of an SLO with bounds of one's own."""


def owed(stored: Sequence[Slo], choice: str | None, bounds: Mapping[str, float | None]) -> Slo:
    """The SLO to choose under.

    Args:
        stored: Those of the studies: what counts where nothing is asked for.
        choice: One of conf/slo.
        bounds: More bounds by key, which come before those of the choice; None is not given.

    Raises:
        ConfigError: If a bound is no number above 0, the choice is unknown, or nothing is asked for and the studies
            do not owe the same.
    """
    given = {key: value for key, value in bounds.items() if value is not None}
    if choice is not None:
        found = load_study([f"slo={choice}"]).slo
    elif given:
        found = Slo(name=CUSTOM, source="given on the command line")
    elif len({tuple(slo.bounds.items()) for slo in stored}) > 1:
        names = ", ".join(sorted({slo.name for slo in stored}))
        raise ConfigError(f"--slo: the studies owe different latencies ({names}); say which counts, e.g. --slo none")
    else:
        return stored[0]
    if not given:
        return found
    try:
        return TypeAdapter(Slo).validate_python(dataclasses.asdict(found) | given | {"name": CUSTOM})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"slo.{first['loc'][0]}={first['input']}: {first['msg']}; seconds or tokens/s above 0"
        ) from error
