"""Which configs the roofline likes best, diverse ones first.

A diverse top ten from an analytic model beat 80 cold trials of any sampler; the best config of every structural cell
(precision, parallelism, KV format) comes before the second best of any.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.roofline.calibration import Calibration
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import Prediction, predict_loads
from pipeline.score import latency_slack, within
from pipeline.search.ladder import loads_of
from pipeline.search.second_opinion import NO_OPINION, Opinion, second_opinion
from pipeline.study import Study
from pipeline.workload import OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A config at one load by both models.

    Attributes:
        point: The load.
        ours: By our model.
        theirs: By aiconfigurator, with our watts; a text says why it has no answer, None that it was not asked.
        counted: What orders configs: theirs, else ours at their level for this load.
    """

    point: OperatingPoint
    ours: Prediction
    theirs: Prediction | str | None
    counted: Prediction


class Prior:
    """What the model expects of configs, before any of them is tried.

    The model knows nothing of knobs, of which there may be thousands of choices for each precision, parallelism and
    batching: configs that differ in knobs alone are expected to do the same. On a CPU, of which there is no model,
    nothing is expected of any. Where `search.aiconfigurator_python` is set, what counts is aiconfigurator's throughput
    and latency with our watts.
    """

    def __init__(self, study: Study, configs: Sequence[EngineConfig], calibration: Calibration | None = None) -> None:
        """Ask the model, and aiconfigurator if wanted.

        Args:
            study: Whose configs these are.
            configs: Feasible ones.
            calibration: Constants of the model; else those that the study names.

        Raises:
            ConfigError: If aiconfigurator is wanted and cannot be asked.
        """
        kinds = {_kind(config): config for config in configs}
        self._study = study
        self._configs = configs
        self._calibration = calibration
        self._second = second_opinion(study, kinds.values())
        self._points = loads_of(study)
        self._loads: dict[object, list[Judged]] = {}
        self._expected: dict[object, list[tuple[float, float]]] = {}

    @property
    def is_known(self) -> bool:
        """Whether there is a model of this hardware at all."""
        return self._study.hardware.kind == "gpu"

    def value(self, config: EngineConfig) -> float:
        """Modelled tokens per joule at the best load that meets the SLO; 0 if none does."""
        return _value(self._study, self._judged(config))

    def expected(self, config: EngineConfig) -> list[tuple[float, float]]:
        """Log of tokens per joule and slack (see score.py) at every load of `loads_of`; (-inf, inf) if it does not fit.

        Without a model nothing is expected: 0 at every load, within the SLO.
        """
        if not self.is_known:
            return [(0.0, -math.inf)] * len(self._points)
        kind = _kind(config)
        if kind not in self._expected:
            self._expected[kind] = self._expect(config)
        return self._expected[kind]

    def _expect(self, config: EngineConfig) -> list[tuple[float, float]]:
        loads, slo = [one.counted for one in self._judged(config)], self._study.slo
        if not loads:
            return [(-math.inf, math.inf)] * len(self._points)
        return [(math.log(one.output_tokens_per_joule), latency_slack(one.ttft_s, one.tpot_s, slo)) for one in loads]

    def _judged(self, config: EngineConfig) -> list[Judged]:
        kind = _kind(config)
        if kind not in self._loads:
            self._loads[kind] = judged(self._study, config, self._second, self._calibration)
        return self._loads[kind]

    def ranked(self) -> list[EngineConfig]:
        """Configs by value, the best of every cell (precision, parallelism) first; last, those that miss the SLO.

        Of configs that are expected to do the same, those with few knobs come first. Empty on a CPU.
        """
        if not self.is_known:
            return []
        values = {kind: self.value(config) for kind, config in {_kind(each): each for each in self._configs}.items()}
        ordered = sorted(self._configs, key=lambda config: (-values[_kind(config)], len(config.knobs)))
        seen = dict[object, int]()
        ranks = []
        for position, config in enumerate(ordered):
            cell = (config.precision, config.parallelism)
            ranks.append((values[_kind(config)] == 0, seen.setdefault(cell, 0), position, config))
            seen[cell] += 1
        return [config for *_, config in sorted(ranks, key=lambda item: item[:3])]


class NoPrior(Prior):
    """No model: nothing is expected of any config."""

    @property
    def is_known(self) -> bool:
        """Never."""
        return False


def rank(study: Study, configs: Sequence[EngineConfig]) -> list[EngineConfig]:
    """Configs in the order of `Prior.ranked`; raises as `Prior` does."""
    return Prior(study, configs).ranked()


def _kind(config: EngineConfig) -> object:
    return config.precision, config.parallelism, config.batching


def modelled_value(
    study: Study, config: EngineConfig, second: Opinion = NO_OPINION, calibration: Calibration | None = None
) -> float:
    """Modelled tokens per joule at the best load that meets the SLO; 0 if none does."""
    return _value(study, judged(study, config, second, calibration))


def _value(study: Study, loads: Iterable[Judged]) -> float:
    best = best_load(study, loads)
    return 0.0 if best is None else best.counted.output_tokens_per_joule


def judged(
    study: Study, config: EngineConfig, second: Opinion = NO_OPINION, calibration: Calibration | None = None
) -> list[Judged]:
    """A config at every load that it may be measured at; none where it does not fit."""
    points, constants = loads_of(study), calibration or calibration_of(study)
    found = predict_loads(study.model, study.hardware, study.workload, config, points, constants)
    if isinstance(found, str):
        return []
    asked = [(study, config, point, ours) for point, ours in zip(points, found, strict=True)]
    return [Judged(point=one[2], ours=one[3], theirs=second.of(*one), counted=second.counted(*one)) for one in asked]


def best_load(study: Study, loads: Iterable[Judged]) -> Judged | None:
    """The one with the most tokens per joule that meets the SLO; None if none does."""
    met = [
        one
        for one in loads
        if one.counted.ttft_s is not None and within(one.counted.ttft_s, one.counted.tpot_s, study.slo)
    ]
    return max(met, key=lambda one: one.counted.output_tokens_per_joule, default=None)
