"""Which configs the roofline likes best, diverse ones first.

A diverse top ten from an analytic model beat 80 cold trials of any sampler; the best config of every structural cell
(precision, parallelism, KV format) comes before the second best of any.
"""

from collections.abc import Sequence

from pipeline.engine_config import EngineConfig
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import predict_loads
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
    load = study.workload
    found = predict_loads(study.model, study.hardware, load, config, load.ladder, calibration_of(study))
    if isinstance(found, str):
        return 0.0
    good = [each for each in found if each.ttft_s is not None and within(each.ttft_s, each.tpot_s, study.slo)]
    return max((each.output_tokens_per_joule for each in good), default=0.0)
