"""Which configs the roofline likes best, diverse ones first.

A diverse top ten from an analytic model beat 80 cold trials of any sampler; the best config of every structural cell
(precision, parallelism, KV format) comes before the second best of any.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import Prediction, predict_loads
from pipeline.score import within
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


def rank(study: Study, configs: Sequence[EngineConfig]) -> list[EngineConfig]:
    """Configs by modelled tokens per joule at the best load that meets the SLO, the best of each cell first.

    Those that meet it at no load come last. Empty on a CPU, of which there is no model. Where
    `search.aiconfigurator_python` is set, what counts is aiconfigurator's throughput and latency with our watts.

    Raises:
        ConfigError: If aiconfigurator is wanted and cannot be asked.
    """
    # The model knows nothing of knobs, of which there may be thousands of choices for each of these: few come first.
    kinds = {(config.precision, config.parallelism, config.batching): config for config in configs}
    second = second_opinion(study, kinds.values())
    if study.hardware.kind != "gpu":
        return []
    values = {kind: modelled_value(study, config, second) for kind, config in kinds.items()}
    ordered = sorted(
        ((values[config.precision, config.parallelism, config.batching], config) for config in configs),
        key=lambda item: (-item[0], len(item[1].knobs)),
    )
    seen = dict[object, int]()
    ranks = []
    for position, (value, config) in enumerate(ordered):
        cell = (config.precision, config.parallelism)
        ranks.append((value == 0, seen.setdefault(cell, 0), position, config))
        seen[cell] += 1
    return [config for *_, config in sorted(ranks, key=lambda item: item[:3])]


def modelled_value(study: Study, config: EngineConfig, second: Opinion = NO_OPINION) -> float:
    """Modelled tokens per joule at the best load that meets the SLO; 0 if none does."""
    best = best_load(study, judged(study, config, second))
    return 0.0 if best is None else best.counted.output_tokens_per_joule


def judged(study: Study, config: EngineConfig, second: Opinion = NO_OPINION) -> list[Judged]:
    """A config at every load of the study; none where it does not fit."""
    load = study.workload
    found = predict_loads(study.model, study.hardware, load, config, load.ladder, calibration_of(study))
    if isinstance(found, str):
        return []
    asked = [(study, config, point, ours) for point, ours in zip(load.ladder, found, strict=True)]
    return [Judged(point=one[2], ours=one[3], theirs=second.of(*one), counted=second.counted(*one)) for one in asked]


def best_load(study: Study, loads: Iterable[Judged]) -> Judged | None:
    """The one with the most tokens per joule that meets the SLO; None if none does."""
    met = [
        one
        for one in loads
        if one.counted.ttft_s is not None and within(one.counted.ttft_s, one.counted.tpot_s, study.slo)
    ]
    return max(met, key=lambda one: one.counted.output_tokens_per_joule, default=None)
