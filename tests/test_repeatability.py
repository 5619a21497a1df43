"""From rows to spread: what counts as a repetition, what nests in what, and what a spread lets one tell apart."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.record import Row
from pipeline.repeatability import cases, repeatability, weights_cases, weights_differences
from pipeline.vocabulary import Evidence, RowStatus
from tests.builders import make_row


def drawn_rows(num_visits: int, num_starts: int, num_windows: int, **columns: Any) -> Iterator[Row]:
    """Rows with visits 2 %, starts 1 % and windows 0.3 % apart."""
    rng = np.random.default_rng(0)
    for visit in range(num_visits):
        of_visit = rng.normal(0, 0.02)
        for start in range(num_starts):
            of_start = of_visit + rng.normal(0, 0.01)
            for _ in range(num_windows):
                value = 10 * math.exp(of_start + rng.normal(0, 0.003))
                yield make_row(
                    trial_id=f"{visit}-{start}",
                    host_id=f"boot{visit}",
                    gpu_uuids=("GPU-0",),
                    output_tokens_per_joule=value,
                    **columns,
                )


def test_windows_nest_in_trials_and_trials_in_boots() -> None:
    spread = repeatability(drawn_rows(3, 4, 2)).spread
    assert (spread.window.num_units, spread.start.num_units, spread.visit.num_units) == (24, 12, 3)
    assert (spread.window.df, spread.start.df, spread.visit.df) == (12, 9, 2)
    assert spread.start.sd == pytest.approx(0.01, rel=0.5)


def test_another_gpu_of_the_same_host_is_another_visit_and_old_rows_go_by_gpu_alone() -> None:
    rows = [make_row(host_id=None, gpu_uuids=(gpu,), trial_id=gpu) for gpu in ("GPU-0", "GPU-1")]
    assert repeatability(rows).spread.visit.num_units == 2
    assert repeatability([make_row(), make_row()]).spread.visit.num_units == 1


def test_the_scale_of_the_response_changes_the_mean_only() -> None:
    rows = list(drawn_rows(2, 3, 2))
    scaled = [dataclasses.replace(row, power_w=7 * (row.output_tokens_per_joule or 0)) for row in rows]
    first, second = repeatability(rows), repeatability(scaled, "power_w")
    assert second.mean == pytest.approx(7 * first.mean)
    assert second.spread.start.high == pytest.approx(first.spread.start.high)


def test_only_valid_rows_of_one_evidence_and_one_case_are_repetitions() -> None:
    good = make_row()
    invalid = make_row(status=RowStatus.INVALID)
    estimated = make_row(evidence=Evidence.ESTIMATED)
    assert cases([good, invalid, estimated]) == [[good]]
    assert cases([good, invalid, estimated], Evidence.ESTIMATED) == [[estimated]]
    for column in ("case_id", "plan", "engine_version", "weights_init"):
        other = make_row(**{column: "another"})
        assert cases([good, other, good]) == [[good, good], [other]]


def test_rows_without_the_response_are_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no row has power_w"):
        repeatability([make_row()], "power_w")


def test_half_widths_of_windows() -> None:
    found = repeatability([make_row(output_tokens_per_joule_rel_ci95=width) for width in (0.01, None, 0.002, 0.004)])
    assert (found.half_width_median, found.half_width_max) == (0.004, 0.01)
    assert repeatability([make_row()]).half_width_max is None


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    found = repeatability(drawn_rows(1, 6, 2))
    sd = found.spread.start_mean_sd
    difference = found.detectable(4)
    assert sd is not None
    assert difference is not None
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, sd, (4000, 4)), rng.normal(math.log1p(difference), sd, (4000, 4))
    share = float(np.mean(stats.ttest_ind(first, second, axis=1).pvalue < 0.05))
    assert share == pytest.approx(0.8, abs=0.03)


def test_more_starts_detect_less_and_one_start_nothing() -> None:
    found = repeatability(drawn_rows(2, 4, 2))
    three, five = found.detectable(3), found.detectable(5)
    assert three is not None
    assert five is not None
    assert 0 < five < three
    assert found.detectable(1) is None
    assert repeatability(drawn_rows(2, 1, 3)).detectable(3) is None


def weights_rows(starts: dict[tuple[str, str], list[float]], **columns: Any) -> list[Row]:
    """One row per start, by visit and weights, with these logs of tokens per joule."""
    return [
        make_row(trial_id=f"{visit}{weights}{number}", host_id=visit, weights="random", weights_init=weights,
                 case_id=weights, output_tokens_per_joule=math.exp(value), **columns)
        for (visit, weights), values in starts.items() for number, value in enumerate(values)
    ]  # fmt: skip


def test_weights_are_compared_by_a_t_interval_over_starts() -> None:
    one, two = [0.010, 0.020, 0.015], [0.030, 0.036]
    (group,) = weights_cases(weights_rows({("boot", "seed 0"): one, ("boot", "seed 1"): two}))
    (found,) = weights_differences(group)
    expected = stats.ttest_ind(two, one).confidence_interval(0.95)
    assert (found.reference, found.weights_init, found.df) == ("seed 0", "seed 1", 3)
    assert found.half_width is not None
    assert found.log_ratio - found.half_width == pytest.approx(expected.low)
    assert found.log_ratio + found.half_width == pytest.approx(expected.high)


def test_differences_between_visits_are_taken_out() -> None:
    rows = weights_rows(
        {("a", "seed 0"): [0.0, 0.002], ("a", "seed 1"): [0.01], ("b", "seed 0"): [0.5], ("b", "seed 1"): [0.51, 0.512]}
    )
    (found,) = weights_differences(rows)
    assert found.log_ratio == pytest.approx(0.01, abs=0.002)
    assert found.df == 3


def test_weights_that_no_visit_links_are_left_out() -> None:
    assert weights_differences(weights_rows({("a", "seed 0"): [0.0, 0.1], ("b", "seed 1"): [0.0, 0.1]})) == []
    linked = {("a", "seed 0"): [0.0, 0.1], ("a", "seed 1"): [0.0], ("b", "seed 1"): [0.0], ("b", "seed 2"): [0.3]}
    assert [d.weights_init for d in weights_differences(weights_rows(linked))] == ["seed 1", "seed 2"]


def test_one_start_each_gives_a_difference_without_an_interval() -> None:
    (found,) = weights_differences(weights_rows({("a", "seed 0"): [0.0], ("a", "seed 1"): [0.1]}))
    assert found.log_ratio == pytest.approx(0.1)
    assert (found.half_width, found.df) == (None, 0)


def test_only_rows_that_differ_in_weights_alone_are_compared() -> None:
    rows = weights_rows({("a", "seed 0"): [0.0]}) + weights_rows({("a", "seed 1"): [0.1]}, concurrency=64)
    assert weights_cases(rows) == []
    assert weights_cases([make_row(weights="checkpoint"), make_row(weights="checkpoint")]) == []
