"""Prometheus text as engines write it, over real HTTP."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.counters import OPENVINO, TRTLLM, VLLM, CounterNames, parse, read_any_counters, read_counters
from pipeline.engine.process import free_port
from tests.engine.http_server import Answer, serving

VLLM_TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 61.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="1",model_name="m",reason="capacity"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.75
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 2.5e-01
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 0.0
vllm:num_preemptions_total{engine="1",model_name="m"} 4.0
# TYPE vllm:num_preemptions_created gauge
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7639e+09
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1.234567e+06
vllm:generation_tokens_total{engine="1",model_name="a \\"quoted} name\\" 7"} 3.0 1763900000000
# TYPE vllm:request_generation_tokens histogram
vllm:request_generation_tokens_bucket{engine="0",le="+Inf",model_name="m"} 9.0
vllm:request_generation_tokens_sum{engine="0",model_name="m"} NaN
"""
"""Names and labels of vLLM 0.24.0, two data-parallel replicas."""

TRTLLM_TEXT = """\
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 12.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 1.0
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.5
trtllm_generation_tokens_total{engine_type="trtllm",model_name="m"} 4096.0
# TYPE trtllm_time_to_first_token_seconds histogram
trtllm_time_to_first_token_seconds_bucket{engine_type="trtllm",le="0.1",model_name="m"} 3.0
trtllm_time_to_first_token_seconds_sum{engine_type="trtllm",model_name="m"} 0.5
trtllm_time_to_first_token_seconds_count{engine_type="trtllm",model_name="m"} 4.0
trtllm_request_queue_time_seconds_sum{engine_type="trtllm",model_name="m"} 0.125
trtllm_request_queue_time_seconds_count{engine_type="trtllm",model_name="m"} 4.0
"""

OPENVINO_TEXT = """\
# TYPE tpw_generation_tokens_total counter
tpw_generation_tokens_total 21
tpw_num_requests_running 2
tpw_num_requests_waiting 1
tpw_kv_cache_usage_ratio 0.125
"""


def models(owner: str) -> str:
    return json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]})


def test_replicas_are_added_up_and_their_kv_cache_is_averaged() -> None:
    with serving({"/metrics": VLLM_TEXT}) as url:
        before_ns = time.monotonic_ns()
        sample = read_counters(url, VLLM)
        after_ns = time.monotonic_ns()
    assert sample is not None
    assert before_ns <= sample.t_ns <= after_ns
    assert sample.output_tokens == 1_234_570
    assert (sample.num_running, sample.num_waiting, sample.num_preemptions) == (64.0, 2.0, 4)
    assert sample.kv_cache_use == 0.5


def test_a_counter_of_whole_requests_is_not_taken_for_one_of_tokens() -> None:
    with serving({"/prometheus/metrics": TRTLLM_TEXT}) as url:
        sample = read_counters(url, TRTLLM)
    assert sample is not None
    assert (sample.output_tokens, sample.num_preemptions) == (None, None)
    assert (sample.num_running, sample.num_waiting, sample.kv_cache_use) == (12.0, 1.0, 0.5)
    assert (sample.finished_tokens, sample.energy_j, sample.energy_t_ns) == (4096, None, None)
    assert (sample.num_ttfts, sample.ttft_sum_s, sample.num_queued, sample.queue_sum_s) == (4, 0.5, 4, 0.125)


def test_joules_are_read_where_nothing_else_is_and_on_our_clock_if_it_is_theirs() -> None:
    answers: dict[str, Answer] = {"/energy_metrics": json.dumps({"total_energy_j": 1234.5, "query_time": 77.0})}
    with serving(answers) as url:
        before_ns = time.monotonic_ns()
        elsewhere = read_counters(url, TRTLLM)
        after_ns = time.monotonic_ns()
    assert elsewhere is not None
    assert elsewhere.energy_j == 1234.5
    assert elsewhere.energy_t_ns is not None
    assert before_ns <= elsewhere.energy_t_ns <= after_ns


def test_the_time_of_the_joules_is_the_servers_own_where_it_shares_our_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000_000_000, 10_000_000_400, 100))  # asked at 10 s, answered 100 ns later
    answer = {"total_energy_j": 1, "query_time": 10.00000003}
    with serving({"/energy_metrics": json.dumps(answer)}) as url:
        monkeypatch.setattr("pipeline.engine.counters.time.monotonic_ns", lambda: next(clock))
        sample = read_counters(url, TRTLLM)
    assert sample is not None
    assert (sample.energy_j, sample.energy_t_ns) == (1.0, 10_000_000_030)


@pytest.mark.parametrize(
    "answer",
    [
        503, '{"error": "Energy monitoring is not available"}', "[]", "no", '{"total_energy_j": null, "query_time": 1}',
        '{"total_energy_j": NaN, "query_time": 1}', '{"total_energy_j": 5}', '{"total_energy_j": "5", "query_time": 1}',
        '{"total_energy_j": 5, "query_time": NaN}',
    ],
)  # fmt: skip
def test_joules_that_are_none_are_absent_and_the_rest_is_read(answer: Answer) -> None:
    with serving({"/energy_metrics": answer, "/prometheus/metrics": TRTLLM_TEXT}) as url:
        sample = read_counters(url, TRTLLM)
    assert sample is not None
    assert (sample.energy_j, sample.energy_t_ns, sample.num_running) == (None, None, 12.0)


def test_what_is_not_a_number_is_absent() -> None:
    text = VLLM_TEXT.replace("0.75", "NaN").replace("61.0", "+Inf").replace(" 1.234567e+06", " -")
    with serving({"/metrics": text}) as url:
        sample = read_counters(url, VLLM)
    assert sample is not None
    assert (sample.kv_cache_use, sample.num_running) == (None, None)
    assert sample.num_waiting == 2.0


@pytest.mark.parametrize("answer", ["", "<html>hello</html>", "[]", b"\xff\xfe", "python_info 1.0\n", 404, 500])
def test_a_server_that_says_none_of_it_is_none(answer: str | bytes | int) -> None:
    with serving({"/metrics": answer}) as url:
        assert read_counters(url, VLLM) is None
        assert read_any_counters(url) is None


def test_nobody_there_is_none() -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    assert read_counters(url, VLLM) is None
    assert read_any_counters(url) is None


@pytest.mark.parametrize(
    ("owner", "path", "text", "tokens"),
    [
        ("vllm", "/metrics", VLLM_TEXT, 1_234_570),
        ("openvino", "/metrics", OPENVINO_TEXT, 21),
        ("tensorrt_llm", "/prometheus/metrics", TRTLLM_TEXT, None),
        ("a gateway", "/metrics", VLLM_TEXT, 1_234_570),
        ("a gateway", "/metrics", OPENVINO_TEXT, 21),
    ],
)
def test_the_kind_of_server_is_told_by_its_models_or_else_by_its_metrics(
    owner: str, path: str, text: str, tokens: int | None
) -> None:
    with serving({"/v1/models": models(owner), path: text}) as url:
        sample = read_any_counters(url)
    assert sample is not None
    assert sample.output_tokens == tokens
    assert sample.num_running is not None


@pytest.mark.parametrize("listed", ["[]", '{"data": []}', '{"data": [7]}', '{"data": [{"owned_by": null}]}', "no"])
def test_an_odd_list_of_models_does_not_matter(listed: str) -> None:
    with serving({"/v1/models": listed, "/metrics": OPENVINO_TEXT}) as url:
        sample = read_any_counters(url)
    assert sample is not None
    assert sample.output_tokens == 21


def test_statistics_that_reading_empties_are_never_read() -> None:
    asked: list[str] = []
    with serving({"/v1/models": models("tensorrt_llm"), "/metrics": "[]", "/perf_metrics": "[]"}, asked) as url:
        assert read_any_counters(url) is None
    assert not {"/metrics", "/perf_metrics"} & set(asked)


LABELS = st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=8), max_size=3)
SAMPLES = st.tuples(st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True), LABELS, st.floats(allow_nan=False))


@given(st.lists(SAMPLES, max_size=6))
def test_parsing_gives_back_what_was_written(samples: list[tuple[str, dict[str, str], float]]) -> None:
    expected: dict[str, list[float]] = {}
    lines = ["# HELP x y"]
    for name, labels, value in samples:
        expected.setdefault(name, []).append(value)
        escaped = {k: v.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for k, v in labels.items()}
        shown = ",".join(f'{k}="{v}"' for k, v in escaped.items())
        lines.append(f"{name}{{{shown}}} {value!r}" if labels else f"{name} {value!r}")
    assert parse("\n".join(lines) + "\n") == expected


def test_an_engine_may_leave_names_out() -> None:
    with serving({"/m": "running 1\n"}) as url:
        sample = read_counters(url, CounterNames(path="/m", num_running="running"))
    assert sample is not None
    assert sample.num_running == 1.0
    assert (sample.output_tokens, sample.num_waiting, sample.kv_cache_use) == (None, None, None)


def test_our_own_names_are_those_that_our_server_writes() -> None:
    assert set(parse(OPENVINO_TEXT)) == {
        OPENVINO.output_tokens, OPENVINO.num_running, OPENVINO.num_waiting, OPENVINO.kv_cache_use,
    }  # fmt: skip
    assert not math.isnan(parse(OPENVINO_TEXT)["tpw_kv_cache_usage_ratio"][0])
