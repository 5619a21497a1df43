import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.track.contrast import CARDS_TO_STARTS, Spread, Value, after_less_before, difference, together

START = Spread(sd=0.01, df=10, basis="")
CARD = Spread(sd=0.03, df=2, basis="")

sides = st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abc")), min_size=1, max_size=6)


def values(side: list[tuple[float, str]], name: str) -> list[Value]:
    return [Value(log=log, start=f"{name}{number}", card=card) for number, (log, card) in enumerate(side)]


@given(before=sides, after=sides)
def test_the_weights_are_those_of_generalised_least_squares(
    before: list[tuple[float, str]], after: list[tuple[float, str]]
) -> None:
    found = after_less_before(values(before, "b"), values(after, "a"))
    of = [value.card for value in found]
    covariance = np.eye(len(of)) + CARDS_TO_STARTS * np.array([[one == other for other in of] for one in of])
    design = np.column_stack([np.ones(len(of)), np.repeat([0, 1], [len(before), len(after)])])
    inverse = np.linalg.inv(covariance)
    expected = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)[1]
    assert [value.weight for value in found] == pytest.approx(list(expected), abs=1e-9)
    whole = difference(found, Spread(sd=1.0, df=math.inf, basis=""), Spread(sd=3.0, df=math.inf, basis=""))
    assert whole.half_width == pytest.approx(1.96 * math.sqrt(expected @ covariance @ expected), rel=1e-3)


def test_what_a_card_adds_cancels_where_both_sides_ran_on_it() -> None:
    same = difference(after_less_before(values([(0.0, "a")], "b"), values([(0.05, "a")], "a")), START, CARD)
    apart = difference(after_less_before(values([(0.0, "a")], "b"), values([(0.05, "c")], "a")), START, CARD)
    assert (same.is_across_cards, apart.is_across_cards) == (False, True)
    assert same.log == pytest.approx(0.05)
    assert apart.log == pytest.approx(0.05)
    assert same.half_width == pytest.approx(2.228 * 0.01 * math.sqrt(2), rel=1e-3)
    assert apart.half_width > 3.5 * 0.03 * math.sqrt(2)  # little more than two degrees of freedom
    assert same.ratio[1] < math.exp(0.05) < same.ratio[2]


def test_loads_of_one_start_are_one_piece_of_evidence() -> None:
    def half_width(starts: str) -> float:
        weights = (0.5, 0.5, -0.5, -0.5)
        found = [Value(log=0.1, start=start, card="a", weight=w) for start, w in zip(starts, weights, strict=True)]
        return difference(found, START, CARD).half_width

    assert half_width("sstt") == pytest.approx(half_width("stuv") * math.sqrt(2))


@pytest.mark.parametrize("num", [1, 4])
def test_the_interval_holds_the_truth_as_often_as_it_says(num: int) -> None:
    random, held, count = np.random.default_rng(0), 0, 600
    for _ in range(count):
        spread = Spread(sd=START.sd * math.sqrt(random.chisquare(6) / 6), df=6, basis="")
        cards = Spread(sd=CARD.sd * math.sqrt(random.chisquare(2) / 2), df=2, basis="")
        levels = dict(zip("abcd", random.normal(0, CARD.sd, 4), strict=True))
        before = [(float(levels[card] + random.normal(0, START.sd)), card) for card in "ab" for _ in range(num)]
        after = [(float(levels[card] + random.normal(0, START.sd)), card) for card in "bc" for _ in range(num)]
        found = difference(after_less_before(values(before, "b"), values(after, "a")), spread, cards)
        held += abs(found.log) <= found.half_width
    assert held / count > 0.93


def test_degrees_of_freedom_add_up() -> None:
    assert together((1.0, math.inf)) == (1.0, math.inf)
    assert together((1.0, 5.0), (0.0, 2.0)) == (1.0, 5.0)
    variance, df = together((1.0, 5.0), (1.0, 5.0))
    assert variance == 2.0
    assert df == pytest.approx(10.0)
