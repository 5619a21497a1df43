from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.load.arrivals import Poisson, Schedule

SCHEDULES = (
    st.lists(st.floats(min_value=0, max_value=1e4), min_size=2, max_size=20)
    .map(sorted)
    .filter(lambda times: times[-1] - times[0] > 1e-3)
    .map(tuple)
)


def test_poisson_gaps_are_exponential_with_the_rate_asked_for() -> None:
    gaps = np.diff(list(islice(Poisson(4.0, seed=0).times_s(), 20_000)), prepend=0.0)
    assert gaps.mean() == pytest.approx(0.25, rel=5 / np.sqrt(20_000))
    assert gaps.std() == pytest.approx(0.25, rel=0.05)
    assert np.mean(gaps > 0.25) == pytest.approx(np.exp(-1), abs=0.02)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 5 / np.sqrt(20_000)


@given(seed=st.integers(0, 2**31), rate_per_s=st.floats(0.01, 1e4))
def test_poisson_times_are_the_same_every_time_and_scale_with_the_rate(seed: int, rate_per_s: float) -> None:
    first, again, single = (list(islice(Poisson(r, seed).times_s(), 600)) for r in (rate_per_s, rate_per_s, 1.0))
    assert first == again == sorted(first)
    assert first == pytest.approx([at_s / rate_per_s for at_s in single])


def test_poisson_seeds_differ() -> None:
    assert next(Poisson(1.0, 1).times_s()) != next(Poisson(1.0, 2).times_s())


@given(at_s=SCHEDULES)
def test_schedule_is_kept_and_repeats_at_its_own_rate(at_s: tuple[float, ...]) -> None:
    num, schedule = len(at_s), Schedule(at_s)
    times = list(islice(schedule.times_s(), 3 * num))
    assert times[:num] == [at - at_s[0] for at in at_s]
    assert times == sorted(times)
    period_s = num / schedule.rate_per_s
    assert times[num:] == pytest.approx([at + period_s for at in times[:-num]])
    assert times[num] - times[num - 1] == pytest.approx((at_s[-1] - at_s[0]) / (num - 1)), "one mean gap between passes"
