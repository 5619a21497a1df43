"""What an engine counts itself, read from its Prometheus text.

A reading costs the engine's HTTP process some work, so it has no place in a scored window.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.engine.direct import FAILURES, as_object, get
from pipeline.engine.observed import CounterSample

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterNames:
    """Where an engine says what; None where it does not. `kv_cache_use` is a share from 0 to 1."""

    path: str
    output_tokens: str | None = None
    num_running: str | None = None
    num_waiting: str | None = None
    kv_cache_use: str | None = None
    num_preemptions: str | None = None


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
)
"""Served with `return_perf_metrics` only, and these with `enable_iter_perf_stats`. Source: tensorrt_llm/metrics/
collector.py. Its trtllm_generation_tokens_total is left out, for it grows by whole requests when they end, and /metrics
is never read, for it is a queue of statistics that reading empties."""

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
    asked_ns = time.monotonic_ns()
    try:
        text = get(url + names.path, TIMEOUT_S).decode(errors="replace")
    except FAILURES:
        return None
    t_ns = (asked_ns + time.monotonic_ns()) // 2
    values = parse(text)

    def said(name: str | None, combine: Callable[[Sequence[float]], float] = sum) -> float | None:
        found = values.get(name or "")
        combined = combine(found) if found else math.nan
        return combined if math.isfinite(combined) else None

    output_tokens, num_preemptions = said(names.output_tokens), said(names.num_preemptions)
    sample = CounterSample(
        t_ns=t_ns,
        output_tokens=None if output_tokens is None else round(output_tokens),
        num_running=said(names.num_running),
        num_waiting=said(names.num_waiting),
        kv_cache_use=said(names.kv_cache_use, lambda found: sum(found) / len(found)),
        num_preemptions=None if num_preemptions is None else round(num_preemptions),
    )
    return None if sample == CounterSample(t_ns=t_ns) else sample


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
