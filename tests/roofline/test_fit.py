import dataclasses

import numpy as np
import pytest

from pipeline.roofline.calibration import CONSTANTS, SHIPPED
from pipeline.roofline.fit import fit, log_errors, select
from pipeline.roofline.step import step
from pipeline.roofline.work import stack, work
from tests.roofline import facts

RUNNING = np.array([n for _ in facts.RUNNABLE for n in (4.0, 32.0, 256.0)])
WORK = stack(
    [
        work(facts.model(name), facts.hardware(gpu), facts.engine_config(precision, 4), running=running, isl_tokens=isl,
             osl_tokens=500)
        for (name, precision, gpu), isl in zip(facts.RUNNABLE, [300, 3000] * len(facts.RUNNABLE), strict=False)
        for running in (4.0, 32.0, 256.0)
    ]
)  # fmt: skip
TRUTH = dataclasses.replace(SHIPPED, id="truth", host_s=4e-3, expert_share=0.4, busy_hopper=0.5, busy_blackwell=0.6)


def test_what_a_calibration_made_is_explained_by_a_fit() -> None:
    made = step(WORK, TRUTH)
    found = fit(WORK, RUNNING, RUNNING / made.time_s, made.power_w, "found")
    speed, power = log_errors(WORK, RUNNING, RUNNING / made.time_s, made.power_w, found)
    assert found.id == "found"
    assert np.median(np.abs(speed)) < 0.02
    assert np.median(np.abs(power)) < 0.02
    assert found.host_s == pytest.approx(TRUTH.host_s, rel=0.2)
    for name, (_, low, high) in CONSTANTS.items():
        assert low * 0.999 <= getattr(found, name) <= high * 1.001


def test_errors_of_the_truth_are_none_and_of_a_slower_engine_its_slowness() -> None:
    made = step(WORK, TRUTH)
    speed, power = log_errors(WORK, RUNNING, RUNNING / made.time_s / 2, made.power_w, TRUTH)
    assert speed == pytest.approx(np.log(2))
    assert power == pytest.approx(0)


def test_points_can_be_chosen() -> None:
    mask = RUNNING > 100
    assert select(WORK, mask).batch == pytest.approx(WORK.batch[mask])
