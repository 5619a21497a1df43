import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bill import BaselineGain, Phase, Spent, baseline_gain, bill, payback_device_s
from pipeline.record import Row, Trial
from pipeline.resume import stored_study
from pipeline.store import Store
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, TrialStatus
from tests.builders import INVALID, MODELLED, make_row, make_slo, make_study, make_trial

RESULTS = Path(__file__).parents[1] / "results"
TP2 = json.dumps({"precision.weights": "fp8", "parallelism.tp": 2})


def served(idle_power_w: float | None = 100.0) -> Study:
    """A study that starts engines on GPUs."""
    study = dataclasses.replace(make_study(*MODELLED), rig="served", weights="checkpoint")
    return dataclasses.replace(study, hardware=dataclasses.replace(study.hardware, idle_power_w=idle_power_w))


def trial(**columns: object) -> Trial:
    """A trial of two GPUs, 100 s of which 40 s and 4 kJ are its start."""
    given = {"trial_id": "a", "config_json": TP2, "evidence": Evidence.MEASURED, "total_s": 100.0, "start_s": 40.0}
    return make_trial(**{**given, "start_energy_j": 4000.0, **columns})


def row(**columns: object) -> Row:
    """A window of 20 s after 10 s, at 500 W, on two GPUs."""
    given = {"trial_id": "a", "num_gpus": 2, "warmup_s": 10.0, "window_s": 20.0, "power_w": 500.0}
    return make_row(**{**given, **columns})


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000+00:00"


def test_every_phase_has_its_time_its_energy_and_how_it_is_known() -> None:
    found = bill(served(), [trial()], [row()])
    assert found is not None
    assert (found.boundary, found.num_trials, found.num_failed, found.num_unfinished) == (Boundary.GPU, 1, 0, 0)
    assert found.phases == {
        Phase.START: Spent(time_s=40, device_s=80, measured_j=4000),
        Phase.WARMUP: Spent(time_s=10, device_s=20, estimated_j=5000),
        Phase.WINDOW: Spent(time_s=20, device_s=40, measured_j=10_000),
        Phase.IDLE: Spent(time_s=30, device_s=60, least_j=2 * 100 * 30),
    }
    assert found.total == Spent(time_s=100, device_s=200, measured_j=14_000, estimated_j=5000, least_j=6000)
    assert (found.total.energy_j, found.total.is_least) == (25_000, True)


def test_windows_under_one_load_share_its_warm_up_and_count_once() -> None:
    rows = [row(started_utc=at(10)), row(started_utc=at(33), warmup_s=33.0), row(started_utc=at(50), concurrency=4)]
    found = bill(served(), [trial()], rows[::-1])
    assert found is not None
    assert found.phases[Phase.WARMUP].time_s == 10 + (33 - 30) + 10
    assert found.phases[Phase.WINDOW].time_s == 60


def test_a_load_that_is_measured_anew_is_warmed_up_anew() -> None:
    found = bill(served(), [trial()], [row(started_utc=at(10)), row(started_utc=at(50))])
    assert found is not None
    assert found.phases[Phase.WARMUP].time_s == 20


def test_a_trial_that_failed_to_start_spent_all_on_it_at_idle_power_at_least() -> None:
    failed = trial(status=TrialStatus.OUT_OF_MEMORY, evidence=None, start_s=None, start_energy_j=None)
    found = bill(served(), [failed], [])
    assert found is not None
    assert found.num_failed == 1
    assert found.total == found.phases[Phase.START] == Spent(time_s=100, device_s=200, least_j=20_000)


def test_a_trial_that_failed_under_load_has_a_start_and_a_rest() -> None:
    found = bill(served(), [trial(status=TrialStatus.LOAD_FAILED, evidence=None)], [])
    assert found is not None
    assert [spent.time_s for spent in found.phases.values()] == [40, 0, 0, 60]
    assert found.phases[Phase.START].estimated_j == 4000  # no row says what the meter was


def test_without_an_idle_power_the_energy_is_unknown_not_nothing() -> None:
    failed = trial(status=TrialStatus.START_FAILED, evidence=None, start_s=None, start_energy_j=None)
    found = bill(served(None), [failed], [])
    assert found is not None
    assert (found.total.energy_j, found.total.unknown_s, found.total.is_least) == (None, 100, True)
    found = bill(served(None), [trial()], [row()])
    assert found is not None
    assert (found.total.energy_j, found.total.unknown_s, found.phases[Phase.IDLE].energy_j) == (19_000, 30, None)


def test_a_window_without_a_reading_costs_idle_power_at_least() -> None:
    found = bill(served(), [trial()], [row(power_w=None, **INVALID)])
    assert found is not None
    assert found.phases[Phase.WINDOW] == Spent(time_s=20, device_s=40, least_j=4000)


def test_watts_of_a_declared_model_are_estimated() -> None:
    found = bill(served(), [trial(evidence=Evidence.ESTIMATED)], [row(energy_evidence=Evidence.ESTIMATED)])
    assert found is not None
    assert (found.total.measured_j, found.total.estimated_j) == (0, 19_000)


def test_a_processor_counts_hours_of_its_machine() -> None:
    study = make_study()
    assert study.hardware.declared_idle_w is not None
    of_cpu = trial(config_json='{"precision.weights":"fp32"}')
    found = bill(study, [of_cpu], [row(num_gpus=0, boundary=Boundary.CPU)])
    assert found is not None
    assert (found.boundary, found.total.device_s, found.total.time_s) == (Boundary.CPU, 100, 100)
    assert found.phases[Phase.IDLE].least_j == 30 * study.hardware.declared_idle_w


def test_of_a_killed_trial_warm_up_and_window_are_known() -> None:
    adopted = trial(status=TrialStatus.INTERRUPTED, start_s=None, start_energy_j=None, total_s=20.0)
    for trials in ([], [adopted]):
        found = bill(served(), trials, [row()])
        assert found is not None
        assert (found.num_trials, found.num_failed, found.num_unfinished) == (1, 0, 1)
        assert [spent.time_s for spent in found.phases.values()] == [0, 10, 20, 0]


def test_a_server_that_someone_else_started_has_no_start_and_was_not_killed() -> None:
    study = served()
    study = dataclasses.replace(study, engine=dataclasses.replace(study.engine, name="attached"))
    found = bill(study, [trial(start_s=None, start_energy_j=None)], [row()])
    assert found is not None
    assert (found.num_unfinished, found.phases[Phase.START].time_s, found.phases[Phase.IDLE].time_s) == (0, 0, 70)


def test_what_is_modelled_or_imported_or_was_never_run_has_no_bill() -> None:
    assert bill(make_study(*MODELLED), [trial()], [row()]) is None
    assert bill(served(), [trial()], [row(origin="imported")]) is None
    assert bill(served(), [], []) is None


ROWS = st.builds(
    row,
    trial_id=st.sampled_from("abc"),
    started_utc=st.integers(0, 59).map(at),
    concurrency=st.sampled_from([1, 4]),
    warmup_s=st.none() | st.floats(0, 100),
    window_s=st.none() | st.floats(0, 100),
    power_w=st.none() | st.floats(0, 1000),
    energy_evidence=st.sampled_from(Evidence),
)


def trials_of(statuses: list[TrialStatus]) -> st.SearchStrategy[list[Trial]]:
    """A trial for each status, the rest of it drawn."""
    return st.tuples(
        *(
            st.builds(
                trial, trial_id=st.just(name), status=st.just(status), total_s=st.floats(0, 1000),
                start_s=st.none() | st.floats(0, 500), start_energy_j=st.none() | st.floats(0, 1e6),
                evidence=st.none() | st.sampled_from(Evidence),
            )
            for name, status in zip("abc", statuses, strict=False)
        )
    ).map(list)  # fmt: skip


@given(
    trials=st.lists(st.sampled_from(TrialStatus), min_size=1, max_size=3).flatmap(trials_of),
    rows=st.lists(ROWS, max_size=8),
    idle_w=st.none() | st.floats(1, 200),
)
def test_phases_add_up_to_their_trials_and_nothing_is_negative(
    trials: list[Trial], rows: list[Row], idle_w: float | None
) -> None:
    found = bill(served(idle_w), trials, rows)
    assert found is not None
    total = found.total
    for spent in [total, *found.phases.values()]:
        assert min(dataclasses.asdict(spent).values()) >= 0
        assert spent.device_s == pytest.approx(2 * spent.time_s)
        assert spent.unknown_s <= spent.time_s * (1 + 1e-9)
        assert spent.energy_j is None or spent.energy_j >= 0
    assert total.least_j == 0 or total.unknown_s == 0  # idle power is known or not
    ids = {t.trial_id: t for t in trials}
    alone = [(bill(served(idle_w), [ids[i]] if i in ids else [], [r for r in rows if r.trial_id == i]), ids.get(i))
             for i in {*ids, *(r.trial_id for r in rows)}]  # fmt: skip
    assert total.time_s == pytest.approx(sum(each.total.time_s for each, _ in alone if each))
    for each, of in alone:
        assert each is not None
        used_s = sum(spent.time_s for phase, spent in each.phases.items() if phase is not Phase.IDLE)
        assert each.total.time_s == pytest.approx(max(used_s, of.total_s if of else 0.0))


def test_the_bill_of_a_recorded_study_is_that_of_its_trials() -> None:
    store, name = Store(RESULTS), "h100-llama-3.1-8b"
    trials, rows = store.trials(name), store.rows(name)
    found = bill(stored_study(store, name), trials, rows)
    assert found is not None
    assert found.total.time_s == pytest.approx(sum(t.total_s for t in trials))
    assert found.phases[Phase.START].measured_j == pytest.approx(sum(t.start_energy_j or 0 for t in trials))
    assert found.phases[Phase.WINDOW].measured_j == pytest.approx(sum(r.gpu_energy_j or 0 for r in rows))
    assert found.total.unknown_s == 0


SLO = make_slo(tpot_p99_s=0.02)


def base_and_best(best: float, **columns: object) -> tuple[list[Trial], list[Row]]:
    """A baseline of 2 tokens/J at 800 W on two GPUs, and another config."""
    trials = [trial(number=number, trial_id=name, config_hash=name) for number, name in ((1, "best"), (0, "base"))]
    rows = [row(trial_id="base", config_hash="base", output_tokens_per_joule=2.0, power_w=800.0)]
    rows += [row(trial_id="best", config_hash="best", output_tokens_per_joule=best, **columns)]
    return trials, rows


def test_the_gain_is_that_of_the_best_over_trial_0_at_the_slo() -> None:
    trials, rows = base_and_best(2.5)
    gain = baseline_gain(rows, trials, SLO)
    assert gain == BaselineGain(ratio=1.25, baseline_power_w=400)
    assert isinstance(gain, BaselineGain)
    assert gain.saved_w == pytest.approx(80)
    assert payback_device_s(8e6, gain) == pytest.approx(100_000)


@pytest.mark.parametrize(
    "columns", [{}, {"output_tokens_per_joule": 9.0, "tpot_p99_s": 1.0}, {"evidence": Evidence.ESTIMATED},
                {"weights": "random"}, {"boundary": Boundary.CPU}, {"origin": "imported"}],
)  # fmt: skip
def test_a_config_that_is_worse_too_slow_or_of_another_kind_is_no_gain(columns: dict[str, object]) -> None:
    trials, rows = base_and_best(1.5)
    rows[1] = dataclasses.replace(rows[1], **({"output_tokens_per_joule": 9.0} if columns else {}) | columns)  # type: ignore[arg-type]
    gain = baseline_gain(rows, trials, SLO)
    assert isinstance(gain, BaselineGain)
    assert gain.ratio == 1
    assert payback_device_s(1e6, gain) is None


def test_why_a_gain_cannot_be_told_is_said() -> None:
    trials, rows = base_and_best(2.5)
    assert baseline_gain(rows[1:], trials, SLO) == "no measured row of the baseline meets slo=test"
    assert baseline_gain([dataclasses.replace(rows[0], tpot_p99_s=1.0), rows[1]], trials, SLO) == (
        "no measured row of the baseline meets slo=test"
    )
    estimated = [dataclasses.replace(each, evidence=Evidence.ESTIMATED) for each in rows]
    assert baseline_gain(estimated, trials, SLO) == baseline_gain(rows, [], SLO) == "no row is measured"


@given(st.floats(1.0001, 50), st.floats(1, 1000), st.floats(1, 1e9))
def test_the_saving_over_the_payback_is_the_search(ratio: float, power_w: float, energy_j: float) -> None:
    gain = BaselineGain(ratio=ratio, baseline_power_w=power_w)
    repaid_s = payback_device_s(energy_j, gain)
    assert repaid_s is not None
    assert (power_w - power_w / ratio) * repaid_s == pytest.approx(energy_j)
