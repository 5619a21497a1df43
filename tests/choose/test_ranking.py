import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.choose.candidate import candidates
from pipeline.choose.demand import Demand
from pipeline.choose.fleet import Prices, fleet
from pipeline.choose.ranking import ASSUMED, Contender, Ranking, rank
from tests.builders import make_slo
from tests.choose.pools import Pools, config, steady

NONE = make_slo()


def ranking(pools: Pools) -> Ranking:
    found, _ = candidates(pools.pool)
    best = [(each, each.best(NONE)) for each in found]
    return rank([Contender(candidate=each, best=point, fleet=None) for each, point in best if point is not None])


def tps(contenders: tuple[Contender, ...]) -> list[int]:
    return [each.candidate.config.parallelism.tp for each in contenders]


def test_a_clear_winner_is_alone_in_its_tie_set() -> None:
    found = ranking(Pools().starts(config(1), (1.0, 1.01, 0.99)).starts(config(2), (0.9, 0.91, 0.89)))
    assert (tps(found.tied), found.is_told, tps(found.nominated)) == ([1], True, [])
    ratio = found.ratio(*found.ranked)
    assert ratio.ratio == pytest.approx(1 / 0.9, rel=1e-3)
    assert 1 < ratio.low < ratio.ratio < ratio.high
    assert 0.01 < found.detectable < 0.06
    assert found.take()[1] == "no other config is known or likely to be as good"


def test_one_start_each_is_told_apart_by_what_starts_are_known_to_differ_by() -> None:
    pools = Pools()
    for tp, value in ((1, 1.0), (2, 0.94), (4, 0.9)):
        pools.start(config(tp), steady(value), by="prior")
    found = ranking(pools)
    assert (tps(found.tied), found.is_told, found.basis) == ([1, 2], False, ASSUMED)
    assert found.detectable == pytest.approx(math.expm1(0.05 * math.sqrt(2)))
    assert found.take()[1].startswith("the others lie more than 5 % below")


def test_a_screening_only_nominates_beside_fresh_starts() -> None:
    pools = Pools().starts(config(1), (1.0, 1.01)).starts(config(2), (0.8, 0.81))
    pools.start(config(4), steady(1.2), by="residual")
    pools.start(config(8), steady(0.7), by="residual")
    found = ranking(pools)
    assert (tps(found.ranked), tps(found.nominated), tps(found.tied)) == ([1, 2], [4], [1])
    assert (tps(found.beaten), found.is_firm) == ([8], False)


def test_an_anchors_fresh_starts_are_no_finals_where_another_looks_better() -> None:
    pools = Pools().starts(config(1), (1.0, 1.01))
    pools.start(config(2), steady(1.5), by="residual")
    found = ranking(pools)
    assert (tps(found.ranked), tps(found.tied), found.is_firm) == ([2, 1], [2], False)


def test_fresh_starts_of_one_config_are_firm_where_screenings_are_below() -> None:
    pools = Pools().starts(config(1), (1.0, 1.01))
    assert ranking(pools).is_alone
    assert not ranking(pools).is_firm
    pools.start(config(2), steady(0.9), by="residual")
    found = ranking(pools)
    assert (found.is_firm, found.take()[1]) == (True, "the only config with fresh starts")


def test_of_a_tie_the_one_with_the_fewest_devices_for_the_same_tokens_is_taken() -> None:
    pools = Pools()
    for value in (1.0, 1.02):
        pools.start(config(1), steady(value, tokens_per_s=1000))
        pools.start(config(2), steady(value * 1.01, tokens_per_s=1900))
    taken, why = ranking(pools).take()
    assert (taken.candidate.num_gpus, why) == (1, "takes the fewest devices for the same tokens/s")


def test_of_a_tie_alike_in_devices_the_one_that_sets_the_fewest_keys_is_taken() -> None:
    pools = Pools()
    for value in (1.0, 1.02):
        pools.start(config(1), steady(value))
        pools.start(config(1, batching__max_batch_size=64), steady(value * 1.01))
    taken, why = ranking(pools).take()
    assert (len(taken.candidate.config.requested()), why) == (2, "sets fewest keys")


def test_declared_prices_come_first() -> None:
    pools = Pools()
    for value in (1.0, 1.02):
        pools.start(config(1), steady(value, tokens_per_s=1000))
        pools.start(config(1, batching__max_batch_size=64), steady(value, tokens_per_s=1100))
    demand = Demand(output_tokens_per_s=11_000, factors=(1.0,) * 24, profile="flat")
    contenders = []
    for each in candidates(pools.pool)[0]:
        best = each.best(NONE)
        assert best is not None
        of = fleet(each, best, demand, None, Prices(usd_per_device_h=1.0), None)
        contenders.append(Contender(candidate=each, best=best, fleet=of))
    taken, why = rank(contenders).take()
    assert taken.best.output_tokens_per_s == pytest.approx(1100)
    assert why == "cheapest"


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8]), st.lists(st.floats(0.5, 2), min_size=1, max_size=3), min_size=1))
def test_the_best_mean_is_of_the_tie_and_what_is_taken_is_near_it(values: dict[int, list[float]]) -> None:
    pools = Pools()
    for tp, starts in values.items():
        pools.starts(config(tp), starts)
    found = ranking(pools)
    taken, why = found.take()
    assert found.ranked[0] in found.tied
    assert taken in found.tied
    assert taken.value >= found.ranked[0].value + math.log(0.95) - 1e-9
    assert why
