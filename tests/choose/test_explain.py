import math
import random

import pytest

from pipeline.choose.explain import explain
from pipeline.engine_config import Value


def tried(num: int, noise: float = 0.01) -> tuple[list[dict[str, Value]], list[float]]:
    """Configs of three axes: one that matters much, one a little, one not."""
    chooser, configs, values = random.Random(1), [], []  # noqa: S311  # no secret
    for _ in range(num):
        one: dict[str, Value] = {
            "precision.weights": chooser.choice(["bf16", "fp8"]),
            "batching.max_batch_size": chooser.choice([0, 64, 256]),
            "engine.knobs.x": chooser.choice([False, True]),
        }
        gain = 0.3 * (one["precision.weights"] == "fp8") + 0.06 * (one["batching.max_batch_size"] == 256)
        configs.append({key: value for key, value in one.items() if value != 0 or key != "batching.max_batch_size"})
        values.append(gain + chooser.gauss(0, noise))
    return configs, values


def test_what_matters_is_found_with_its_effect() -> None:
    found = explain(*tried(40))
    assert [axis.axis for axis in found.axes][:2] == ["precision.weights", "batching.max_batch_size"]
    first, second = found.axes[:2]
    assert (first.best, second.best) == ("fp8", "256")
    assert first.low is not None
    assert first.high is not None
    assert first.low < math.exp(0.3) < first.high
    assert sum(axis.importance for axis in found.axes) == pytest.approx(1)
    assert found.forest_r2 is not None
    assert found.forest_r2 > 0.8
    assert found.sentences[0].startswith("weights=fp8 gave +")
    assert found.why_not is None


def test_an_axis_that_another_moved_along_with_is_not_told() -> None:
    configs, values = tried(30)
    configs = [{**one, "engine.knobs.y": one["precision.weights"]} for one in configs]
    told = {axis.axis: axis.ratio for axis in explain(configs, values).axes}
    assert told["engine.knobs.y"] is told["precision.weights"] is None
    assert told["batching.max_batch_size"] is not None


def test_too_few_configs_or_nothing_that_varies_is_said() -> None:
    configs, values = tried(6)
    assert explain(configs, values).why_not == "6 configs, 3 axes with 4 effects: 8 configs are needed to tell"
    assert explain([configs[0]] * 9, values[:1] * 9).why_not == "9 configs: no axis varies"


def test_noise_alone_is_not_explained() -> None:
    configs, _ = tried(20)
    chooser = random.Random(3)  # noqa: S311  # no secret
    found = explain(configs, [chooser.gauss(0, 0.1) for _ in configs])
    assert found.forest_r2 is not None
    assert found.forest_r2 <= 0
    assert len(found.sentences) == 1


def test_the_default_that_differs_in_every_axis_is_left_out() -> None:
    configs, values = tried(30)
    found = explain([*configs, {"precision.weights": "fp8"}], [*values, 5.0])
    assert found == explain(configs, values)
