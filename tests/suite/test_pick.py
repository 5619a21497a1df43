"""A suite is the smallest set of cases that stands for the front."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.suite.pick import Pick, cover, pick
from tests.builders import make_slo
from tests.choose.pools import Pools, config


class At:
    """A point of a front."""

    def __init__(self, tokens_per_joule: float, per_user: float) -> None:
        self.output_tokens_per_joule, self._per_user = tokens_per_joule, per_user

    def mean(self, column: str) -> float:
        return self._per_user


def front_of(jumps: list[tuple[float, float]]) -> list[Pick]:
    """A front whose neighbours differ by these factors, the most tokens per joule first."""
    found, here = [], (100.0, 1.0)
    for down, up in [(1.0, 1.0), *jumps]:
        here = (here[0] / down, here[1] * up)
        found.append(Pick(candidate=None, point=At(*here), is_winner=False))  # type: ignore[arg-type]  # all it needs
    return found


def covers(chosen: tuple[Pick, ...], points: list[Pick], tolerance: float) -> bool:
    def both(each: Pick) -> tuple[float, float]:
        return each.point.output_tokens_per_joule, each.point.mean("any") or 0.0

    return all(
        any(
            all(own >= (1 - tolerance) * other for own, other in zip(both(one), both(each), strict=True))
            for one in chosen
        )
        for each in points
    )


@given(
    jumps=st.lists(st.tuples(st.floats(1.001, 1.2), st.floats(1.001, 1.2)), max_size=6), tolerance=st.floats(0.001, 0.3)
)
def test_the_cover_is_one_and_none_is_smaller(jumps: list[tuple[float, float]], tolerance: float) -> None:
    points = front_of(jumps)
    found = cover(points, tolerance)
    assert covers(tuple(found), points, tolerance)
    for num in range(1, len(found)):
        assert not any(covers(fewer, points, tolerance) for fewer in combinations(points, num))


def test_the_winner_is_among_them_and_what_breaks_the_slo_is_not() -> None:
    pools = Pools()
    pools.starts(config(1), [1.0, 1.0]).starts(config(2), [1.4, 1.4]).starts(config(4), [1.38, 1.38])
    picks, num_front = pick(pools.pool, make_slo(), 0.05)
    assert [(each.candidate.config, each.point.load, each.is_winner) for each in picks] == [
        (config(2), 64, True),
        (config(2), 8, False),
    ]
    assert num_front == 2
    light, _ = pick(pools.pool, make_slo(ttft_p99_s=0.02), 0.05)
    assert [each.point.load for each in light] == [8]
    with pytest.raises(ConfigError, match="no measured config meets it"):
        pick(pools.pool, make_slo(ttft_p99_s=0.001), 0.05)
