"""Configs as points for a regression: choices one by one, numbers by their logarithm as well, all of like size."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.engine_config import EngineConfig, Value

Array = npt.NDArray[np.float64]


class Encoding:
    """Columns from what a set of configs sets.

    A key gives one column for each of its values, as one limit may be special where its neighbours are alike; where
    all values are numbers another one, log2 scaled to [0, 1] over the set, half where it is left to the engine. A key
    that all set alike gives none. A value that the set does not have is none of them, a number outside lies outside.
    """

    def __init__(self, configs: Sequence[EngineConfig]) -> None:
        """Find the columns."""
        every = [_values(config) for config in configs]
        self._numbers: dict[str, tuple[float, float]] = {}
        self._choices: dict[str, list[str]] = {}
        for key in sorted({key for one in every for key in one}):
            values = [one.get(key) for one in every]
            texts = sorted({repr(value) for value in values})  # which tells 1, 1.0 and True apart
            if len(texts) == 1:
                continue
            given = [value for value in values if value is not None]
            if all(_is_number(value) for value in given):
                logs = [_log(value) for value in given]
                self._numbers[key] = (min(logs), max(max(logs) - min(logs), 1e-9))
            self._choices[key] = texts

    def __call__(self, configs: Sequence[EngineConfig]) -> Array:
        """One line for each config, one column for each that was found."""
        every = [_values(config) for config in configs]
        columns = []
        for key, (low, span) in self._numbers.items():
            values = [one.get(key) for one in every]
            columns.append(np.array([(_log(v) - low) / span if _is_number(v) else 0.5 for v in values], float))
        for key, texts in self._choices.items():
            chosen = np.array([repr(one.get(key)) for one in every], object)
            # Two configs that differ in one choice differ in two columns: by 1 in all.
            columns += [math.sqrt(0.5) * (chosen == text) for text in texts]
        return np.array(columns, float).reshape(len(columns), len(every)).T


def _values(config: EngineConfig) -> dict[str, Value]:
    """What a config sets; degrees of parallelism that are left out are 1."""
    return {f"parallelism.{name}": 1 for name in ("pp", "cp", "ep")} | config.requested()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _log(value: object) -> float:
    """Zero, which some limits may be, lies one step below one."""
    assert isinstance(value, (int, float))  # noqa: S101  # by _is_number
    return math.log2(value) if value >= 1 else float(value) - 1
