import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.steadiness import drift, is_steady


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=20))
def test_drift_changes_sign_with_time(blocks: list[float]) -> None:
    forth, back = drift(blocks), drift(blocks[::-1])
    assert forth is not None
    assert back is not None
    assert forth == pytest.approx(-back, abs=1e-9)


@given(st.floats(1, 100), st.integers(3, 30), st.floats(-0.5, 0.5))
def test_drift_of_a_straight_line_is_its_change_over_the_mean(mean: float, count: int, change: float) -> None:
    blocks = [mean * (1 + change * ((n + 0.5) / count - 0.5)) for n in range(count)]
    assert drift(blocks) == pytest.approx(change, abs=1e-9)


@pytest.mark.parametrize("blocks", [[], [1.0], [1.0, 2.0], [0.0, 0.0, 0.0]])
def test_drift_of_too_little_is_none(blocks: list[float]) -> None:
    assert drift(blocks) is None


@pytest.mark.parametrize(
    ("blocks", "steady"),
    [
        ([], False),
        ([5], False),
        ([5, 5], False),
        ([0, 0, 0], False),
        ([5, 5, 5], True),
        ([10, 11, 10, 9, 10, 11, 9, 10], True),
        ([80, 85, 91, 94, 101, 104, 110, 115], False),
        ([115, 110, 104, 101, 94, 91, 85, 80], False),
        ([10, 10, 10, 4, 10, 10, 10, 10], False),
        ([10, 10, 10, 6, 10, 10, 10, 10], True),
        ([10, 10, 10, 10, 10, 10, 10, 0], False),
        ([30, 8, 22, 11, 28, 12, 25, 14], False),
        ([20, 13, 19, 12, 20, 14, 12, 17], True),
        ([54, 48, 40, 34, 30], False),
        ([6, 10, 10, 10, 10], False),
    ],
)
def test_steady_is_without_trend_and_without_stall_whatever_the_noise(blocks: list[float], steady: bool) -> None:
    assert is_steady(blocks, 0.05) is steady


@given(st.floats(1, 1000), st.integers(4, 30), st.floats(-0.6, 0.6), st.floats(0.01, 0.5))
def test_a_straight_line_is_steady_exactly_within_the_tolerance(
    mean: float, count: int, change: float, tolerance: float
) -> None:
    assume(abs(abs(change) - tolerance) > 1e-6)
    blocks = [mean * (1 + change * ((n + 0.5) / count - 0.5)) for n in range(count)]
    assert is_steady(blocks, tolerance) is (abs(change) < tolerance)


@given(st.lists(st.integers(1, 100), min_size=3, max_size=20), st.integers(2, 50))
def test_steadiness_does_not_depend_on_the_unit_or_the_direction_of_time(blocks: list[int], factor: int) -> None:
    found = is_steady(blocks, 0.05)
    assert is_steady([factor * n for n in blocks], 0.05) is found
    assert is_steady(blocks[::-1], 0.05) is found
