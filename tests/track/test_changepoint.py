"""Steps of series: how often one is seen that is not there, that those that are there are found, and where."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.track.changepoint import Series, detectable, p_value, sharpened, spread_of, steps

NUM = 30
POSITIONS = tuple(range(NUM))
BLOCKS = {"one card": (None,) * NUM, "three cards": tuple(number % 3 for number in range(NUM))}


def series(
    values: np.ndarray, blocks: tuple[object, ...] = BLOCKS["one card"], sd: float = 1.0, df: float = math.inf
) -> Series:
    return Series(values=tuple(map(float, values)), positions=POSITIONS[: len(values)], blocks=blocks, sd=sd, df=df)


@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("df", [math.inf, 8])
def test_a_series_without_a_step_raises_an_alarm_as_rarely_as_asked(blocks: tuple[object, ...], df: float) -> None:
    random, num = np.random.default_rng(0), 400
    alarms = 0
    for _ in range(num):
        sd = 1.0 if math.isinf(df) else math.sqrt(random.chisquare(df) / df)
        cards = random.normal(0, 5, 3)[[0 if block is None else int(str(block)) for block in blocks]]
        alarms += p_value(series(random.normal(0, 1, NUM) + cards, blocks, sd, df)) <= 0.1
    assert 0.04 * num < alarms < 0.15 * num  # 10 % asked for; within four standard errors of a count


def test_a_step_of_the_detectable_size_is_found_four_times_of_five() -> None:
    random, num = np.random.default_rng(1), 300
    size = detectable(series(np.zeros(NUM)), 0.05)
    assert size is not None
    found = 0
    for _ in range(num):
        values = random.normal(0, 1, NUM)
        values[-1] -= size
        found += any(step.position == NUM - 1 for step in steps(series(values), 0.05))
    assert 0.7 < found / num < 0.9


@given(
    places=st.lists(st.integers(2, NUM - 2), min_size=1, max_size=3, unique=True).filter(
        lambda places: all(abs(one - two) > 2 for one in places for two in places if one != two)
    ),
    seed=st.integers(0, 1000),
)
def test_steps_far_above_the_noise_are_found_where_they_are(places: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.choice([-1.0, 1.0], len(places)) * random.uniform(20, 40, len(places))
    levels = np.array([sum(size for place, size in zip(places, sizes, strict=True) if place <= at) for at in POSITIONS])
    found = steps(series(levels + random.normal(0, 1, NUM)), 1e-6)  # no alarm is false in a search for failures
    assert [step.position for step in found] == sorted(places)
    for step in found:
        assert step.earliest <= step.position <= step.latest
        assert abs(step.log - dict(zip(places, sizes, strict=True))[step.position]) < 5


def test_the_range_of_a_small_step_holds_the_truth() -> None:
    random, held, found = np.random.default_rng(2), 0, 0
    for _ in range(200):
        values = random.normal(0, 1, NUM) + 2.2 * (np.array(POSITIONS) >= 15)
        several = steps(series(values), 0.05)
        found += len(several) == 1
        held += len(several) == 1 and several[0].earliest <= 15 <= several[0].latest
    assert found > 150
    assert held >= 0.95 * found


def test_cards_that_never_come_back_have_no_step_between_them() -> None:
    moved = series(np.repeat([0.0, 50.0], NUM // 2), tuple("a" * (NUM // 2) + "b" * (NUM // 2)))
    assert steps(moved, 0.05) == []
    alone = series(np.array([0.0, 50.0]), ("a", "b"))
    assert (p_value(alone), steps(alone, 0.05), detectable(alone, 0.05)) == (1.0, [], None)
    assert p_value(series(np.array([1.0]), (None,))) == 1.0


def test_noise_is_told_in_spite_of_steps() -> None:
    random = np.random.default_rng(3)
    values = random.normal(0, 1, NUM) + 30.0 * (np.array(POSITIONS) >= 12) + 10.0 * (np.array(POSITIONS) >= 20)
    sd, num = spread_of(tuple(values), BLOCKS["one card"])
    assert num == NUM - 1
    assert 0.6 < sd < 1.6
    noisy = series(values, sd=sd, df=num / 4)
    own = sharpened(noisy, steps(noisy, 0.05))
    assert own is not None
    assert 0.7 < own.sd < 1.3
    assert own.df == NUM - 4  # three levels, and the largest step that is left
    assert sharpened(series(np.zeros(10), (None,) * 10), []) is None  # too few to tell


@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
def test_with_its_own_noise_a_series_raises_as_few_alarms_and_finds_as_much(blocks: tuple[object, ...]) -> None:
    random, num = np.random.default_rng(4), 300
    alarms = found = 0
    for _ in range(num):
        values = random.normal(0, 1, NUM)
        quiet = sharpened(series(values, blocks), [])
        assert quiet is not None
        alarms += p_value(quiet) <= 0.1
        values[-1] -= detectable(dataclasses.replace(quiet, sd=1.0), 0.05) or 0.0
        loud = sharpened(series(values, blocks), [])
        assert loud is not None
        found += any(step.position == NUM - 1 for step in steps(loud, 0.05))
    assert 0.03 * num < alarms < 0.17 * num  # 10 %
    assert 0.7 < found / num < 0.92  # 80 %
