"""Which configs the roofline likes best, diverse ones first.

A diverse top ten from an analytic model beat 80 cold trials of any sampler; the best config of every structural cell
(precision, parallelism, KV format) comes before the second best of any.
"""

from collections.abc import Sequence

from pipeline.engine_config import EngineConfig
from pipeline.roofline.predict import predict
from pipeline.score import within
from pipeline.study import Study


def rank(study: Study, configs: Sequence[EngineConfig]) -> list[EngineConfig]:
    """Configs by modelled tokens per joule at the best load that meets the SLO, the best of each cell first.

    Those that meet it at no load come last. Empty on a CPU, of which there is no model.
    """
    if study.hardware.kind != "gpu":
        return []
    # The model knows nothing of knobs, of which there may be thousands of choices for each of these: few come first.
    kinds = {(config.precision, config.parallelism, config.batching): config for config in configs}
    values = {kind: modelled_value(study, config) for kind, config in kinds.items()}
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


def modelled_value(study: Study, config: EngineConfig) -> float:
    """Modelled tokens per joule at the best load that meets the SLO; 0 if none does."""
    best = 0.0
    for point in study.workload.ladder:
        found = predict(study.model, study.hardware, study.workload, config, point)
        if not isinstance(found, str) and within(found.ttft_s, found.tpot_s, study.slo):
            best = max(best, found.output_tokens_per_joule)
    return best
