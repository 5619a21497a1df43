import dataclasses

from pipeline.engine_config import EngineConfig
from pipeline.roofline.predict import Prediction, predict
from pipeline.search.prior import rank
from pipeline.space import build_space
from pipeline.study import Study
from pipeline.workload import OperatingPoint, Slo
from tests.builders import MODELLED, make_slo, make_study, with_axes


def study(slo: Slo | None = None) -> Study:
    axes = with_axes(
        make_study(*MODELLED), precision__weights="fp4", precision__kv_cache=("auto", "fp8"), parallelism__tp=(1, 2, 8),
        batching__max_batch_size=(8, 64, 256),
    )  # fmt: skip
    return dataclasses.replace(axes, slo=slo or axes.slo)


def best(held: Study, config: EngineConfig) -> float:
    """Modelled tokens/J at the best load that meets the SLO, 0 if none does; written out a second time."""
    values = [0.0]
    for load in held.workload.concurrency:
        found = predict(held.model, held.hardware, held.workload, config, OperatingPoint(concurrency=load))
        assert isinstance(found, Prediction)
        limits = (held.slo.ttft_p99_s or 1e9, held.slo.tpot_p99_s or 1e9)
        if (found.ttft_s or 0) <= limits[0] and found.tpot_s <= limits[1]:
            values.append(found.output_tokens_per_joule)
    return max(values)


def cell(config: EngineConfig) -> object:
    return config.precision, config.parallelism


def test_every_config_is_ranked_once() -> None:
    configs = build_space(study()).configs
    ranked = rank(study(), configs)
    assert len(ranked) == len(configs) == 18
    assert {config.config_hash for config in ranked} == {config.config_hash for config in configs}


def test_the_best_of_every_cell_comes_before_the_second_best_of_any() -> None:
    held = study()
    ranked = rank(held, build_space(held).configs)
    leaders = ranked[:6]
    assert len({cell(config) for config in leaders}) == 6
    values = [best(held, config) for config in leaders]
    assert values == sorted(values, reverse=True)
    for leader in leaders:
        assert best(held, leader) == max(best(held, config) for config in ranked if cell(config) == cell(leader))


def test_the_order_given_does_not_change_the_values_at_the_top() -> None:
    held = study()
    configs = build_space(held).configs
    forth, back = rank(held, configs), rank(held, configs[::-1])
    assert [best(held, config) for config in forth] == [best(held, config) for config in back]


def test_what_the_model_says_misses_the_slo_comes_last() -> None:
    unbounded = study()
    slowest = max(
        found.tpot_s
        for config in build_space(unbounded).configs
        if config.parallelism.tp == 8
        and isinstance(found := predict(
            unbounded.model, unbounded.hardware, unbounded.workload, config, OperatingPoint(concurrency=1)), Prediction)
    )  # fmt: skip
    held = study(make_slo(tpot_p99_s=slowest))
    met = [best(held, config) > 0 for config in rank(held, build_space(held).configs)]
    assert any(met)
    assert not all(met)
    assert met == sorted(met, reverse=True)


def test_there_is_no_prior_for_a_cpu() -> None:
    held = make_study()
    assert rank(held, build_space(held).configs) == []
