"""Two years of forty releases on three cards: what was planted is found, and nothing else."""

from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.errors import ConfigError
from pipeline.track.track import Asked, history_of, share, track
from pipeline.track.tracking import ChangeFound, Tracking
from tests.builders import INVALID, make_slo
from tests.track.histories import NOTHING, Builder, Planted, config, two_years

EVENTS = Planted(levels={10: 1.06, 18: 0.96}, driver=(28, 0.97), retuned=(24, 1.10))
"""A gain, a regression, a driver that costs, and a config that is better."""


def tracked(built: Builder, folder: Path, asked: Asked | None = None) -> Tracking:
    asked = asked or Asked(regression=0.03)
    return track(history_of(built.store(folder), [built.study.id], asked), make_slo(), asked)


def number(release: object) -> int:
    return int(str(getattr(release, "engine_version", None)).split(".")[1])


def holds(change: ChangeFound, release: int) -> bool:
    return number(change.last_good) < release <= number(change.first_bad)


@pytest.mark.parametrize("seed", range(3))
def test_every_planted_event_is_found_and_nothing_else(tmp_path: Path, seed: int) -> None:
    found = tracked(two_years(EVENTS, seed), tmp_path)
    (group,) = found.groups
    (overall,) = (series for series in group.series if series.load is None)
    gain, regression, driver = overall.changes
    for change, release, truth in ((gain, 10, 1.06), (regression, 18, 0.96), (driver, 28, 0.97)):
        assert holds(change, release)
        assert change.low < truth < change.high
        assert number(change.first_bad) - number(change.last_good) <= 3
    assert "driver_version" in driver.changed
    assert "driver_version" not in regression.changed
    assert {each.change for each in found.regressions if each.load is None} >= {regression}
    assert found.is_regressed
    for series in group.series:  # of single cases too, none but the planted ones
        assert all(any(holds(change, release) for release in (10, 18, 28)) for change in series.changes)
    assert group.best_before is not None
    assert group.best_after is not None
    assert group.retuned is not None
    assert group.frozen is not None
    assert "256" in group.best_after.label
    assert "256" not in group.best_before.label
    assert group.retuned.ratio / group.frozen.ratio == pytest.approx(1.10, abs=0.04)
    for ratio, truth in ((group.frozen, 1.06 * 0.96 * 0.97), (group.retuned, 1.06 * 0.96 * 0.97 * 1.1)):
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low < truth < ratio.high


def test_nothing_is_found_where_nothing_was_planted_but_as_rarely_as_stated(tmp_path: Path) -> None:
    num, alarms = 8, 0
    for seed in range(num):
        found = tracked(two_years(NOTHING, 100 + seed), tmp_path / str(seed))
        assert found.false_alarm_rate == 0.05
        alarms += any(series.changes for group in found.groups for series in group.series)
    assert alarms <= 2  # of 8 at 5 %: more in 1 of 170 tests


def test_a_drop_that_came_back_is_told_and_is_no_regression(tmp_path: Path) -> None:
    fixed = tracked(two_years(Planted(levels={14: 0.92, 26: 1 / 0.92}), 0), tmp_path)
    (overall,) = (series for series in fixed.groups[0].series if series.load is None)
    assert [round(change.ratio, 1) for change in overall.changes] == [0.9, 1.1]
    assert fixed.regressions == ()
    assert not fixed.is_regressed


def test_releases_before_the_side_that_is_named_are_left_out(tmp_path: Path) -> None:
    asked = Asked(before={"engine_version": "0.20.0"}, regression=0.03)
    found = tracked(two_years(Planted(levels={12: 0.9}), 0), tmp_path, asked)
    assert all(series.num_releases <= 20 and not series.changes for group in found.groups for series in group.series)
    assert not found.is_regressed


def test_a_config_that_no_longer_starts_is_a_regression_of_its_own(tmp_path: Path) -> None:
    built = Builder().start("1.0", {8: 1.0}).start("1.1", {8: 1.0})
    built.start("1.2", {}, trial={"status": "start_failed", "reasons": ("CUDA error",)})
    built.start("1.2", {}, config(999), trial={"status": "start_failed"})  # never ran, so nothing was lost
    found = tracked(built, tmp_path)
    assert [(each.status, each.reason, each.release.engine_version) for each in found.broken] == [
        ("start_failed", "CUDA error", "1.2")
    ]
    assert found.is_regressed
    built.start("1.3", {8: 1.0}).start("1.4", {}, trial={"status": "interrupted"})
    assert not tracked(built, tmp_path / "mended").is_regressed
    built.start("1.4", {8: 1.0}, **cast("dict[str, Any]", INVALID))
    unsure = tracked(built, tmp_path / "unsure")
    assert [(each.reason, each.release.engine_version) for each in unsure.unmeasured] == [("no_tokens", "1.4")]
    assert (unsure.broken, unsure.is_regressed) == ((), False)


@pytest.mark.parametrize("started_utc", ["2999-01-01T00:00:00+00:00", "yesterday"])
def test_a_failed_start_of_no_possible_time_is_not_the_last_one(tmp_path: Path, started_utc: str) -> None:
    built = Builder().start("1.0", {8: 1.0})
    built.start("1.1", {}, trial={"status": "start_failed", "started_utc": started_utc}).start("1.2", {8: 1.0})
    found = tracked(built, tmp_path)
    assert (found.broken, found.is_regressed) == ((), False)
    assert [why.startswith("a failed start: ") for why in found.rejected.values()] == [True]


def test_a_release_on_which_nothing_starts_is_a_regression_with_nothing_to_compare(tmp_path: Path) -> None:
    built = Builder().start("1.0", {8: 1.0})
    built.start("1.1", {}, trial={"status": "start_failed", "reasons": ("CUDA error",)})
    found = tracked(built, tmp_path)
    assert ([each.release.engine_version for each in found.broken], found.groups) == (["1.1"], ())
    assert found.is_regressed
    with pytest.raises(ConfigError, match="one release only"):
        tracked(built, tmp_path / "unasked", Asked())


def test_a_slow_decline_is_a_regression_of_what_it_adds_up_to(tmp_path: Path) -> None:
    found = tracked(two_years(Planted(levels={12: 0.94, 28: 0.94}), 0), tmp_path, Asked(regression=0.1))
    overall = [each.change for each in found.regressions if each.load is None]
    assert [each.ratio > 0.9 for each in overall] == [True, True]
    assert overall[0].remaining_ratio == pytest.approx(0.94**2, abs=0.02)
    assert [each.likeliest.engine_version for each in overall] == ["0.12.0", "0.28.0"]
    assert not tracked(
        two_years(Planted(levels={12: 0.94, 28: 0.94}), 0), tmp_path / "15", Asked(regression=0.15)
    ).regressions


def test_a_job_that_has_nothing_to_look_at_is_refused(tmp_path: Path) -> None:
    built = Builder().start("1.0", {8: 1.0}).start("1.0", {8: 1.0}, card="GPU-b")
    asked = Asked(before={"gpu_uuids": "GPU-a"}, after={"gpu_uuids": "GPU-b"}, regression=0.03)
    with pytest.raises(ConfigError, match="--fail-on-regression: no case was measured here with two releases"):
        tracked(built, tmp_path, asked)


def test_two_releases_with_a_start_each_show_what_is_beyond_assumed_noise(tmp_path: Path) -> None:
    def fell(to: float) -> list[float]:
        built = Builder().start("1.0", {8: 1.0, 64: 2.0}).start("1.1", {8: to, 64: 2.0 * to})
        return [
            change.ratio for series in tracked(built, tmp_path / str(to)).groups[0].series for change in series.changes
        ]

    assert fell(0.95) == []  # single starts may differ by that
    assert fell(0.8) == pytest.approx([0.8, 0.8, 0.8])


def test_runs_that_never_lend_one_card_twice_have_cards_in_their_noise(tmp_path: Path) -> None:
    built = Builder()
    for release in range(30):
        built.start(f"1.{release}", {8: 1.0 + 0.03 * (-1) ** (release // 2)}, card=f"GPU-{release}")
    (series,) = tracked(built, tmp_path).groups[0].series
    assert (series.is_within_cards, series.changes) == (False, ())
    assert series.noise_sd > 0.02


def test_cases_that_share_no_visit_are_not_taken_together(tmp_path: Path) -> None:
    """A suite that was replaced by another leaves no step where it was."""
    built = Builder()
    for release in range(8):
        built.start(f"1.{release}", {8: 1.0, 64: 2.0} if release < 4 else {16: 7.0})
    (group,) = tracked(built, tmp_path, Asked()).groups
    assert [(series.load, series.changes) for series in group.series] == [("8", ()), ("64", ()), ("16", ()), (None, ())]


@pytest.mark.parametrize("text", ["3", "", "%", "x%", "-3%", "0%", "100%", "nan%"])
def test_a_malformed_percentage_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"--fail={text}: no percentage above 0 and below 100; write e.g. 3%"):
        share("--fail", text)
    assert share("--fail", "2.5%") == pytest.approx(0.025)
