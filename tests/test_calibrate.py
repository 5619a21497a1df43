"""Which rows the equations can be held against, and what is learned from them; on rows recorded on real H100s."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.calibrate import MIN_POINTS, Usable, calibrate, errors_of_others, usable
from pipeline.errors import ConfigError
from pipeline.record import Row
from pipeline.resume import stored_study
from pipeline.roofline.calibration import CONSTANTS, SHIPPED
from pipeline.roofline.fit import summary
from pipeline.store import Store
from pipeline.study import Study
from pipeline.vocabulary import Evidence, Reason, RowStatus

STORE = Store(Path(__file__).parents[1] / "results")
DENSE, SPARSE = "h100-llama-3.1-8b", "h100-repeat-gpt-oss-20b-991217b9"


def recorded(*studies: str) -> tuple[list[Row], dict[str, Study]]:
    return [row for name in studies for row in STORE.rows(name)], {name: stored_study(STORE, name) for name in studies}


def found(*studies: str) -> Usable:
    return usable(*recorded(*studies))


def good_row() -> Row:
    return next(row for row in STORE.rows(DENSE) if row.status is RowStatus.OK)


def test_measured_rows_make_the_model_much_better_on_configs_that_they_do_not_hold() -> None:
    own = found(DENSE)
    calibration = calibrate(own)
    before = summary(own.measured.errors(SHIPPED))
    provenance = calibration.provenance
    assert provenance is not None
    assert provenance.outside is not None
    assert (provenance.engine, provenance.weights, provenance.left_out) == ("vllm 0.24.0", "random", "config")
    assert (provenance.hardware, provenance.models, provenance.num_points) == (("h100",), ("llama-3.1-8b",), 13)
    assert provenance.inside == summary(own.measured.errors(calibration))
    assert provenance.inside.tokens_per_s.median < before.tokens_per_s.median / 3
    assert provenance.outside.tokens_per_s.median < before.tokens_per_s.median / 2
    assert provenance.outside.power_w.median < before.power_w.median / 2
    assert calibration.id.startswith("h100-vllm-0.24.0-")
    assert calibration.error_of("llama-3.1-8b") == provenance.inside
    assert calibration.error_of("gpt-oss-20b") is None


def test_constants_of_what_was_not_measured_stay() -> None:
    calibration = calibrate(found(DENSE))
    for name in CONSTANTS:
        if "blackwell" in name or "expert" in name or name in {"exchange_s", "link_share"}:
            assert getattr(calibration, name) == pytest.approx(getattr(SHIPPED, name), rel=1e-3), name


def test_with_several_models_each_is_judged_by_the_others() -> None:
    both = found(DENSE, SPARSE)
    errors, left_out = errors_of_others(both, SHIPPED)
    assert left_out == "model"
    assert errors is not None
    alone = found(SPARSE)
    only = calibrate(found(DENSE))
    sparse = np.array([row.model == "gpt-oss-20b" for row in both.rows])
    assert errors["tokens_per_s"][sparse] == pytest.approx(alone.measured.errors(only)["tokens_per_s"], abs=0.01)


def test_the_same_rows_give_the_same_name_and_others_another() -> None:
    rows, studies = recorded(DENSE)
    assert calibrate(usable(rows, studies)).id == calibrate(usable(rows[::-1], studies)).id
    assert calibrate(usable(rows[:-6], studies)).id != calibrate(usable(rows, studies)).id


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": RowStatus.INVALID, "reasons": (Reason.NOT_STEADY,)}, "invalid (not_steady)"),
        ({"evidence": Evidence.MODELLED}, "modelled, not measured"),
        ({"evidence": Evidence.SIMULATED}, "simulated, not measured"),
        ({"power_w": None}, "without GPU power"),
        ({"num_gpus": 0}, "without GPU power"),
        ({"concurrency": None, "request_rate_per_s": 1.0}, "of open loops, whose batch is not known"),
        ({"config_json": '{"precision.weights": "int3"}'}, "precision.weights=int3"),
    ],
)
def test_a_row_that_cannot_be_held_against_the_equations_is_counted(change: dict[str, object], reason: str) -> None:
    rows, studies = recorded(DENSE)
    odd = dataclasses.replace(good_row(), **change)  # type: ignore[arg-type]  # each of its own type
    counted = usable([*rows, odd], studies).left_out
    assert sum(count for text, count in counted.items() if text.startswith(reason)) >= 1
    assert len(usable([*rows, odd], studies).rows) == 13


def test_the_engines_own_count_of_running_requests_goes_before_the_clients() -> None:
    rows, studies = recorded(DENSE)
    row = dataclasses.replace(good_row(), num_running_mean=3.5)
    assert 3.5 in usable([*rows, row], studies).measured.running


def test_too_few_rows_say_how_many_there_are_and_why() -> None:
    rows, studies = recorded(DENSE)
    valid = [row for row in rows if row.status is RowStatus.OK][: MIN_POINTS - 1]
    invalid = [row for row in rows if row.status is RowStatus.INVALID][:2]
    with pytest.raises(ConfigError, match=r"3 usable rows \(.*invalid .*\): at least 4 are needed"):
        usable([*valid, *invalid], studies)


@pytest.mark.parametrize(
    ("change", "what"), [({"weights": "checkpoint"}, "weights"), ({"engine_version": "0.25"}, "engines")]
)
def test_what_wants_constants_of_its_own_is_not_mixed(change: dict[str, str], what: str) -> None:
    rows, studies = recorded(DENSE)
    odd = dataclasses.replace(good_row(), **change)  # type: ignore[arg-type]  # all are text
    with pytest.raises(ConfigError, match=f"rows of several {what} "):
        calibrate(usable([*rows, odd], studies))


def test_rows_of_one_config_cannot_judge_themselves() -> None:
    rows, studies = recorded(DENSE)
    config = good_row().config_hash
    calibration = calibrate(usable([row for row in (*rows, *rows) if row.config_hash == config], studies))
    assert calibration.provenance is not None
    assert (calibration.provenance.outside, calibration.provenance.left_out) == (None, None)
