from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.choose.demand import HOURS, SHAPES, Demand, demand_of, read_profile
from pipeline.errors import ConfigError
from tests.builders import make_row


def test_shapes_have_an_hour_each_and_none_above_the_demand() -> None:
    assert {len(factors) for factors in SHAPES.values()} == {HOURS}
    assert {max(factors) for factors in SHAPES.values()} == {1.0}
    assert SHAPES["diurnal"].index(min(SHAPES["diurnal"])) == 3


@given(st.lists(st.floats(0, 10), min_size=HOURS, max_size=HOURS).filter(any))
def test_24_numbers_are_taken_as_they_are(factors: list[float]) -> None:
    assert read_profile(",".join(map(repr, factors))) == tuple(factors)


def test_a_file_has_a_column_factor(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text("hour, factor\n" + "".join(f"{hour}, {hour / 10}\n" for hour in range(HOURS)))
    assert read_profile(str(path)) == tuple(hour / 10 for hour in range(HOURS))
    path.write_text("hour,share\n0,1\n")
    with pytest.raises(ConfigError, match="has no column factor"):
        read_profile(str(path))


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ("diurnl", r"did you mean 'diurnal'.*allowed: flat, diurnal, 24 numbers"),
        ("1,2,3", "has 3 factors; a day has 24"),
        (",".join(["0"] * HOURS), "0 throughout"),
        (",".join(["-1"] * HOURS), "'-1' is no number from 0 on"),
        (",".join(["nan"] * HOURS), "'nan' is no number"),
        ("/none/here.csv", "cannot be read"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(given_: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_profile(given_)


def test_requests_are_of_the_mean_length_that_completed() -> None:
    rows = [make_row(osl_mean_tokens=100.0, num_completed=1), make_row(osl_mean_tokens=400.0, num_completed=2)]
    demand = demand_of(rows, None, 2.0, "flat")
    assert demand == Demand(output_tokens_per_s=600.0, factors=SHAPES["flat"], profile="flat")
    assert demand_of(rows, None, None, "flat") is None


@pytest.mark.parametrize(
    ("tokens", "requests", "profile", "says"),
    [
        (1.0, 1.0, "flat", "given twice"), (-1.0, None, "flat", "above 0"), (float("nan"), None, "flat", "above 0"),
        (None, float("inf"), "flat", "above 0"), (None, None, "diurnal", "of which demand"),
    ],
)  # fmt: skip
def test_a_wrong_demand_says_what_is_wrong(
    tokens: float | None, requests: float | None, profile: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        demand_of([make_row(osl_mean_tokens=1.0)], tokens, requests, profile)


def test_requests_need_a_length() -> None:
    with pytest.raises(ConfigError, match="give --tokens-per-s"):
        demand_of([make_row()], None, 1.0, "flat")
