"""Results of the benchmark_serving family: who wrote them, in which units, and what they lack."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.importers import benchmark_serving
from pipeline.importers.foreign_file import read_file
from pipeline.importers.reported import Reported
from tests.importers.samples import DATA, GONE, changed

GENUINE = DATA / "inferencex_benchmark_serving.json"


def result(path: Path) -> Reported:
    return benchmark_serving.read(read_file(path)).reported[0]


def test_a_result_is_read_in_our_units() -> None:
    found = result(GENUINE)
    assert (found.tool, found.model, found.engine) == ("inferencex-benchmark-serving", "tiny", None)
    assert (found.concurrency, found.request_rate_per_s, found.num_completed, found.num_failed) == (8, None, 80, 0)
    assert (found.output_tokens, found.input_tokens, found.duration_s) == (3384, 4529, 4.072322171999986)
    assert found.started.isoformat(timespec="seconds") == "2026-11-22T21:16:35+00:00"
    assert found.latencies_s["ttft_p99_s"] == pytest.approx(0.25332, rel=1e-4)
    assert found.latencies_s["tpot_p50_s"] == pytest.approx(0.0069386, rel=1e-4)
    assert (found.gpu_energy_j, found.power_w) == (None, None)


def test_vllms_client_says_the_same_with_and_without_its_requests(tmp_path: Path) -> None:
    detailed = DATA / "vllm_bench_serve_detailed.json"
    written, content = result(detailed), json.loads(detailed.read_text())
    assert (written.tool, written.model, written.concurrency) == ("vllm-bench-serve", "openai/gpt-oss-20b", 4)
    assert written.started.isoformat(timespec="seconds") == "2026-11-29T16:43:14+00:00"
    assert written.latencies_s["e2e_p99_s"] is not None  # which was not asked for: from the requests
    shorter = changed(detailed, tmp_path, {key: GONE for key in content if key.endswith(("ttft_ms", "tpot_ms"))})
    assert result(shorter).latencies_s == pytest.approx(written.latencies_s, rel=1e-4)
    bare = result(DATA / "vllm_bench_serve.json")
    assert bare.latencies_s["tpot_p50_s"] == pytest.approx(0.0045687, rel=1e-4)
    assert bare.latencies_s["e2e_p50_s"] is None


def test_vllms_client_at_a_rate_is_an_open_loop() -> None:
    found = result(DATA / "vllm_bench_serve_rate.json")
    assert (found.concurrency, found.request_rate_per_s, found.num_failed) == (None, 20.0, 0)
    assert found.latencies_s["e2e_p99_s"] is not None
    assert found.has_parallelism is False  # --metadata is free text: nothing of it counts


@pytest.mark.parametrize(
    ("change", "tool"),
    [
        ({"user_throughput": 90.0}, "trtllm-benchmark-serving"),
        ({"failed": 0, "max_output_tokens_per_s": 900.0}, "vllm-bench-serve"),
        ({"endpoint_type": "openai-chat", "label": None}, "vllm-bench-serve"),
        ({}, "benchmark-serving"),
    ],
)
def test_the_tool_is_told_by_the_keys_that_only_it_writes(tmp_path: Path, change: dict[str, Any], tool: str) -> None:
    assert result(changed(GENUINE, tmp_path, change | {"benchmark_start_time_unix": GONE})).tool == tool


def test_the_energy_of_trtllm_serve_counts(tmp_path: Path) -> None:
    energy = {"total_energy_j": 4000.0, "output_tps_per_w": 0.846, "total_gpu_power_w": 980.0}
    change = {"user_throughput": 90.0, "energy": energy, "benchmark_start_time_unix": GONE}
    found = result(changed(GENUINE, tmp_path, change))
    assert (found.engine, found.gpu_energy_j, found.output_tokens_per_joule) == ("trtllm", 4000.0, 0.846)
    assert found.is_one_nodes_energy
    assert (
        result(changed(GENUINE, tmp_path, change | {"energy": energy | {"total_energy_j": 0.0}})).gpu_energy_j is None
    )


def test_a_statistic_of_nothing_is_absent_and_not_0(tmp_path: Path) -> None:
    found = result(changed(GENUINE, tmp_path, {"median_ttft_ms": 0.0, "p99_tpot_ms": GONE, "p99_e2el_ms": None}))
    absent = ("ttft_p50_s", "tpot_p99_s", "e2e_p99_s")
    assert [found.latencies_s[name] for name in absent] == [None] * 3


def test_percentiles_that_were_not_asked_for_come_from_the_requests(tmp_path: Path) -> None:
    # Three requests that succeeded and one that failed, which the tools keep as zeroes.
    detailed = {
        "ttfts": [0.1, 0.2, 0.3, 0.0], "itls": [[0.01, 0.01], [0.02, 0.02], [0.03, 0.03], []],
        "output_lens": [3, 3, 3, 0], "median_tpot_ms": GONE, "p99_tpot_ms": GONE, "median_e2el_ms": GONE,
        "p99_e2el_ms": GONE,
    }  # fmt: skip
    found = result(changed(GENUINE, tmp_path, detailed))
    assert found.latencies_s["tpot_p50_s"] == pytest.approx(0.02)
    assert found.latencies_s["e2e_p50_s"] == pytest.approx(0.24)
    assert found.latencies_s["ttft_p50_s"] == pytest.approx(0.11616, rel=1e-4)  # as written
    assert found.digest == result(GENUINE).digest  # the same run, saved with less


@pytest.mark.parametrize(
    ("change", "load"),
    [
        ({"request_rate": 4.0, "max_concurrency": None}, (None, 4.0)),
        ({"request_rate": 4.0}, (8, None)),
        ({"max_concurrency": None}, (None, None)),
    ],
)
def test_a_capped_rate_is_a_closed_loop(tmp_path: Path, change: dict[str, Any], load: tuple[Any, Any]) -> None:
    found = result(changed(GENUINE, tmp_path, change))
    assert (found.concurrency, found.request_rate_per_s) == load


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"duration": 4072.3}, "units in doubt: total_output_tokens / duration and output_throughput"),
        ({"median_ttft_ms": 116163.6}, "units in doubt: the median TTFT"),
        ({"completed": 0}, "completed=0: a row needs a number above 0"),
        ({"total_output_tokens": "many"}, "total_output_tokens='many': is no number"),
        ({"output_throughput": GONE}, "is no result of benchmark_serving: it has no output_throughput"),
        ({"ttfts": [0.1], "itls": [[0.1], [0.2]], "output_lens": [2]}, "are not lists of numbers of one length"),
        ({"completed": 1e-9}, "completed=1e-09: is a count"),
        ({"median_tpot_ms": 6.9, "num_prompts": 80, "failed": -1}, "num_failed=-1: is below 0"),
        ({"ramp_up_strategy": "linear"}, "ramp_up_strategy=linear: its load changed"),
        ({"ttfts": [10**400], "itls": [[0.1]], "output_lens": [2]}, "are not lists of numbers of one length"),
        ({"ttfts": ["x"], "itls": [[0.1]], "output_lens": [2]}, "are not lists of numbers of one length"),
    ],
)
def test_a_result_in_doubt_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        result(changed(GENUINE, tmp_path, change))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"benchmark_start_time_unix": 1e12, "date": "00010101-000000"},
        {"benchmark_start_time_unix": -1, "date": "today"},
        {"benchmark_start_time_unix": None, "date": None},
    ],
)
def test_a_clock_that_cannot_be_leaves_the_files_time(tmp_path: Path, change: dict[str, Any]) -> None:
    found = result(changed(GENUINE, tmp_path, change))
    assert "time: the file's, less the run" in found.notes
    assert found.started.year >= 2026


def test_bursts_are_no_poisson_process_and_it_says_so(tmp_path: Path) -> None:
    at_a_rate = {"request_rate": 4.0, "max_concurrency": None}
    assert not [note for note in result(changed(GENUINE, tmp_path, at_a_rate)).notes if "burst" in note]
    in_bursts = result(changed(GENUINE, tmp_path, at_a_rate | {"burstiness": 0.5}))
    assert "burstiness 0.5: taken for a Poisson process" in in_bursts.notes


def test_runs_that_were_appended_to_one_file_are_kept_but_for_the_bad_ones(tmp_path: Path) -> None:
    whole = json.loads(GENUINE.read_text())
    runs = [whole, whole | {"duration": None}, 7, whole | {"max_concurrency": 16, "date": "20261123-000000"}]
    path = tmp_path / "appended.json"
    path.write_text("\n".join(map(json.dumps, runs)))
    read = benchmark_serving.read(read_file(path))
    assert [each.concurrency for each in read.reported] == [8, 16]
    assert read.reported[0].digest == result(GENUINE).digest
    assert [text.split(": ")[0] for text in read.rejected] == [f"{path}[1]", f"{path}[2]"]


def test_failed_requests_are_what_is_missing(tmp_path: Path) -> None:
    assert result(changed(GENUINE, tmp_path, {"num_prompts": 100})).num_failed == 20
    assert result(changed(GENUINE, tmp_path, {"failed": 3})).num_failed == 3
    assert json.loads(GENUINE.read_text())["num_prompts"] == 80
