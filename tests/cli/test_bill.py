import dataclasses
import io
import math
from pathlib import Path

from rich.console import Console

from pipeline.bill import BaselineGain, Bill, Phase, Spent
from pipeline.cli.bill import bill_lines, payback_line
from pipeline.cli.show import print_results
from pipeline.store import Store
from pipeline.vocabulary import Boundary
from tests.builders import MODELLED, make_row, make_slo, make_study, make_trial
from tests.cli.command import tpw
from tests.test_bill import RESULTS

KNOWN = Spent(time_s=1800, device_s=3600, measured_j=1.8e6)
SLO = make_slo(tpot_p99_s=0.02)
AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"


def a_bill(start: Spent = KNOWN, window: Spent = KNOWN, **columns: int) -> Bill:
    phases = {Phase.START: start, Phase.WARMUP: Spent(), Phase.WINDOW: window, Phase.IDLE: Spent()}
    counts = {"num_trials": 3, "num_failed": 0, "num_unfinished": 0, **columns}
    return Bill(boundary=Boundary.GPU, phases=phases, **counts)


def test_a_bill_of_readings_needs_no_mark() -> None:
    assert bill_lines(a_bill()) == [
        "bill: 3 trials: 2 GPU-h, 1 kWh within boundary=gpu",
        "  start 1 h 0.5 kWh; warm-up 0 h 0 kWh; window 1 h 0.5 kWh; idle 0 h 0 kWh",
    ]


def test_what_is_estimated_or_a_lower_bound_is_marked_and_explained() -> None:
    first, phases, note = bill_lines(
        a_bill(
            start=dataclasses.replace(KNOWN, least_j=1.8e6),
            window=dataclasses.replace(KNOWN, estimated_j=1.8e6),
            num_failed=1,
            num_unfinished=1,
        )
    )
    assert first == f"bill: 3 trials, 1 failed, 1 unfinished: 2 GPU-h, {AT_LEAST}2 kWh within boundary=gpu"
    assert phases.startswith(f"  start 1 h {AT_LEAST}1 kWh; ")
    assert "window 1 h ~1 kWh" in phases
    assert note.startswith("  ~ estimated: ")
    assert f"{AT_LEAST} at least" in note
    assert note.endswith("of an unfinished trial only warm-up and windows are known")


def test_an_unknown_energy_is_a_dash() -> None:
    first, phases, note = bill_lines(a_bill(*[Spent(time_s=60, device_s=60, unknown_s=60)] * 2, num_trials=1))
    assert first == "bill: 1 trial: 0.0333 GPU-h, - kWh within boundary=gpu"
    assert phases.startswith("  start 0.0167 h - kWh; ")
    assert note == "  of 120 s no energy is known, not even idle power"


def test_the_payback_is_the_time_of_one_gpu_and_the_fleet_of_a_day() -> None:
    line = payback_line(a_bill(), BaselineGain(ratio=1.25, baseline_power_w=50.0), SLO)
    assert line.startswith(
        "payback: +25.0 % tokens/J over the baseline at slo=test, which draws 50 W per GPU: 100 GPU-h of serving repay "
        "the search, a fleet of 5 GPUs within a day"
    )
    assert math.ceil(100 / 24) == 5
    assert "a fleet of 1 GPU within" in payback_line(a_bill(), BaselineGain(ratio=2, baseline_power_w=500.0), SLO)


def test_why_there_is_no_payback_is_said() -> None:
    assert payback_line(a_bill(), "no row is measured", SLO) == "payback: not told, no row is measured"
    gain = BaselineGain(ratio=1.0, baseline_power_w=500.0)
    assert payback_line(a_bill(), gain, SLO).startswith("payback: none, no config was measured to do better")
    unknown = a_bill(*[Spent(time_s=60, device_s=60, unknown_s=60)] * 2)
    assert payback_line(unknown, BaselineGain(ratio=2, baseline_power_w=1.0), SLO).endswith("the search is unknown")


def test_show_ends_with_the_bill_of_a_recorded_study() -> None:
    said = tpw("show", "h100-llama-3.1-8b", "--results", RESULTS)
    bill, phases, note, payback, _ = said.out.splitlines()[-5:]
    assert bill == f"bill: 5 trials: 0.304 GPU-h, {AT_LEAST}0.0893 kWh within boundary=gpu"
    assert phases.startswith(
        "  start 0.161 h 0.0174 kWh; warm-up 0.0717 h ~0.037 kWh; window 0.0667 h 0.0346 kWh; idle"
    )
    assert note.startswith("  ~ estimated")
    assert payback.startswith("payback: +2.7 % tokens/J over the baseline at slo=none, which draws 693 W per GPU: ")


def test_one_config_has_a_bill_and_nothing_to_repay_it() -> None:
    lines = tpw("show", "h200-qwen3-32b", "--results", RESULTS).out.splitlines()
    assert [line for line in lines if line.startswith("bill: ")]
    assert not [line for line in lines if line.startswith("payback: ")]


def test_what_is_modelled_has_no_bill(tmp_path: Path) -> None:
    store, study = Store(tmp_path), make_study(*MODELLED)
    store.append(make_row(study_id=study.id))
    store.append(make_trial(study_id=study.id))
    stream = io.StringIO()
    print_results(Console(file=stream, width=200), study, store)
    assert "bill: " not in stream.getvalue()
    assert "payback: " not in stream.getvalue()
