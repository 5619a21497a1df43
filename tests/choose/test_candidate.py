import pytest

from pipeline.choose.candidate import Candidate, candidates
from pipeline.search.proposal import REPEAT
from pipeline.vocabulary import TrialStatus
from tests.builders import make_slo
from tests.choose.pools import Pools, config, steady

ONE = config(1)


def only(pools: Pools) -> Candidate:
    (found,), out = candidates(pools.pool)
    assert not out
    return found


def test_fresh_starts_count_alone_where_there_are_some() -> None:
    pools = Pools()
    pools.start(ONE, steady(2.0), by="residual")
    lucky = only(pools)
    assert (lucky.is_fresh, lucky.points[0].num_starts) == (False, 1)
    pools.starts(ONE, (1.0, 1.02))
    pools.start(ONE, steady(1.01), by=REPEAT)
    found = only(pools)
    assert (found.is_fresh, found.points[0].num_starts) == (True, 3)
    assert found.points[-1].output_tokens_per_joule == pytest.approx(1.01, rel=1e-3)


def test_the_rows_of_an_interrupted_start_and_of_the_next_are_one_screening() -> None:
    pools = Pools()
    pools.start(ONE, {8: (1.0, 100.0)}, by="prior", status=TrialStatus.INTERRUPTED)
    pools.start(ONE, {64: (2.0, 200.0)}, by="prior")
    found = only(pools)
    assert [(point.load, point.num_starts) for point in found.points] == [(8, 1), (64, 1)]
    pools = Pools()
    pools.start(ONE, steady(1.0), status=TrialStatus.INTERRUPTED)
    assert not only(pools).is_fresh


def test_a_load_that_one_of_several_starts_measured_does_not_count() -> None:
    pools = Pools()
    pools.starts(ONE, (1.0, 1.0))
    pools.start(ONE, {**steady(1.0), 256: (9.0, 2000.0)})
    assert [point.load for point in only(pools).points] == [8, 64]


def test_every_window_must_meet_the_slo() -> None:
    pools = Pools()
    pools.starts(ONE, (1.0,))
    slo = make_slo(ttft_p99_s=0.07)
    best = only(pools).best(slo)
    assert best is not None
    assert best.load == 64
    pools.start(ONE, steady(1.0), ttft_p99_s=0.1)
    assert only(pools).best(slo) is None
    pools = Pools()
    pools.start(ONE, steady(1.0), ttft_p99_s=None)
    assert only(pools).best(slo) is None


def test_a_failed_fresh_start_rules_a_config_out_and_a_failed_screening_does_not() -> None:
    pools = Pools()
    pools.starts(ONE, (1.0, 1.0))
    pools.start(ONE, {}, by="prior", status=TrialStatus.HUNG)
    assert only(pools).points[0].num_starts == 2
    pools.start(ONE, {}, status=TrialStatus.OUT_OF_MEMORY)
    found, (out,) = candidates(pools.pool)
    assert not found
    assert "a fresh start failed: out_of_memory" in out.reason


def test_two_renderings_of_one_config_are_two_candidates() -> None:
    pools = Pools()
    pools.start(ONE, steady(1.0), rendered_hash="a")
    pools.start(ONE, steady(1.0), rendered_hash="b")
    found, _ = candidates(pools.pool)
    assert len({each.key for each in found}) == 2
