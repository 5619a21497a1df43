import dataclasses

import numpy as np
import pytest

from pipeline.roofline.calibration import CONSTANTS, SHIPPED, Calibration
from pipeline.roofline.fit import Measured, errors_without_own, fit, summary
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.step import step
from pipeline.roofline.work import stack, work
from tests.roofline import facts

RUNNING = np.array([n for _ in facts.RUNNABLE for n in (4.0, 32.0, 256.0)])
WORK = stack(
    [
        work(
            facts.model(name), facts.hardware(gpu), facts.engine_config(precision, 4), MeanLengths.equal(isl, 500),
            running,
        )
        for (name, precision, gpu), isl in zip(facts.RUNNABLE, [300, 3000] * len(facts.RUNNABLE), strict=False)
        for running in (4.0, 32.0, 256.0)
    ]
)  # fmt: skip  # fmt: skip
TRUTH = dataclasses.replace(SHIPPED, id="truth", host_s=4e-3, expert_share=0.4, busy_hopper=0.5, busy_blackwell=0.6)


def made_by(constants: Calibration, slower: float = 1.0) -> Measured:
    done = step(WORK, constants)
    return Measured(work=WORK, running=RUNNING, tokens_per_s=RUNNING / done.time_s / slower, board_w=done.power_w)


def test_what_a_calibration_made_is_explained_by_a_fit() -> None:
    points = made_by(TRUTH)
    found = fit(points, "found")
    errors = summary(points.errors(found))
    assert found.id == "found"
    assert errors.tokens_per_s.median < 0.02
    assert errors.power_w.median < 0.02
    assert found.host_s == pytest.approx(TRUTH.host_s, rel=0.2)
    for name, (_, low, high) in CONSTANTS.items():
        assert low * 0.999 <= getattr(found, name) <= high * 1.001


def test_errors_of_the_truth_are_none_and_of_a_slower_engine_its_slowness() -> None:
    errors = made_by(TRUTH, slower=2).errors(TRUTH)
    assert errors["tokens_per_s"] == pytest.approx(np.log(2))
    assert errors["power_w"] == pytest.approx(0)
    assert errors["j_per_token"] == pytest.approx(-np.log(2))


def test_few_points_move_what_they_show_and_leave_the_rest() -> None:
    few = made_by(TRUTH).where(WORK.is_hopper == 1)
    found = fit(few, "hopper", around=SHIPPED)
    assert summary(few.errors(found)).j_per_token.median < summary(few.errors(SHIPPED)).j_per_token.median / 2
    for name in CONSTANTS:
        if name.endswith("_blackwell"):
            assert getattr(found, name) == pytest.approx(getattr(SHIPPED, name), rel=1e-3)


def test_points_that_are_as_modelled_move_nothing() -> None:
    found = fit(made_by(SHIPPED), "same", around=SHIPPED)
    for name in CONSTANTS:
        assert getattr(found, name) == pytest.approx(getattr(SHIPPED, name), rel=1e-3)


def test_a_group_is_judged_by_what_the_others_say() -> None:
    points = made_by(TRUTH)
    labels = ["odd" if batch == 4.0 else "even" for batch in RUNNING]
    speeds = np.where(RUNNING == 4.0, points.tokens_per_s / 3, points.tokens_per_s)
    errors = errors_without_own(dataclasses.replace(points, tokens_per_s=speeds), labels, around=TRUTH)
    assert np.median(errors["tokens_per_s"][RUNNING == 4.0]) == pytest.approx(np.log(3), abs=0.05)


def test_errors_are_summed_up_by_median_and_ninetieth_percentile() -> None:
    found = summary(dict.fromkeys(("tokens_per_s", "power_w", "j_per_token"), np.log([0.5, 1.0, 1.1])))
    assert (found.power_w.median, found.power_w.p90) == (0.1, 0.42)
