"""What an engine counts itself, read from its Prometheus text, and its joules where it answers for them.

A reading costs the engine's HTTP process some work, so it has no place in a scored window.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeGuard

from pipeline.engine.direct import FAILURES, as_object, get
from pipeline.engine.observed import CounterSample

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterNames:
    """Where an engine says what; None where it does not. `kv_cache_use` is a share from 0 to 1.

    `ttft` and `queue` are histograms of seconds over finished requests, named without `_sum` and `_count`.
    """

    path: str
    output_tokens: str | None = None
    num_running: str | None = None
    num_waiting: str | None = None
    kv_cache_use: str | None = None
    num_preemptions: str | None = None
    finished_tokens: str | None = None
    ttft: str | None = None
    queue: str | None = None
    energy_path: str | None = None


VLLM = CounterNames(
    path="/metrics",
    output_tokens="vllm:generation_tokens_total",
    num_running="vllm:num_requests_running",
    num_waiting="vllm:num_requests_waiting",
    kv_cache_use="vllm:kv_cache_usage_perc",
    num_preemptions="vllm:num_preemptions_total",
)
"""Source: v1/metrics/loggers.py of vLLM 0.24.0, plus the `_total` that prometheus_client adds to counters."""

TRTLLM = CounterNames(
    path="/prometheus/metrics",
    num_running="trtllm_num_requests_running",
    num_waiting="trtllm_num_requests_waiting",
    kv_cache_use="trtllm_kv_cache_utilization",
    finished_tokens="trtllm_generation_tokens_total",
    ttft="trtllm_time_to_first_token_seconds",
    queue="trtllm_request_queue_time_seconds",
    energy_path="/energy_metrics",
)
"""The Prometheus text is served with `return_perf_metrics` only; its gauges move with `enable_iter_perf_stats` only, as
often as a request ends. Nothing in it counts tokens as they are made: trtllm_generation_tokens_total grows by whole
requests when they end (tensorrt_llm/metrics/collector.py), and the statistics of an iteration count requests and prompt
tokens (tensorrt_llm/executor, IterationStats). So `output_tokens` stays unknown.

/metrics and /perf_metrics are never read: reading empties both, before nvbug 6102381 was mended a reader of /metrics
took its share of the iterations from the gauges, and the text above holds the same as sums that stay. Source:
tensorrt_llm/serve/openai_server.py. The joules are there with `enable_energy_metrics` (PR 11855, early 2026)."""

OPENVINO = CounterNames(
    path="/metrics",
    output_tokens="tpw_generation_tokens_total",
    num_running="tpw_num_requests_running",
    num_waiting="tpw_num_requests_waiting",
    kv_cache_use="tpw_kv_cache_usage_ratio",
)
"""Our own server, embedded/server.py."""

OWNERS = {"vllm": VLLM, "openvino": OPENVINO, "tensorrt_llm": TRTLLM}
"""`owned_by` in the list of models -> what that engine's counters are called."""

SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(?:[^"}]|"(?:\\.|[^"\\])*")*\})?[ \t]+(\S+)', re.MULTILINE)
"""A line of the text format, version 0.0.4: name, labels, value (then perhaps a time)."""


def read_counters(url: str, names: CounterNames) -> CounterSample | None:
    """Read an engine's counters once; None if it does not answer, or says none of them.

    Counts are summed over label sets (one per data-parallel replica), the share of the KV cache is their mean.
    """
    energy_j, energy_t_ns = _read_energy(url + names.energy_path) if names.energy_path else (None, None)
    asked_ns = time.monotonic_ns()
    try:
        text = get(url + names.path, TIMEOUT_S).decode(errors="replace")
    except FAILURES:
        text = ""
    t_ns = (asked_ns + time.monotonic_ns()) // 2
    values = parse(text)

    def said(name: str | None, suffix: str = "", combine: Callable[[Sequence[float]], float] = sum) -> float | None:
        found = values.get(name + suffix) if name else None
        combined = combine(found) if found else math.nan
        return combined if math.isfinite(combined) else None

    def counted(name: str | None, suffix: str = "") -> int | None:
        count = said(name, suffix)
        return None if count is None else round(count)

    sample = CounterSample(
        t_ns=t_ns,
        output_tokens=counted(names.output_tokens),
        num_running=said(names.num_running),
        num_waiting=said(names.num_waiting),
        kv_cache_use=said(names.kv_cache_use, combine=fmean),
        num_preemptions=counted(names.num_preemptions),
        energy_j=energy_j,
        energy_t_ns=energy_t_ns,
        finished_tokens=counted(names.finished_tokens),
        num_ttfts=counted(names.ttft, "_count"),
        ttft_sum_s=said(names.ttft, "_sum"),
        num_queued=counted(names.queue, "_count"),
        queue_sum_s=said(names.queue, "_sum"),
    )
    return None if sample == CounterSample(t_ns=t_ns) else sample


def _read_energy(url: str) -> tuple[float, int] | tuple[None, None]:
    """TensorRT-LLM's joules, and when they were read on our clock; nothing where it does not answer with both.

    Its `query_time` is Python's perf_counter, on Linux the same clock as our monotonic one. Where it lies outside of
    our asking, that machine is another one, and the middle of our asking counts.
    """
    asked_ns = time.monotonic_ns()
    try:
        answer = as_object(get(url, TIMEOUT_S))
    except FAILURES:
        return None, None
    answered_ns = time.monotonic_ns()
    energy_j, query_s = answer.get("total_energy_j"), answer.get("query_time")
    if not _is_number(energy_j) or not _is_number(query_s):
        return None, None
    is_ours = asked_ns <= query_s * 1e9 <= answered_ns
    return energy_j, round(query_s * 1e9) if is_ours else (asked_ns + answered_ns) // 2


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int) and math.isfinite(value)


def read_any_counters(url: str) -> CounterSample | None:
    """Read the counters of a server of unknown kind; None if it has none that we know.

    Its list of models tells the kind. One that names another owner, as gateways do, is asked for each in turn.
    """
    for names in _candidates(url):
        sample = read_counters(url, names)
        if sample is not None:
            return sample
    return None


def _candidates(url: str) -> Iterable[CounterNames]:
    try:
        models = as_object(get(f"{url}/v1/models", TIMEOUT_S)).get("data")
    except FAILURES:
        return ()
    first = models[0] if isinstance(models, list) and models else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    return (OWNERS[owner],) if isinstance(owner, str) and owner in OWNERS else reversed(OWNERS.values())


def parse(text: str) -> dict[str, list[float]]:
    """Values by name, one per label set; lines that are no samples are passed over."""
    values: dict[str, list[float]] = {}
    for name, value in SAMPLE.findall(text):
        try:
            values.setdefault(name, []).append(float(value))
        except ValueError:
            continue
    return values
