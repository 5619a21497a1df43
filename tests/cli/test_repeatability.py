"""What `tpw repeatability` prints, and the same as values."""

import dataclasses
import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from pipeline.cli.repeatability import case_results, report, weights_results
from pipeline.record import Row
from pipeline.vocabulary import Evidence, RowStatus
from tests.builders import make_row


def rows_of(num_visits: int, num_starts: int, num_windows: int, **columns: Any) -> list[Row]:
    """Rows whose values differ a little from window to window and start to start."""
    return [
        make_row(trial_id=f"{visit}-{start}", host_id=str(visit), config_json='{"parallelism.tp": 2}',
                 engine_version="1.2", output_tokens_per_joule=10 + 0.02 * start + 0.01 * window + 0.1 * visit,
                 **{"output_tokens_per_joule_rel_ci95": 0.004} | columns)
        for visit in range(num_visits) for start in range(num_starts) for window in range(num_windows)
    ]  # fmt: skip


def printed(rows: list[Row]) -> str:
    console = Console(width=200, file=io.StringIO())
    report(rows, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_case_is_named_and_every_component_has_its_line() -> None:
    text = printed(rows_of(3, 4, 2))
    for part in ("model on h100, trtllm 1.2, tp=2", "load 1", "plan=quick", "evidence=measured", "weights=checkpoint"):
        assert part in text
    for level, units, df in (("window", 24, 12), ("start", 12, 9), ("visit", 3, 2)):
        (line,) = (line for line in text.splitlines() if line.startswith(f"│ {level}"))
        assert [cell.strip() for cell in line.split("│")][-3:-1] == [str(units), str(df)]


def test_goals_are_stated_as_reached_or_not() -> None:
    assert "goal 1 %: reached" in printed(rows_of(1, 4, 2))
    assert "goal 1 %: not reached" in printed(rows_of(1, 4, 2, output_tokens_per_joule_rel_ci95=0.02))
    assert "goal 1 %: not decided" in printed(rows_of(1, 4, 2, output_tokens_per_joule_rel_ci95=None))
    assert "goal 1.5 %: reached" in printed(rows_of(1, 4, 2))
    assert "goal 1.5 %: not decided" in printed(rows_of(3, 1, 2))


def test_what_limits_it_is_said() -> None:
    assert "one visit" in printed(rows_of(1, 4, 2))
    assert "one start per visit" in printed(rows_of(3, 1, 2))
    assert "one window per start" in printed(rows_of(3, 4, 1))
    assert "start + window" in printed(rows_of(3, 4, 1))
    assert "limit" not in printed(rows_of(4, 4, 2))


def test_an_unknown_spread_is_a_dash_and_null_never_zero() -> None:
    (result,) = case_results(rows_of(1, 1, 3))
    assert result["start"]["sd"] is result["visit"]["sd"] is result["is_start_sd_reached"] is None
    assert result["detectable"] == {"3": None, "5": None}
    assert "null" in json.dumps(result, allow_nan=False)
    assert "SD -, upper bound -" in printed(rows_of(1, 1, 3))


def test_every_evidence_has_its_own_table_the_strongest_first() -> None:
    rows = [*rows_of(1, 2, 2, evidence=Evidence.ESTIMATED), *rows_of(1, 2, 2)]
    assert [result["evidence"] for result in case_results(rows)] == ["measured", "estimated"]


def test_other_weights_are_compared() -> None:
    first = rows_of(1, 3, 2, weights="random", weights_init="seed 0")
    second = [
        dataclasses.replace(row, weights_init="seed 1", trial_id=f"other {row.trial_id}",
                            output_tokens_per_joule=1.01 * (row.output_tokens_per_joule or 0))
        for row in first
    ]  # fmt: skip
    (result,) = weights_results([*first, *second])
    assert result["differences"][0]["log_ratio"] == pytest.approx(math.log(1.01))
    text = printed([*first, *second])
    assert "against seed 0" in text
    assert "seed 1: +1.00 % ± " in text


def test_rows_that_say_nothing_are_said_to() -> None:
    assert "no valid row yet" in printed([])
    assert "no valid row yet" in printed([make_row(status=RowStatus.INVALID)])
    assert case_results([make_row(output_tokens_per_joule=None)]) == []


def test_starts_agree_only_where_the_upper_bound_says_so() -> None:
    few, many = (case_results(rows_of(1, starts, 2))[0] for starts in (2, 12))
    assert few["start"]["sd"] <= 0.015 < few["start"]["upper"]
    assert few["is_start_sd_reached"] is None
    assert many["start"]["upper"] <= 0.015
    assert many["is_start_sd_reached"] is True
