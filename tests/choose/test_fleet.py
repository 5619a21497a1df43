import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.choose.candidate import candidates
from pipeline.choose.demand import HOURS, Demand
from pipeline.choose.fleet import Fleet, Idle, Prices, fleet, idle_of, prices_of
from pipeline.errors import ConfigError
from tests.builders import make_study
from tests.choose.pools import Ladder, Pools, config

LADDER: Ladder = {1: (1.0, 100.0), 4: (2.0, 400.0), 16: (4.0, 1200.0), 64: (3.0, 1500.0)}
"""100 W at 100 tok/s, 200 W at 400, 300 W at 1200, and a load that is faster and less efficient."""

IDLE = Idle(power_w=40.0, source="test")


def served(
    tokens_per_s: float, factors: tuple[float, ...] = (1.0,) * HOURS, idle: Idle | None = IDLE, tp: int = 1,
    prices: Prices | None = None,
) -> Fleet:  # fmt: skip
    pools = Pools()
    pools.start(config(tp), LADDER)
    (candidate,), _ = candidates(pools.pool)
    best = next(point for point in candidate.points if point.load == 16)
    demand = Demand(output_tokens_per_s=tokens_per_s, factors=factors, profile="test")
    return fleet(candidate, best, demand, idle, prices or Prices(), 1.5)


@pytest.mark.parametrize(
    ("tokens_per_s", "replicas", "power_w"),
    [(1200, 1, 300), (1201, 2, 450.125), (400, 1, 200), (800, 1, 250), (250, 1, 150), (50, 1, 70), (2400, 2, 600)],
)
def test_power_lies_on_lines_through_the_measured_loads(tokens_per_s: float, replicas: int, power_w: float) -> None:
    found = served(tokens_per_s)
    assert (found.replicas, found.devices) == (replicas, replicas)
    assert found.peak_power_w == pytest.approx(power_w)
    assert found.energy_kwh_per_day == pytest.approx(power_w * 24 / 1000)
    assert found.output_tokens_per_joule == pytest.approx(tokens_per_s / power_w)
    assert found.peak_output_tokens_per_s_per_mw == pytest.approx(1e6 * tokens_per_s / power_w)
    assert found.output_tokens_per_s_per_provisioned_mw == pytest.approx(tokens_per_s / (replicas * 1.5) * 1e3)
    assert found.hours_below_ladder == (24 if tokens_per_s < 100 else 0)
    assert found.min_output_tokens_per_joule == pytest.approx(tokens_per_s / (100 if tokens_per_s < 100 else power_w))


@given(st.floats(1, 1e5), st.lists(st.floats(0, 1), min_size=HOURS, max_size=HOURS).filter(lambda f: max(f) > 0.01))
def test_no_replica_serves_more_or_draws_more_than_was_measured(peak: float, factors: list[float]) -> None:
    found = served(peak, tuple(factors))
    each = [hour.output_tokens_per_s_per_replica for hour in found.hours]
    assert max(each) <= 1200 * (1 + 1e-9)
    assert all(40 <= hour.power_w / found.replicas <= 300 + 1e-6 for hour in found.hours)
    assert max(each) * found.replicas == pytest.approx(found.peak_output_tokens_per_s)
    assert (found.replicas - 1) * 1200 < found.peak_output_tokens_per_s
    assert found.mean_power_w <= found.peak_power_w * (1 + 1e-9)


def test_replicas_that_are_off_draw_nothing() -> None:
    found = served(2400, (1.0,) * 12 + (0.0,) * 12)
    assert found.energy_kwh_per_day == pytest.approx((600 * 12 + 2 * 40 * 12) / 1000)
    assert found.energy_kwh_per_day_switched == pytest.approx(600 * 12 / 1000)
    assert found.min_output_tokens_per_joule == found.output_tokens_per_joule  # idle is known where nothing is asked


def test_without_idle_power_nothing_is_told_below_the_lightest_load() -> None:
    assert served(100, idle=None).peak_power_w == pytest.approx(100)
    with pytest.raises(ConfigError, match=r"50 tokens/s per replica: below the lightest .*--idle-w-per-device"):
        served(50, idle=None)


def test_a_replica_of_several_devices_idles_on_all_of_them() -> None:
    found = served(1200, (1.0,) + (0.0,) * 23, tp=2)
    assert (found.replicas, found.devices) == (1, 2)
    assert found.hours[1].power_w == pytest.approx(80)


def test_the_cost_is_that_of_its_formula() -> None:
    found = served(1200, prices=prices_of(2.0, 0.1, 1.5))
    millions = 1200 * 86400 / 1e6
    assert found.usd_per_million_output_tokens == pytest.approx((48 + 7.2 * 1.5 * 0.1) / millions)
    assert found.cost_formula == (
        "(1 devices x $2/h x 24 h + 7.2 kWh x PUE 1.5 x $0.1/kWh) / 103.7 million output tokens = $0.473"
    )
    alone = served(1200, prices=prices_of(None, 0.1, 1.0))
    assert alone.usd_per_million_output_tokens == pytest.approx(0.72 / millions)
    assert served(1200).cost_formula is None


@pytest.mark.parametrize(
    ("given_", "says"),
    [((math.nan, None, None), "per-device-h=nan"), ((-1.0, None, None), "from 0 on"), ((None, 0.1, None), "give both"),
     ((None, 0.1, 0.9), "--pue=0.9: must be a number from 1 on")],
)  # fmt: skip
def test_a_wrong_price_says_what_is_wrong(given_: tuple[float | None, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        prices_of(*given_)


def test_idle_power_is_given_or_declared() -> None:
    hardware = make_study("hardware=h100").hardware
    assert idle_of(hardware, 120.0) == Idle(power_w=120.0, source="given")
    declared = idle_of(hardware, None)
    assert declared is not None
    assert (declared.power_w, "at least" in declared.source) == (hardware.idle_power_w, True)
    assert idle_of(dataclasses.replace(hardware, idle_power_w=None), None) is None
    with pytest.raises(ConfigError, match="idle-w-per-device"):
        idle_of(hardware, -1.0)
