"""Exports of AIPerf: three faces of one run, units that are read, and runs that do not count."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.importers import aiperf
from pipeline.importers.foreign_file import read_file
from pipeline.importers.reported import Reported
from tests.importers.samples import DATA, GONE, changed

JSON, CSV = DATA / "aiperf_profile_export_aiperf.json", DATA / "aiperf_profile_export_aiperf.csv"
JSONL = DATA / "aiperf_profile_export.jsonl"


def run(path: Path) -> Reported:
    return aiperf.read(read_file(path)).reported[0]


def test_a_run_is_read_in_our_units() -> None:
    found = run(JSON)
    assert (found.tool_version, found.model, found.concurrency) == ("0.13.0", "tiny", 32)
    assert (found.output_tokens, found.input_tokens, found.num_completed) == (51_200, 2_560, 256)
    assert found.duration_s == pytest.approx(4.069239)
    assert found.num_in_flight == pytest.approx(19.215, rel=1e-4)
    assert found.latencies_s["tpot_p50_s"] is None  # 0 there
    assert {name: value for name, value in found.latencies_s.items() if value} == pytest.approx({
        "ttft_p50_s": 0.2022448, "ttft_p99_s": 0.49236, "tpot_p99_s": 0.0022, "e2e_p50_s": 0.2590486,
        "e2e_p99_s": 0.71999,
    }, rel=2e-3)  # fmt: skip
    assert [note for note in found.notes if note.startswith("inter_token_latency p50: 0")]
    assert (found.gpu_energy_j, found.num_gpus_metered, found.gpu_name) == (None, None, None)


def test_the_csv_is_the_same_run_to_its_two_digits() -> None:
    found, full = run(CSV), run(JSON)
    assert found.digest == full.digest
    assert (found.model, found.concurrency) == ("", None)
    assert found.output_tokens == full.output_tokens
    assert found.latencies_s["ttft_p99_s"] == pytest.approx(full.latencies_s["ttft_p99_s"], abs=1e-5)


def test_records_of_requests_count_without_the_warm_up() -> None:
    found = run(JSONL)
    records = [json.loads(line) for line in JSONL.read_text().splitlines()]
    counted = [each for each in records if each["metadata"]["benchmark_phase"] == "profiling"]
    assert (len(records), found.num_completed) == (12, len(counted))
    assert found.output_tokens == sum(each["metrics"]["output_sequence_length"]["value"] for each in counted)
    first = min(each["metadata"]["request_start_ns"] for each in counted)
    last = max(each["metadata"]["request_end_ns"] for each in counted)
    assert found.duration_s == pytest.approx((last - first) * 1e-9)
    assert found.started.timestamp() == pytest.approx(first * 1e-9, abs=1e-5)


def test_a_request_that_failed_is_counted_and_nothing_else(tmp_path: Path) -> None:
    lines = JSONL.read_text().splitlines()
    last = json.loads(lines[-1]) | {"error": {"code": 503}}
    path = tmp_path / "profile_export.jsonl"
    path.write_text("\n".join([*lines[:-1], json.dumps(last)]))
    assert (run(path).num_failed, run(path).num_completed) == (1, (run(JSONL).num_completed or 0) - 1)


GPU = {"gpu_name": "NVIDIA H100 80GB HBM3", "gpu_uuid": "GPU-1"}


def test_energy_is_of_every_gpu_that_its_collectors_see(tmp_path: Path) -> None:
    gpus = {"gpu_0": GPU, "gpu_1": GPU | {"gpu_uuid": "GPU-2"}}
    change = {
        "telemetry_data.endpoints": {"node:9401": {"gpus": gpus}},
        "nvidia_total_gpu_energy": {"unit": "J", "avg": 5120.0},
        "nvidia_output_tokens_per_joule": {"unit": "tokens/J", "avg": 10.0},
    }
    found = run(changed(JSON, tmp_path, change))
    assert (found.gpu_energy_j, found.output_tokens_per_joule) == (5120.0, 10.0)
    assert (found.gpu_name, found.num_gpus_metered) == ("NVIDIA H100 80GB HBM3", 2)
    in_mj = run(changed(JSON, tmp_path, change | {"nvidia_total_gpu_energy": {"unit": "MJ", "avg": 0.00512}}))
    assert in_mj.gpu_energy_j == pytest.approx(5120.0)
    for vendor in ("amd_", ""):  # none in the first versions that had energy
        renamed = {key.replace("nvidia_", vendor): value for key, value in change.items()}
        assert run(changed(JSON, tmp_path, renamed)).gpu_energy_j == 5120.0


def test_an_earlier_version_gives_means_and_rates(tmp_path: Path) -> None:
    older = {
        "benchmark_duration": GONE, "total_osl": GONE, "total_isl": GONE, "aiperf_version": GONE,
        "input_config": {"endpoint": {"model_names": ["tiny"]}, "loadgen": {"concurrency": 32}},
    }  # fmt: skip
    found, full = run(changed(JSON, tmp_path, older)), run(JSON)
    assert (found.model, found.concurrency, found.tool_version) == ("tiny", 32, None)
    assert found.output_tokens == full.output_tokens
    assert found.duration_s == pytest.approx(256 / 62.45568, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time_to_first_token.unit": "furlong"}, "units in doubt: time_to_first_token is in 'furlong'; known: ns"),
        ({"time_to_first_token.p50": -1.0}, "ttft_p50_s=-0.001: is below 0"),
        ({"time_to_first_token.unit": "sec"}, "units in doubt: the median TTFT of 202.2"),
        ({"benchmark_duration.unit": "ms"}, "units in doubt: total_osl / benchmark_duration"),
        ({"total_osl.unit": None}, "units in doubt: total_osl is in None"),
        ({"was_cancelled": True}, "the run was cut short"),
        ({"is_complete": False}, "the run was cut short"),
        ({"request_count": GONE}, "request_count.avg=None: a row needs"),
        ({"total_osl": GONE, "output_sequence_length": GONE}, "it is of no tokens"),
        ({"request_count.avg": "256"}, "request_count.avg='256': is no number"),
    ],
)
def test_a_run_in_doubt_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run(changed(JSON, tmp_path, change))
    assert said in str(refused.value)


def test_several_phases_have_no_single_load(tmp_path: Path) -> None:
    phases = json.loads(JSON.read_text())["input_config"]["phases"]
    found = run(changed(JSON, tmp_path, {"input_config.phases": [*phases, phases[-1]]}))
    assert (found.concurrency, found.request_rate_per_s) == (None, None)
    assert "load: of 2 phases, no single one" in found.notes


def test_arrivals_at_even_times_are_no_poisson_process_and_it_says_so(tmp_path: Path) -> None:
    found = run(changed(JSON, tmp_path, {"input_config.phases": [{"type": "constant", "rate": 4.0}]}))
    assert (found.concurrency, found.request_rate_per_s) == (None, 4.0)
    assert "load: arrivals of type constant, taken for a Poisson process" in found.notes
