import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe_gain import Gain, recipe_gains
from pipeline.record import Row, Trial
from pipeline.vocabulary import Boundary, Evidence
from tests.builders import INVALID, make_row, make_slo, make_trial

NONE = make_slo()
AT_64 = "database/m/B200/1k1k_tp1_conc64.yaml"
AT_4 = "database/m/B200/1k1k_tp8_conc4_latency.yaml"


def trial(config: str, proposed_by: str = "tpe") -> Trial:
    return make_trial(config_hash=config, proposed_by=proposed_by)


def row(config: str, value: float, load: int = 64, **columns: Any) -> Row:
    return make_row(config_hash=config, output_tokens_per_joule=value, concurrency=load, **columns)


def only(gains: list[Gain]) -> Gain:
    assert len(gains) == 1
    return gains[0]


TRIALS = [trial("ours"), trial("other", "baseline"), trial("v64", f"recipe:{AT_64}"), trial("v4", f"recipe:{AT_4}")]


def test_the_best_of_ours_against_the_recipe_at_that_load() -> None:
    rows = [row("ours", 11.23), row("other", 9.0), row("v64", 10.0)]
    gain = only(recipe_gains(rows, TRIALS, NONE))
    assert (gain.recipe, gain.row, gain.is_slo_met) == (AT_64, rows[0], None)
    assert gain.ratio == pytest.approx(1.123)


def test_without_a_recipe_or_without_a_config_of_ours_there_is_no_gain() -> None:
    assert recipe_gains([], TRIALS, NONE) == []
    assert recipe_gains([row("ours", 1.0), row("other", 2.0)], TRIALS, NONE) == []
    assert recipe_gains([row("v64", 1.0), row("v4", 2.0)], TRIALS, NONE) == []


def test_only_loads_at_which_both_have_a_valid_row_lightest_first() -> None:
    rows = [row("ours", 2.0, load) for load in (64, 16, 4, 1)]
    rows += [row("v64", 1.0, load) for load in (256, 64, 4)]
    rows += [make_row(config_hash="v64", concurrency=16, **INVALID)]
    assert [gain.row.concurrency for gain in recipe_gains(rows, TRIALS, NONE)] == [4, 64]


def test_a_loss_is_a_loss() -> None:
    assert only(recipe_gains([row("ours", 0.9), row("v64", 1.0)], TRIALS, NONE)).ratio == pytest.approx(0.9)


def test_the_recipe_tuned_nearest_to_a_load_is_the_rival_there() -> None:
    rows = [
        row(config, value, load) for load in (1, 8, 32, 256) for config, value in (("ours", 3), ("v64", 1), ("v4", 2))
    ]
    found = {gain.row.concurrency: gain.recipe for gain in recipe_gains(rows, TRIALS, NONE)}
    assert found == {1: AT_4, 8: AT_4, 32: AT_64, 256: AT_64}


def test_a_recipe_that_does_better_than_the_one_that_counts_is_named() -> None:
    gain = only(recipe_gains([row("ours", 4.0), row("v64", 1.0), row("v4", 2.0)], TRIALS, NONE))
    assert (gain.recipe, gain.better_recipe) == (AT_64, AT_4)
    assert (gain.ratio, gain.better_ratio) == pytest.approx((4.0, 2.0))
    gain = only(recipe_gains([row("ours", 4.0), row("v64", 2.0), row("v4", 2.0)], TRIALS, NONE))
    assert (gain.better_recipe, gain.better_ratio) == (None, None)


def test_of_two_tuned_for_one_load_the_better_is_the_rival() -> None:
    trials = [*TRIALS, trial("tp2", "recipe:database/m/B200/1k1k_tp2_conc64.yaml")]
    rows = [row("ours", 3.0), row("v64", 1.0), row("tp2", 2.0)]
    assert only(recipe_gains(rows, trials, NONE)).ratio == pytest.approx(1.5)


@pytest.mark.parametrize("rate_per_s", [None, 4.0])
def test_without_a_load_to_go_by_the_best_recipe_is_the_rival(rate_per_s: float | None) -> None:
    trials = [trial("ours"), trial("a", "recipe:curated/a.yaml"), trial("b", "recipe:curated/b_conc0.yaml")]
    point = {} if rate_per_s is None else {"concurrency": None, "request_rate_per_s": rate_per_s}
    rows = [
        make_row(config_hash=c, output_tokens_per_joule=v, **point) for c, v in (("ours", 4.0), ("a", 1.0), ("b", 2.0))
    ]
    gain = only(recipe_gains(rows, trials, NONE))
    assert gain.recipe == "curated/b_conc0.yaml"
    assert gain.ratio == pytest.approx(2.0)


@pytest.mark.parametrize(
    "apart",
    [
        {"evidence": Evidence.MODELLED},
        {"boundary": Boundary.CPU},
        {"weights": "random"},
        {"origin": "imported"},
        {"model": "m"},
        {"hardware": "b200"},
        {"workload": "w"},
    ],
    ids=str,
)
def test_what_may_not_be_ranked_together_is_not_compared(apart: dict[str, Any]) -> None:
    rows = [row("ours", 2.0), row("v64", 1.0, **apart)]
    assert recipe_gains(rows, TRIALS, NONE) == []
    assert only(recipe_gains([*rows, row("ours", 3.0, **apart)], TRIALS, NONE)).ratio == pytest.approx(3.0)


def test_the_interval_is_of_both_windows_and_unknown_where_one_is() -> None:
    def gain(ours: float | None, theirs: float | None) -> Gain:
        rows = [
            row("ours", 2.0, output_tokens_per_joule_rel_ci95=ours),
            row("v64", 1.0, output_tokens_per_joule_rel_ci95=theirs),
        ]
        return only(recipe_gains(rows, TRIALS, NONE))

    assert gain(0.03, 0.04).rel_ci95 == pytest.approx(0.05)
    assert gain(0.03, 0.04).half_width == pytest.approx(2 * math.sinh(0.05))
    assert gain(None, 0.04).rel_ci95 is None
    assert gain(0.03, None).half_width is None


def test_several_windows_at_a_load_count_by_their_geometric_mean() -> None:
    rows = [row("ours", value, output_tokens_per_joule_rel_ci95=0.02) for value in (1.0, 4.0)]
    gain = only(recipe_gains([*rows, row("v64", 1.0, output_tokens_per_joule_rel_ci95=0.0)], TRIALS, NONE))
    assert gain.ratio == pytest.approx(2.0)
    assert gain.rel_ci95 == pytest.approx(0.02 / math.sqrt(2))


def test_under_an_slo_ours_must_meet_it_and_whether_the_recipe_does_is_said() -> None:
    slo = make_slo(tpot_p99_s=0.02)
    rows = [row("ours", 9.0, tpot_p99_s=0.03), row("other", 2.0, tpot_p99_s=0.01)]
    for tpot_s, met in ((0.02, True), (0.05, False), (None, False)):
        gain = only(recipe_gains([*rows, row("v64", 1.0, tpot_p99_s=tpot_s)], TRIALS, slo))
        assert gain.ratio == pytest.approx(2.0)
        assert gain.is_slo_met is met
    assert recipe_gains([rows[0], row("v64", 1.0)], TRIALS, slo) == []


def test_a_recipe_that_streams_many_tokens_at_a_time_is_seen_where_the_slo_bounds_the_wait() -> None:
    rows = [row("ours", 2.0), row("v64", 1.0, config_json='{"engine.knobs.stream_interval":20}')]
    chunks = [
        only(recipe_gains(rows, TRIALS, slo)).chunk_tokens
        for slo in (make_slo(tpot_p99_s=1.0), make_slo(ttft_p99_s=1.0), NONE)
    ]
    assert chunks == [20, None, None]
    assert only(recipe_gains([*rows[:1], row("v64", 1.0)], TRIALS, make_slo(tpot_p99_s=1.0))).chunk_tokens is None


def test_a_config_once_known_as_a_recipe_stays_one() -> None:
    trials = [*TRIALS, trial("v64", "resumed"), trial("v64", "unknown")]
    assert only(recipe_gains([row("ours", 2.0), row("v64", 1.0)], trials, NONE)).recipe == AT_64


POSITIVE = st.floats(0.01, 1000)


@given(ours=POSITIVE, theirs=POSITIVE, factor=POSITIVE, cis=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)))
def test_a_gain_is_a_ratio(ours: float, theirs: float, factor: float, cis: tuple[float, float]) -> None:
    def gain(one: tuple[float, float], two: tuple[float, float]) -> Gain:
        values = {"ours": one, "v64": two}
        rows = [row(key, value, output_tokens_per_joule_rel_ci95=ci) for key, (value, ci) in values.items()]
        return only(recipe_gains(rows, TRIALS, NONE))

    there, back = gain((ours, cis[0]), (theirs, cis[1])), gain((theirs, cis[1]), (ours, cis[0]))
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.rel_ci95 == back.rel_ci95
    assert gain((ours * factor, cis[0]), (theirs * factor, cis[1])).ratio == pytest.approx(there.ratio)
