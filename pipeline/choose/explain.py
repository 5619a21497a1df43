"""Which axes mattered, over the configs that were tried: how much, and the best value of each with its effect.

Importance: what a random forest on the axes loses of its R^2 when one axis is shuffled, as a share of what all axes
lose (permutation importance; Breiman, Machine Learning 45, 2001). Effect: main effects by least squares on log tokens
per joule, so that a difference is a ratio; the best value is set against the mean of the others, with an interval that
is Bonferroni's for the values it is the best of. A search chose these configs: this describes them, no experiment does.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt
from scipy.stats import t
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from pipeline.columns import column
from pipeline.config_text import is_default
from pipeline.engine_config import Value, canonical_json, split_key

MIN_CONFIGS = 8
"""Fewer say nothing of an axis that a single lucky config would not."""

MIN_DF = 3
"""Configs beyond the number of effects; with fewer an interval is too wide to mean anything."""

NUM_TREES, NUM_SHUFFLES = 100, 10

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What one axis did, over the configs that were tried."""

    axis: str = column("conf path")
    num_values: int = column("values of it that were tried")
    importance: float = column("R^2 that the forest loses when the axis is shuffled, as a share of what all lose")
    best: str = column("the value with the highest effect; default: not set")
    num_best: int = column("configs that have it")
    ratio: float | None = column("tokens per joule with it / with the others' mean; null where other axes moved along")
    low: float | None = column("lower end of the 95 % interval of the ratio")
    high: float | None = column("its upper end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Which axes mattered, the most important first; or why that cannot be told."""

    num_configs: int = column("configs with a valid load under the SLO, the engine's default left out")
    forest_r2: float | None = column("R^2 of the forest on configs it was not shown (out of bag)")
    axes: tuple[Axis, ...] = column("those that vary, the most important first")
    sentences: tuple[str, ...] = column("the same in words")
    why_not: str | None = column("why nothing is told; null where it is")


def explain(configs: Sequence[Mapping[str, Value]], log_values: Sequence[float]) -> Explanation:
    """Explain log tokens per joule by what configs set, keyed by conf path.

    One that leaves all to the engine where others do not differs from them in every axis at once, and is left out.
    """
    told = [not is_default(canonical_json(config)) for config in configs]
    if any(told):
        configs, log_values = list(compress(configs, told)), list(compress(log_values, told))
    filled = [{f"parallelism.{name}": 1 for name in ("pp", "cp", "ep")} | dict(config) for config in configs]
    levels = _levels(filled)
    num_effects = 1 + sum(len(values) - 1 for values in levels.values())
    needed = max(MIN_CONFIGS, num_effects + MIN_DF)
    if not levels or len(filled) < needed:
        said = f"{len(filled)} config{'' if len(filled) == 1 else 's'}"
        space = f"{len(levels)} ax{'is' if len(levels) == 1 else 'es'} with {num_effects - 1} effects"
        why = f"{said}, {space}: {needed} configs are needed to tell" if levels else f"{said}: no axis varies"
        return Explanation(num_configs=len(filled), forest_r2=None, axes=(), sentences=(), why_not=why)
    y = np.array(log_values)
    codes = np.array([[levels[key].index(_text(one.get(key))) for key in levels] for one in filled], float)
    forest_r2, importances = _forest(codes, y)
    effects = _Effects(codes.astype(int), [len(values) for values in levels.values()], y)
    axes = [
        _axis(key, levels[key], codes[:, n], importances[n], effects.best(n)) for n, key in enumerate(levels)
    ]  # fmt: skip
    ranked = sorted(axes, key=lambda axis: -axis.importance)
    return Explanation(
        num_configs=len(filled),
        forest_r2=forest_r2,
        axes=tuple(ranked),
        sentences=_sentences(ranked, forest_r2),
        why_not=None,
    )


def _levels(configs: Sequence[Mapping[str, Value]]) -> dict[str, list[str]]:
    """The values of each axis that varies, numbers in order."""
    found = {}
    for key in sorted({key for config in configs for key in config}):
        values = {_text(config.get(key)): config.get(key) for config in configs}
        if len(values) > 1:
            found[key] = sorted(values, key=lambda text: (isinstance(values[text], str), _number(values[text]), text))
    return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else -math.inf


def _text(value: object) -> str:
    return "default" if value is None else value if isinstance(value, str) else json.dumps(value)


def _forest(codes: Array, y: Array) -> tuple[float, list[float]]:
    """R^2 out of bag, and of each axis what shuffling it costs, as a share."""
    forest = RandomForestRegressor(NUM_TREES, oob_score=True, random_state=0, max_features=max(1, codes.shape[1] // 2))
    forest.fit(codes, y)
    lost = permutation_importance(forest, codes, y, n_repeats=NUM_SHUFFLES, random_state=0)
    costs = [max(0.0, float(value)) for value in lost.importances_mean]
    return float(forest.oob_score_), [cost / (math.fsum(costs) or 1.0) for cost in costs]


class _Effects:
    """Main effects by least squares, one column per value but the first of each axis."""

    def __init__(self, codes: npt.NDArray[np.int_], nums: Sequence[int], y: Array) -> None:
        """Fit them."""
        columns = [np.ones(len(y))]
        self._slices = []
        for axis, num in enumerate(nums):
            self._slices.append(slice(len(columns), len(columns) + num - 1))
            columns += [(codes[:, axis] == value).astype(float) for value in range(1, num)]
        x = np.column_stack(columns)
        inverse = np.linalg.pinv(x)
        self._effects = inverse @ y
        self._cover = inverse @ inverse.T
        self._told = inverse @ x
        self._df = len(y) - int(np.linalg.matrix_rank(x))
        self._variance = float(np.sum((y - x @ self._effects) ** 2) / max(self._df, 1))

    def best(self, axis: int) -> tuple[int, tuple[float, float] | None]:
        """The best value of an axis; its effect against the others' mean, with a half-width, where they can be told."""
        own = np.concatenate([[0.0], self._effects[self._slices[axis]]])
        best, num = int(own.argmax()), len(own)
        weights = np.full(num, -1 / (num - 1))
        weights[best] = 1.0
        contrast = np.zeros(len(self._effects))
        contrast[self._slices[axis]] = weights[1:]
        if not np.allclose(contrast @ self._told, contrast, atol=1e-6) or self._df < 1:
            return best, None
        tail = 0.025 / (num if num > 2 else 1)
        half = float(t.isf(tail, self._df)) * math.sqrt(self._variance * contrast @ self._cover @ contrast)
        return best, (float(contrast @ self._effects), half)


def _axis(
    key: str, values: Sequence[str], codes: Array, importance: float, found: tuple[int, tuple[float, float] | None]
) -> Axis:
    best, effect = found
    return Axis(
        axis=key,
        num_values=len(values),
        importance=importance,
        best=values[best],
        num_best=Counter(codes.tolist())[best],
        ratio=None if effect is None else math.exp(effect[0]),
        low=None if effect is None else math.exp(effect[0] - effect[1]),
        high=None if effect is None else math.exp(effect[0] + effect[1]),
    )


def _sentences(axes: Sequence[Axis], forest_r2: float) -> tuple[str, ...]:
    """What stands out, in words."""
    if forest_r2 <= 0:
        return ("The axes do not predict configs that the forest was not shown: nothing here is to be relied on.",)
    found = []
    for axis in axes:
        name = split_key(axis.axis)[1]
        if axis.ratio is None or axis.low is None or axis.high is None:
            found.append(f"{name}: other axes moved along with it, so its effect cannot be told.")
        elif axis.low > 1:
            found.append(
                f"{name}={axis.best} gave {100 * (axis.ratio - 1):+.1f} % tokens per joule over its other values (95 %:"
                f" {100 * (axis.low - 1):+.1f} to {100 * (axis.high - 1):+.1f} %)."
            )
    unclear = [split_key(axis.axis)[1] for axis in axes if axis.low is not None and axis.low <= 1]
    if unclear:
        found.append(f"No effect shows of {', '.join(unclear)}: too small, or too few configs.")
    return tuple(found)
