import dataclasses
import json
import math

import pytest

from pipeline.choose.decide import Asked, decide
from pipeline.choose.decision import Basis, Decision, LimitedBy, decision_json
from pipeline.choose.demand import HOURS, Demand
from pipeline.choose.fleet import Idle
from pipeline.errors import ConfigError, StoreError
from pipeline.vocabulary import Evidence, Met
from pipeline.workload import Slo
from tests.builders import make_slo
from tests.choose.pools import Pools, config, steady

ONE, TWO, FOUR = config(1), config(2), config(4)


def decided(pools: Pools, slo: Slo | None = None, asked: Asked | None = None) -> Decision:
    return decide(pools.pool, slo or make_slo(), asked or Asked())


def test_fresh_starts_that_tell_a_winner_make_the_choice_firm() -> None:
    found = decided(Pools().starts(ONE, (1.0, 1.01, 0.99)).starts(TWO, (0.8, 0.81, 0.79)))
    assert (found.is_firm, found.basis, found.winner.num_starts) == (True, Basis.FRESH, 3)
    assert (found.winner.config_hash, found.winner.load) == (ONE.config_hash, "64")
    assert len(found.winner.trial_ids) == len(found.winner.row_ids) == 3
    assert found.trial.trial_id == found.winner.trial_ids[-1]
    assert found.runner_up is not None
    assert found.runner_up.low > 1
    assert found.finals_command is None
    assert not found.doubts


def test_a_screening_chooses_for_now_and_says_how_to_decide() -> None:
    pools = Pools()
    for of, value in ((ONE, 1.0), (TWO, 0.6)):
        pools.start(of, steady(value), by="prior")
    found = decided(pools)
    assert (found.is_firm, found.basis) == (False, Basis.SCREENING)
    assert found.doubts[0].startswith("screening only: one start")
    assert found.finals_command is not None
    assert found.finals_command.startswith("tpw sweep model=gpt-oss-120b ")


def test_a_nominee_without_fresh_starts_keeps_the_choice_open() -> None:
    pools = Pools().starts(ONE, (1.0, 1.01)).starts(TWO, (0.8, 0.81))
    pools.start(FOUR, steady(1.2), by="residual")
    found = decided(pools)
    assert (found.winner.config_hash, found.is_firm) == (ONE.config_hash, False)
    (doubt,) = found.doubts
    assert doubt == "tp=4 has no fresh start, and in the search +19.4 % tokens per joule on the best that has"


def test_random_weights_and_weak_evidence_are_doubts() -> None:
    pools = Pools().starts(ONE, (1.0, 1.0), weights="random", evidence=Evidence.ESTIMATED)
    doubts = decided(pools).doubts[-2:]
    assert [doubt.partition(":")[0] for doubt in doubts] == ["evidence=estimated", "weights=random"]


def test_what_binds_and_what_relaxing_it_would_gain() -> None:
    pools = Pools().starts(ONE, (1.0, 1.0))
    limit = decided(pools, make_slo(ttft_p99_s=0.01)).limit
    assert (limit.limited_by, limit.next_load, limit.binding) == (LimitedBy.SLO, "64", "ttft_p99_s")
    assert (limit.bound_s, limit.needed_s) == (0.01, 0.064)
    assert limit.tokens_per_joule_ratio == pytest.approx(2)
    assert limit.text == (
        "ttft_p99_s binds: owed 0.01 s; at load 64, the next measured, it is 0.064 s, and tokens per joule are +100.0 %"
    )
    assert decided(pools).limit.limited_by is LimitedBy.RANGE
    both = decided(pools, make_slo(ttft_p99_s=0.01, tpot_p50_s=0.032)).limit
    assert both.text.endswith("+100.0 %; so would have to give way: tpot_p50_s 2.00 times what is owed")


def test_a_bound_that_no_heavier_row_knows_is_not_said_to_hold() -> None:
    pools = Pools()
    pools.start(ONE, {8: (1.0, 100.0), 64: (2.0, 200.0)})
    pools.rows[-1] = dataclasses.replace(pools.rows[-1], ttft_p99_s=None)
    limit = decided(pools, make_slo(ttft_p99_s=0.01)).limit
    assert (limit.limited_by, limit.binding, limit.needed_s) == (LimitedBy.SLO, "ttft_p99_s", None)
    assert "the next measured, it is unknown, and" in limit.text


def test_a_ladder_that_peaks_is_limited_by_efficiency() -> None:
    pools = Pools()
    pools.start(ONE, {8: (1.0, 100.0), 64: (0.5, 200.0)})
    found = decided(pools)
    assert (found.limit.limited_by, found.winner.load) == (LimitedBy.EFFICIENCY, "8")
    assert found.limit.text.startswith("no bound binds")
    broken = decided(pools, make_slo(ttft_p99_s=0.01)).limit
    assert (broken.limited_by, "gains nothing (-50.0 %)" in broken.text) == (LimitedBy.EFFICIENCY, True)


def test_nothing_that_meets_the_slo_says_what_comes_nearest_and_the_gap() -> None:
    pools = Pools().starts(ONE, (1.0,))
    pools.start(TWO, steady(1.0), ttft_p99_s=0.004)
    with pytest.raises(
        ConfigError, match=r"nearest is \[tp=2\] at load 8 \(the lightest .*ttft_p99_s=0.004 s against 0.0"
    ):
        decided(pools, make_slo(ttft_p99_s=0.001))
    pools = Pools()
    pools.start(ONE, steady(1.0), ttft_p99_s=None)
    with pytest.raises(ConfigError, match=r"ttft_p99_s is unknown \(owed 0.001 s\)"):
        decided(pools, make_slo(ttft_p99_s=0.001))


def test_the_pick_for_throughput_is_per_device() -> None:
    pools = Pools()
    pools.start(ONE, {64: (2.0, 1000.0)})
    pools.start(TWO, {64: (1.5, 3000.0)})
    pools.start(FOUR, {64: (1.9, 3600.0)})
    pick = decided(pools).throughput
    assert (pick.label, pick.is_same) == ("tp=2", False)
    assert pick.output_tokens_per_s_per_device == pytest.approx(1500)
    assert pick.tokens_per_s_per_device_ratio == pytest.approx(1000 / 1500)
    assert pick.tokens_per_joule_ratio == pytest.approx(2 / 1.5)
    assert pick.power_per_device_ratio == pytest.approx(500 / 1000)


def test_no_point_of_the_front_is_beaten() -> None:
    pools = Pools()
    pools.start(ONE, {8: (1.0, 100.0), 64: (3.0, 200.0)})
    pools.start(TWO, {8: (2.0, 100.0), 64: (2.5, 200.0), 256: (0.1, 200.0)})
    of_slo = decided(pools, make_slo(ttft_p99_s=0.01)).front
    assert [(point.label, point.load) for point in of_slo] == [("tp=2", "8")]
    assert [(point.label, point.load) for point in decided(pools).front] == [("tp=1", "64"), ("tp=2", "8")]


def test_a_day_of_partial_load_can_choose_another_config_than_the_best_load() -> None:
    pools = Pools()
    for _ in range(2):
        pools.start(ONE, {8: (0.5, 100.0), 64: (10.0, 1000.0)})  # 200 W at a tenth of its load, 100 W at the best
        pools.start(TWO, {8: (2.0, 100.0), 64: (8.0, 1000.0)})
    idle = Idle(power_w=10.0, source="test")

    def at(factor: float) -> Decision:
        demand = Demand(output_tokens_per_s=1000.0, factors=(1.0, *(factor,) * (HOURS - 1)), profile="test")
        return decided(pools, asked=Asked(demand=demand, idle=idle))

    busy, quiet = at(1.0), at(0.1)
    assert (busy.winner.label, busy.at_saturation) == ("tp=1", None)
    assert quiet.winner.label == "tp=2"
    assert quiet.at_saturation is not None
    assert quiet.at_saturation.other.label == "tp=1"
    assert quiet.at_saturation.ratio > 1
    assert quiet.fleet is not None
    assert quiet.winner.fleet_output_tokens_per_joule == quiet.fleet.output_tokens_per_joule
    much = Asked(demand=Demand(output_tokens_per_s=5000.0, factors=(1.0,) * HOURS, profile="flat"), max_devices=1)
    with pytest.raises(ConfigError, match=r"--max-devices=1: the demand of 5,000 tokens/s takes 5 at least"):
        decided(pools, asked=much)


def test_no_config_wins_a_day_by_the_light_loads_that_were_not_measured() -> None:
    pools = Pools()
    for _ in range(2):
        pools.start(ONE, {8: (1.0, 400.0), 64: (2.0, 1000.0)})  # 400 W and 500 W
        pools.start(TWO, {64: (2.02, 1000.0)})  # the line from idle to 495 W would give 109 W at the quiet hours
    quiet = Demand(output_tokens_per_s=1000.0, factors=(1.0, *(0.4,) * (HOURS - 1)), profile="test")
    asked = Asked(demand=quiet, idle=Idle(power_w=10.0, source="test"))
    found = decided(pools, asked=asked)
    assert (found.winner.label, found.tie_set[-1].label) == ("tp=1", "tp=1")
    assert found.runner_up is not None
    assert found.runner_up.ratio > 1
    coarse = Pools()
    coarse.start(TWO, {64: (2.02, 1000.0)})
    doubt = decided(coarse, asked=asked).doubts[-1]
    assert doubt.startswith("in 23 hours a replica serves less than at its lightest measured load: between 0.8")


def test_one_config_alone_is_the_best_of_nothing() -> None:
    found = decided(Pools().starts(ONE, (1.0, 1.01)))
    assert (found.is_firm, found.winner.label, found.runner_up) == (False, "the only config", None)
    assert found.doubts == ("one config that can be compared: it is the best of nothing",)
    assert found.finals_command is None
    assert decided(Pools().starts(ONE, (1.0,))).finals_command is not None


def test_an_slo_that_the_seen_percentiles_meet_may_be_undecided() -> None:
    pools = Pools().starts(ONE, (1.0, 1.0))
    assert decided(pools, make_slo(ttft_p99_s=1.0)).winner.slo_met is Met.UNDECIDED
    assert decided(pools).winner.slo_met is None


def test_the_json_holds_all_but_the_trial_and_no_nan() -> None:
    found = decided(Pools().starts(ONE, (1.0, 1.01)).starts(TWO, (0.8, 0.81)))
    plain = json.loads(json.dumps(decision_json(found), allow_nan=False))
    assert plain.keys() == {field.name for field in dataclasses.fields(found)} - {"trial"}
    assert plain["schema_version"] == 1
    assert plain["winner"]["config"] == {"parallelism.tp": 1, "precision.weights": "fp4"}
    with pytest.raises(StoreError, match="nan"):
        decision_json(dataclasses.replace(found, detectable=math.nan))
