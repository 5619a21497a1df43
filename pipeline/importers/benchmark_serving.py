"""Results of the `benchmark_serving` family: `vllm bench serve --save-result`, TensorRT-LLM's and InferenceX's copies.

Keys: vllm/benchmarks/serve.py, tensorrt_llm/serve/scripts/benchmark_serving.py, utils/bench_serving of InferenceX at
843c6254. They are clients: they say what was sent and what came back, not what served it on what; the user does.
Milliseconds are in the names. A statistic of nothing is written as 0. TensorRT-LLM's asks trtllm-serve for the energy
of its GPUs. `--save-detailed` adds a list per request, from which percentiles that were not asked for are computed.
"""

from collections.abc import Set
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.importers.foreign_file import Document, ForeignFile, digest
from pipeline.importers.reported import Read, Reported, agrees

VLLM, TRTLLM, INFERENCEX, OTHER = (
    "vllm-bench-serve", "trtllm-benchmark-serving", "inferencex-benchmark-serving", "benchmark-serving",
)  # fmt: skip

REQUIRED = {"duration", "completed", "total_input_tokens", "total_output_tokens", "output_throughput"}

FIGURES = ("duration", "completed", "total_input_tokens", "total_output_tokens", "mean_ttft_ms", "mean_tpot_ms", "date")
"""What tells one run from another, detailed or not."""

MAX_UNIX_S = 2**32
"""Seconds since 1970, in the year 2106."""

STATISTICS = (("p50", "median", 50), ("p99", "p99", 99))


def recognises(file: ForeignFile) -> bool:
    """Whether a file is such a result."""
    return any(isinstance(each, dict) and each.keys() >= REQUIRED for _, each in _entries(file))


def dialect(content: dict[str, Any]) -> str:
    """Which member of the family wrote it, by keys that only it writes."""
    if "benchmark_start_time_unix" in content:
        return INFERENCEX
    if "user_throughput" in content:
        return TRTLLM
    if {"endpoint_type", "max_output_tokens_per_s", "failed"} & content.keys():
        return VLLM
    return OTHER


def read(file: ForeignFile) -> Read:
    """Read a result, or the results of several runs that --append-result wrote to one file; the good ones are kept.

    Raises:
        ConfigError: If there is none, or the only one lacks what a row needs.
    """
    if not recognises(file):
        keys = file.content.keys() if isinstance(file.content, dict) else set()
        raise ConfigError(_no_result(str(file.path), keys))
    results, rejected = [], []
    for place, content in _entries(file):
        try:
            results.append(_result(file, Document(f"{file.path}{place}", content), f"{file.path.name}{place}"))
        except ConfigError as error:
            if not place:
                raise
            rejected.append(str(error))
    return Read(tuple(results), tuple(rejected))


def _entries(file: ForeignFile) -> list[tuple[str, Any]]:
    """Every run of a file, with its place in it."""
    if file.kind == "json" and not isinstance(file.content, list):
        return [("", file.content)]
    return [(f"[{number}]", each) for number, each in enumerate(file.content)]


def _result(file: ForeignFile, result: Document, source: str) -> Reported:
    keys = result.content.keys() if isinstance(result.content, dict) else set()
    if not keys >= REQUIRED:
        raise ConfigError(_no_result(result.where, keys))
    if ramp := result.text("ramp_up_strategy"):
        raise ConfigError(f"{result.where}: ramp_up_strategy={ramp}: its load changed all the time: a row is of one")
    tool = dialect(result.content)
    duration_s = result.positive("duration")
    completed = result.positive_count("completed")
    output_tokens, input_tokens = result.number("total_output_tokens"), result.positive("total_input_tokens")
    output_tokens = output_tokens or 0.0
    agrees(result.where, "total_output_tokens / duration and output_throughput",
           output_tokens / duration_s, result.number("output_throughput"))  # fmt: skip
    concurrency, rate = result.count("max_concurrency"), _rate(result)
    energy = _energy(result)
    started, clock = _started(result, file, duration_s)
    burstiness = result.number("burstiness")
    return Reported(
        tool=tool,
        where=result.where,
        source=source,
        digest=digest("benchmark-serving", [result.value(key) for key in FIGURES]),
        started=started,
        model=result.text("model_id") or "",
        engine="trtllm" if energy and tool == TRTLLM else None,
        has_parallelism=False,
        concurrency=concurrency,
        # With both, requests wait for a slot: the loop is closed wherever the cap binds.
        request_rate_per_s=None if concurrency else rate,
        isl_mean_tokens=input_tokens / completed,
        osl_mean_tokens=output_tokens / completed,
        duration_s=duration_s,
        output_tokens=round(output_tokens),
        input_tokens=round(input_tokens),
        num_completed=completed,
        num_failed=_failed(result, completed),
        output_tokens_per_s=output_tokens / duration_s,
        input_tokens_per_s=input_tokens / duration_s,
        latencies_s=_latencies_s(result),
        notes=(
            clock,
            "ITL: theirs is between chunks, whatever these hold",
            *((f"request rate {rate:g}/s under a cap of {concurrency} in flight",) if rate and concurrency else ()),
            *(
                (f"burstiness {burstiness:g}: taken for a Poisson process",)
                if rate and burstiness not in {None, 1}
                else ()
            ),
        ),
        **energy,
    )


def _no_result(where: str, keys: Set[str]) -> str:
    missing = ", ".join(sorted(REQUIRED - keys))
    return f"{where}: is no result of benchmark_serving: it has no {missing}; give the file of --save-result"


def _failed(result: Document, completed: int) -> int | None:
    failed = result.number("failed")
    if failed is not None:
        return round(failed)
    sent = result.count("num_prompts")
    return None if sent is None else max(0, sent - completed)


def _rate(result: Document) -> float | None:
    """Requests sent per second; the tools write "inf" where all are sent at once."""
    said = result.value("request_rate")
    rate = None if isinstance(said, str) else result.number("request_rate")
    return rate if rate and rate > 0 else None


def _latencies_s(result: Document) -> dict[str, float | None]:
    """Percentiles in seconds: as written, else from the lists per request."""
    detailed = _detailed_s(result)
    found: dict[str, float | None] = {}
    for ours, theirs in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el")):
        for percentile, statistic, share in STATISTICS:
            value = result.latency_s(f"{statistic}_{theirs}_ms")
            if value is None and detailed.get(ours):
                value = float(np.percentile(detailed[ours], share)) or None
            found[f"{ours}_{percentile}_s"] = value
    return found


def _detailed_s(result: Document) -> dict[str, list[float]]:
    """Latencies of every request that succeeded, as the tools compute them; empty without --save-detailed.

    Raises:
        ConfigError: If the lists are not of numbers, or not of one length.
    """
    lists = [result.value(key) for key in ("ttfts", "itls", "output_lens")]
    if not all(isinstance(each, list) and each for each in lists):
        return {}
    try:
        requests = [
            (float(ttft), float(np.sum(itl)), float(tokens))
            for ttft, itl, tokens in zip(*lists, strict=True)
            if tokens and ttft
        ]
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{result.where}: ttfts, itls and output_lens are not lists of numbers of one length"
        ) from error
    return {
        "ttft": [ttft for ttft, _, _ in requests],
        "tpot": [rest / (tokens - 1) for _, rest, tokens in requests if tokens > 1],
        "e2e": [ttft + rest for ttft, rest, _ in requests],
    }


def _energy(result: Document) -> dict[str, Any]:
    """Joules by trtllm-serve (`energy`) or the client's own reading of NVML (`gpu_energy_j`), if there are any."""
    served_j, own_j = result.number("energy", "total_energy_j"), result.number("gpu_energy_j")
    energy_j = served_j if served_j is not None else own_j
    if energy_j is None or energy_j <= 0:
        return {}
    said = result.number("energy", "output_tps_per_w")
    return {"gpu_energy_j": energy_j, "output_tokens_per_joule": said, "is_one_nodes_energy": served_j is not None}


def _started(result: Document, file: ForeignFile, duration_s: float) -> tuple[datetime, str]:
    """When it began, and by which clock."""
    unix_s = result.number("benchmark_start_time_unix")
    if unix_s is not None and 0 < unix_s < MAX_UNIX_S:
        return datetime.fromtimestamp(unix_s, UTC), "time: the client's clock"
    before = timedelta(seconds=duration_s)
    try:
        began = datetime.strptime(result.text("date") or "", "%Y%m%d-%H%M%S").replace(tzinfo=UTC) - before
    except (ValueError, OverflowError):
        return file.modified - before, "time: the file's, less the run"
    return began, "time: `date`, whose zone it does not say, taken for UTC"
