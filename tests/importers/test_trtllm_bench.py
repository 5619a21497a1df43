"""Reports of trtllm-bench: units, holes, and files that are something else."""

import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.importers.reported import Reported
from pipeline.importers.trtllm_bench import read_report

DATA = Path(__file__).parent / "data"
FULL, OLD = DATA / "trtllm_bench_streaming_energy.json", DATA / "trtllm_bench_1_2.json"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Reported]:
    """Reads the full report with values changed; `gone` takes one away."""

    def read(*keys: str, value: Any = None, gone: bool = False) -> Reported:
        content = json.loads(FULL.read_text())
        within = content
        for key in keys[:-1]:
            within = within[key]
        within[keys[-1]] = value
        if gone:
            del within[keys[-1]]
        path = tmp_path / "report.json"
        path.write_text(json.dumps(content))
        return read_report(path)

    return read


def test_a_full_report_is_read_in_our_units() -> None:
    report = read_report(FULL)
    assert (report.model, report.engine_version) == ("nvidia/Llama-3.3-70B-Instruct-FP8", "1.3.0rc14")
    assert (report.gpu_name, report.weights) == ("NVIDIA H100 80GB HBM3", "fp8")
    assert {key: value for key, value in report.axes.items() if value is not None} == {
        "precision.kv_cache": "fp8", "parallelism.tp": 2, "parallelism.pp": 1, "parallelism.cp": 1,
        "parallelism.ep": 1, "batching.max_batch_size": 512, "batching.max_num_tokens": 8192,
        "batching.kv_cache_fraction": 0.9,
    }  # fmt: skip
    assert (report.num_completed, report.num_in_flight, report.duration_s) == (320, 60.8, 200.0)
    assert (report.output_tokens, report.input_tokens) == (320_000, 327_680)
    assert (report.gpu_energy_j, report.output_tokens_per_joule) == (250_000.0, 1.28)
    assert report.latencies_s == pytest.approx({
        "ttft_p50_s": 0.25, "ttft_p99_s": 3.9, "tpot_p50_s": 0.037, "tpot_p99_s": 0.039, "e2e_p50_s": 38.1,
        "e2e_p99_s": 40.4,
    })  # fmt: skip
    content = json.loads(FULL.read_text())["performance"]
    assert report.output_tokens_per_s == pytest.approx(content["system_output_throughput_tok_s"])


def test_an_older_report_has_holes_and_no_zeroes() -> None:
    report = read_report(OLD)
    assert (report.gpu_name, report.gpu_energy_j, report.output_tokens_per_joule) == (None,) * 3
    streamed = [name for name in report.latencies_s if name.startswith(("ttft", "tpot"))]
    assert [report.latencies_s[name] for name in streamed] == [None] * 4
    assert (report.axes["parallelism.tp"], report.axes["parallelism.ep"]) == (8, 8)
    assert report.axes["engine.knobs.speculative_config.decoding_type"] == "Eagle3"


def test_the_run_began_before_the_report_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(FULL.read_bytes())
    os.utime(path, (1_700_000_200, 1_700_000_200))
    assert read_report(path).started == datetime.fromtimestamp(1_700_000_000, UTC)


@pytest.mark.parametrize(
    ("keys", "value", "name", "expected"),
    [
        (("energy", "total_energy_j"), math.nan, "gpu_energy_j", None),
        (("energy",), None, "gpu_energy_j", None),
        (("machine",), None, "gpu_name", None),
        (("world_info", "ep_size"), -1, "parallelism.ep", 1),
        (("world_info", "ep_size"), 2, "parallelism.ep", 2),
        (("world_info", "world_size"), 4, "parallelism.cp", 2),
        (("world_info", "max_batch_size"), None, "batching.max_batch_size", None),
        (("request_info", "avg_num_concurrent_requests"), math.inf, "num_in_flight", None),
        (("engine", "quantization"), "W8A16", "weights", ""),
    ],
)
def test_what_is_null_not_a_number_or_not_set_is_absent(
    changed: Callable[..., Reported], keys: tuple[str, ...], value: Any, name: str, expected: Any
) -> None:
    report = changed(*keys, value=value)
    assert (report.axes[name] if "." in name else getattr(report, name)) == expected


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("performance", "total_latency_ms"), 0, "performance.total_latency_ms=0: a row needs a number above 0"),
        (("performance", "total_latency_ms"), math.nan, "performance.total_latency_ms=nan: a row needs"),
        (("performance", "total_latency_ms"), 1e30, "performance.total_latency_ms is above 1e+12, which no run"),
        (("request_info", "avg_output_length"), 10**400, "request_info.avg_output_length is above 1e+12"),
        (("request_info", "num_requests"), 2e9, "request_info.num_requests is above 1e+09"),
        (("request_info", "num_requests"), None, "request_info.num_requests=None: a row needs"),
        (("request_info", "avg_output_length"), "1k", "request_info.avg_output_length='1k': is no number"),
        (("energy", "total_energy_j"), True, "energy.total_energy_j=True: is no number"),
        (("world_info", "world_size"), 3, "world_size=3: is no multiple of tp_size=2 times pp_size=1"),
        (("engine",), None, "no report of trtllm-bench: it has no engine"),
        (("performance",), [], "no report of trtllm-bench: it has no performance"),
    ],
)
def test_what_a_row_cannot_do_without_is_named(
    changed: Callable[..., Reported], keys: tuple[str, ...], value: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=r"report\.json") as refused:
        changed(*keys, value=value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_throughput_that_its_tokens_and_time_contradict_is_in_doubt(tmp_path: Path) -> None:
    report = json.loads((DATA / "trtllm_bench_1_2.json").read_text())
    report["performance"]["total_latency_ms"] /= 1000  # seconds
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    with pytest.raises(ConfigError, match="units in doubt: output tokens / total_latency_ms and system_output"):
        read_report(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b'{"engine": ', "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b"[1]", "it is a list"),
        (b"7", "it is no JSON object"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"{}", "it has no engine, world_info, request_info, performance"),
        ((DATA / "load_client.json").read_bytes(), "it looks like a load client's result"),
    ],
)
def test_a_file_that_is_something_else_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_report(path)
    assert said in str(refused.value)
    assert "--report_json" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_report(tmp_path / "none.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
SECTIONS = json.loads(FULL.read_text())


@given(st.sampled_from([(s, k) for s in SECTIONS for k in (None, *SECTIONS[s])]), JSON)
def test_whatever_stands_there_is_read_or_refused(
    tmp_path_factory: Any, where: tuple[str, str | None], value: Any
) -> None:
    section, key = where
    content = SECTIONS | ({section: value} if key is None else {section: SECTIONS[section] | {key: value}})
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    try:
        report = read_report(path)
    except ConfigError:
        return
    assert report.num_completed
    assert report.duration_s
    numbers = [report.gpu_energy_j, report.output_tokens_per_joule, report.num_in_flight, *report.latencies_s.values()]
    assert all(math.isfinite(number) for number in numbers if number is not None)
