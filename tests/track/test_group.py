"""Gains of one group of like rows: by case, best against best, factor by factor, and what is missing."""

import dataclasses
import fnmatch
import itertools
import math
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store import Store
from pipeline.track.attribution import CONFIG
from pipeline.track.track import Asked, history_of, track
from pipeline.track.tracking import GroupFound, Tracking
from pipeline.vocabulary import Evidence
from tests.builders import INVALID, make_slo, make_study
from tests.track.histories import STUDY, Builder, config

RECORDED = Store(Path(__file__).parents[2] / "results")


def tracked(built: Builder, folder: Path, **asked: dict[str, str]) -> Tracking:
    wanted = Asked(**asked)  # type: ignore[arg-type]  # mappings, all of them
    return track(history_of(built.store(folder), [STUDY.id], wanted), make_slo(ttft_p99_s=0.1), wanted)


def group_of(built: Builder, folder: Path, **asked: dict[str, str]) -> GroupFound:
    (group,) = tracked(built, folder, **asked).groups
    return group


def test_the_same_case_is_compared_and_the_best_against_the_best(tmp_path: Path) -> None:
    built = Builder().start("1.0", {8: 1.0, 64: 2.0, 128: 9.0}).start("1.0", {64: 1.5}, config(32))
    built.start("1.1", {8: 1.1, 64: 2.2, 128: 9.0}).start("1.1", {64: 3.0}, config(256))
    group = group_of(built, tmp_path)
    assert {case.load: round(case.gain.ratio, 3) for case in group.cases} == {"8": 1.1, "64": 1.1, "128": 1.0}
    assert group.frozen is not None
    assert group.frozen.ratio == pytest.approx(1.21 ** (1 / 3))
    assert group.retuned is not None  # load 128 breaks the SLO
    assert group.retuned.ratio == pytest.approx(1.5)
    assert [(each.label, each.side, each.reason) for each in group.missing] == [
        ("max_batch_size=32", "after", "not measured"),
        ("max_batch_size=256", "before", "not measured"),
    ]
    assert group.attribution is not None
    assert [(each.factor, each.gain and round(each.gain.ratio, 3)) for each in group.attribution.factors] == [
        ("engine", 1.1),
        (CONFIG, 1.364),
    ]
    assert [each.gain for each in group.attribution.interactions] == [None]  # the new config was not measured before


factors = st.tuples(*[st.floats(0.8, 1.25)] * 5)


@settings(max_examples=25)
@given(factors=factors, absent=st.integers(0, 3))
def test_the_factors_multiply_up_to_the_total_and_what_was_not_measured_is_null(
    tmp_path_factory: pytest.TempPathFactory, factors: tuple[float, ...], absent: int
) -> None:
    driver, engine, tuned, together, noise = factors
    built = Builder()
    corners = list(itertools.product((False, True), repeat=3))
    for corner in corners:
        has_driver, has_engine, has_config = corner
        value = driver**has_driver * engine**has_engine * tuned**has_config
        value *= together ** (has_engine and has_config) * noise ** (has_driver and not has_engine)
        # Where all else is as one side has it the config of the other breaks the SLO: it is not that side's best.
        is_ruled_out = corner in {(False, False, True), (True, True, False)}
        late: dict[str, Any] = {"ttft_p99_s": 9.0} if is_ruled_out else {}
        if not absent or corner != corners[absent]:
            of = config(256 if has_config else 64)
            built.start(f"1.{has_engine:d}", {8: value}, of, driver="590" if has_driver else "580", **late)
    sides = {"before": {"engine_version": "1.0", "driver_version": "580"},
             "after": {"engine_version": "1.1", "driver_version": "590"}}  # fmt: skip
    found = group_of(built, tmp_path_factory.mktemp("corners"), **sides).attribution
    assert found is not None
    assert [each.factor for each in found.factors] == ["driver", "engine", CONFIG]
    gains = [each.gain for each in found.factors]
    missing = corners[absent] if absent else None
    assert (gains[0] is None) == (missing == (True, False, False))
    if None not in gains:
        assert math.prod(gain.ratio for gain in gains if gain) == pytest.approx(found.total.ratio)
    by_pair = {each.factors: each.gain for each in found.interactions}
    beyond = by_pair["engine", CONFIG]
    if missing in {None, (True, False, False)}:
        assert beyond is not None
        assert beyond.ratio == pytest.approx(together)
    assert len(found.corners) == 8
    assert sum(corner.output_tokens_per_joule is None for corner in found.corners) == (1 if absent else 0)


def test_unknown_cards_are_not_the_same_ones_on_another_release(tmp_path: Path) -> None:
    built = Builder()
    for version, value in (("1.0", 1.0), ("1.1", 1.4)):
        built.start(version, {8: value, 64: 2 * value}, gpu_uuids=(), host_id=None)
    (group,) = track(history_of(built.store(tmp_path), ["nightly"], Asked()), make_slo(), Asked()).groups
    assert group.frozen is not None
    assert group.frozen.is_across_cards
    assert all(case.gain.is_across_cards for case in group.cases)
    assert any("different cards, or unknown ones" in note for note in group.notes)
    assert [series.is_within_cards for series in group.series] == [False] * 3


def test_hardware_and_power_state_are_compared_when_told_and_only_then(tmp_path: Path) -> None:
    built = Builder().start("1.0", {8: 1.0})
    capped = Builder(rows=built.rows, trials=built.trials)
    capped.start("1.0", {8: 1.2}, power_limit_w=500.0)
    sides = {"before": {"power_limit_w_per_gpu": "700"}, "after": {"power_limit_w_per_gpu": "500"}}
    found = tracked(capped, tmp_path, **sides)
    (group,) = found.groups
    assert found.told == ("power_limit_w_per_gpu",)
    assert group.attribution is not None
    assert [(each.factor, each.gain and round(each.gain.ratio, 3)) for each in group.attribution.factors] == [
        ("power state", 1.2)
    ]
    assert group.series == ()


@pytest.mark.parametrize(("key", "values"), [("hardware", ("h100", "h200")), ("weights", ("checkpoint", "random"))])
def test_what_a_case_holds_may_differ_when_told(tmp_path: Path, key: str, values: tuple[str, str]) -> None:
    """The same config on other hardware, or of other weights, is another case; told, they join."""
    changes: dict[str, Any] = {"weights": values[1]}
    if key == "hardware":
        changes = {
            "hardware": make_study("model=llama-3.1-8b", "engine=vllm", "precision=fp8", "hardware=h200").hardware
        }
    other = Builder(study=dataclasses.replace(STUDY, **changes))
    other.start("1.0", {8: 1.4}, gpu_name="H200" if key == "hardware" else "NVIDIA H100", card="GPU-z")
    one = Builder().start("1.0", {8: 1.0}).start("1.1", {8: 1.1})
    built = Builder(rows=one.rows + other.rows, trials=one.trials + other.trials)
    sides = {"before": {key: values[0], "engine_version": "1.0"}, "after": {key: values[1]}}
    group = group_of(built, tmp_path, **sides)
    assert [round(case.gain.ratio, 3) for case in group.cases] == [1.4]
    assert group.cases[0].gain.is_across_cards
    assert group.attribution is None if key == "weights" else group.attribution is not None


def test_modelled_rows_have_no_interval(tmp_path: Path) -> None:
    built = (
        Builder().start("1.0", {8: 1.0}, evidence=Evidence.MODELLED).start("1.1", {8: 1.2}, evidence=Evidence.MODELLED)
    )
    group = group_of(built, tmp_path)
    assert group.frozen is not None
    assert group.frozen == dataclasses.replace(group.frozen, low=None, high=None, is_across_cards=False)
    assert group.frozen.ratio == pytest.approx(1.2)
    assert (group.series, "modelled" in " ".join(group.notes)) == ((), True)


def test_a_case_without_a_valid_window_says_why(tmp_path: Path) -> None:
    built = Builder().start("1.0", {8: 1.0, 64: 2.0}).start("1.1", {8: 1.0})
    built.start("1.1", {64: 2.0}, **cast("dict[str, Any]", INVALID))
    group = group_of(built, tmp_path)
    assert [(each.load, each.side, each.reason) for each in group.missing] == [
        ("64", "after", "no valid window: no_tokens")
    ]


@pytest.mark.parametrize(
    ("studies", "before", "after", "spread", "at_least"),
    [
        ("h100-repeat-llama-3.1-8b-*", "dcc91e", "3a4bf3", "3 sets of cards, 2 df: SD 2.9 %", 0.10),
        ("h100-repeat-llama-3.1-8b-*", "dcc91e", "3d7d84", "3 sets of cards, 2 df: SD 2.9 %", 0.10),
        ("h200-grid-llama-3.1-8b-*", "fb6279", "c49253", "4 sets of cards, 3 df: SD 0.59 %", 0.02),
    ],
)
def test_across_recorded_cards_the_interval_holds_no_difference(
    studies: str, before: str, after: str, spread: str, at_least: float
) -> None:
    """One config, one release: three H100s that differ by 2.9 %, four H200s that hardly do. Neither is a gain."""
    asked = Asked(before={"gpu_uuids": f"GPU-{before}"}, after={"gpu_uuids": f"GPU-{after}"})
    (group,) = track(history_of(RECORDED, fnmatch.filter(RECORDED.studies(), studies), asked), make_slo(), asked).groups
    assert group.cases
    for case in group.cases:
        assert case.gain.is_across_cards
        assert case.gain.low is not None
        assert case.gain.high is not None
        assert case.gain.low < 1 < case.gain.high
        assert case.gain.high - case.gain.low > 2 * at_least
    assert group.card_spread == spread
    assert any("widened by what cards differ by" in note for note in group.notes)
    assert group.attribution is None
