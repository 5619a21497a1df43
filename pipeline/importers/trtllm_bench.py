"""What `trtllm-bench ... throughput --report_json FILE` writes, read with its units and holes.

Keys: tensorrt_llm/bench/dataclasses/reporting.py (1.2). The energy block came in 2026 (PR 11397); its keys are those
that reports of 1.3 hold, and all of it may be absent. A report may say NaN where it has nothing; so do we, with None.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

TOOL = "trtllm-bench"

MAX_NUMBER = 1e12
MAX_NEEDED = 1e9
"""Far above whatever a run could have: what is above it is no measurement. Two of those a row needs are multiplied."""

SECTIONS = ("engine", "world_info", "request_info", "performance")
"""What every report has."""

LATENCIES_MS = {
    "ttft_p50_s": ("streaming_metrics", "ttft_percentiles", "p50"),
    "ttft_p99_s": ("streaming_metrics", "ttft_percentiles", "p99"),
    "tpot_p50_s": ("streaming_metrics", "tpot_percentiles", "p50"),
    "tpot_p99_s": ("streaming_metrics", "tpot_percentiles", "p99"),
    "e2e_p50_s": ("performance", "request_latency_percentiles_ms", "p50"),
    "e2e_p99_s": ("performance", "request_latency_percentiles_ms", "p99"),
}
"""Column -> where the report has it, milliseconds; the first four only with --streaming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """One run of trtllm-bench; None where the report does not say.

    Attributes:
        path: The report.
        sha256: Of its bytes.
        started: When the run began: the file's time less the run.
        model: Name on the Hugging Face Hub, or whatever was given for it.
        version: Of TensorRT-LLM.
        gpu_name: As PyTorch names the first GPU.
        quantization: TensorRT-LLM's name of the weights' and activations' formats.
        kv_cache: That of the KV cache.
        dtype: Of what is not quantised.
        speculation: How it speculated.
        tp: Degree of tensor parallelism; pp, cp and ep likewise.
        max_batch_size: Requests in a batch, at most.
        max_num_tokens: Tokens in an iteration, at most.
        kv_cache_fraction: Of the memory that is free, for the KV cache.
        num_requests: Requests sent.
        num_in_flight: Their mean number over the whole run.
        duration_s: First request sent to last one answered.
        isl_mean_tokens: Mean input length.
        osl_mean_tokens: Mean output length, first token included.
        latencies_s: Percentiles by our column.
        energy_j: Of all GPUs over the run.
        output_tokens_per_joule: As the report has it.
    """

    path: Path
    sha256: str
    started: datetime
    model: str
    version: str | None
    gpu_name: str | None
    quantization: str | None
    kv_cache: str | None
    dtype: str | None
    speculation: str | None
    tp: int
    pp: int
    cp: int
    ep: int
    max_batch_size: int | None
    max_num_tokens: int | None
    kv_cache_fraction: float | None
    num_requests: int
    num_in_flight: float | None
    duration_s: float
    isl_mean_tokens: float
    osl_mean_tokens: float
    latencies_s: dict[str, float | None]
    energy_j: float | None
    output_tokens_per_joule: float | None

    @property
    def output_tokens(self) -> int:
        """Output tokens of all requests."""
        return round(self.osl_mean_tokens * self.num_requests)

    @property
    def input_tokens(self) -> int:
        """Prompt tokens of all requests."""
        return round(self.isl_mean_tokens * self.num_requests)


def read_report(path: Path) -> BenchReport:
    """Read a report.

    Raises:
        ConfigError: If it cannot be read, is no such report, or lacks what a row needs.
    """
    try:
        content = path.read_bytes()
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        report = _Report(path, json.loads(content))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the file of --report_json") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply for a report; give the file of --report_json") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); give the file of --report_json") from error
    report.check_sections()
    duration_s = report.positive("performance", "total_latency_ms") * 1e-3
    tp, pp = report.degree("tp_size"), report.degree("pp_size")
    num_gpus = report.degree("world_size")
    if num_gpus % (tp * pp):
        raise ConfigError(
            f"{path}: world_info.world_size={num_gpus}: is no multiple of tp_size={tp} times pp_size={pp}"
        )
    return BenchReport(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        started=modified - timedelta(seconds=duration_s),
        model=report.text("engine", "model") or "",
        version=report.text("engine", "version"),
        gpu_name=report.text("machine", "name"),
        quantization=report.text("engine", "quantization"),
        kv_cache=report.text("engine", "kv_cache_dtype"),
        dtype=report.text("engine", "dtype"),
        speculation=report.text("decoding_stats", "mode"),
        tp=tp,
        pp=pp,
        cp=num_gpus // (tp * pp),
        ep=report.degree("ep_size"),
        max_batch_size=report.count("world_info", "max_batch_size"),
        max_num_tokens=report.count("world_info", "max_num_tokens"),
        kv_cache_fraction=report.number("world_info", "kv_cache_percentage"),
        num_requests=round(report.positive("request_info", "num_requests")),
        num_in_flight=report.number("request_info", "avg_num_concurrent_requests"),
        duration_s=duration_s,
        isl_mean_tokens=report.positive("request_info", "avg_input_length"),
        osl_mean_tokens=report.positive("request_info", "avg_output_length"),
        latencies_s={name: report.milliseconds(*keys) for name, keys in LATENCIES_MS.items()},
        energy_j=report.number("energy", "total_energy_j"),
        output_tokens_per_joule=report.number("energy", "output_tps_per_w"),
    )


@dataclass(frozen=True, slots=True)
class _Report:
    """JSON that may be anything, asked for values by key."""

    path: Path
    content: Any

    def check_sections(self) -> None:
        """Check that it is a report of trtllm-bench.

        Raises:
            ConfigError: If it is not; says what it looks like.
        """
        content = self.content
        if isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in SECTIONS):
            return
        why = "it is a list" if isinstance(content, list) else "it is no JSON object"
        if isinstance(content, dict):
            why = "it has no " + ", ".join(name for name in SECTIONS if not isinstance(content.get(name), dict))
            if {"request_throughput", "output_throughput"} <= content.keys():
                why = "it looks like a load client's result (vLLM's or benchmark_serving), which does not say what ran"
        raise ConfigError(f"{self.path}: is no report of {TOOL}: {why}; give the file of --report_json")

    def _value(self, *keys: str) -> Any:
        found = self.content
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def text(self, *keys: str) -> str | None:
        """A text; None where there is none."""
        found = self._value(*keys)
        return found if isinstance(found, str) and found else None

    def number(self, *keys: str) -> float | None:
        """A number; None where it is absent, null, NaN or infinite.

        Raises:
            ConfigError: If it is something else, or absurdly large.
        """
        found = self._value(*keys)
        if found is None or (isinstance(found, float) and not math.isfinite(found)):
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ConfigError(f"{self.path}: {'.'.join(keys)}={found!r}: is no number")
        if abs(found) > MAX_NUMBER:
            raise self._too_large(MAX_NUMBER, *keys)
        return float(found)

    def _too_large(self, most: float, *keys: str) -> ConfigError:
        return ConfigError(f"{self.path}: {'.'.join(keys)} is above {most:g}, which no run can have had")

    def milliseconds(self, *keys: str) -> float | None:
        """Milliseconds, in seconds."""
        found = self.number(*keys)
        return None if found is None else found * 1e-3

    def count(self, *keys: str) -> int | None:
        """A count; None where it is absent or not above 0, which stands for "not set"."""
        found = self.number(*keys)
        return None if found is None or found < 1 else round(found)

    def positive(self, *keys: str) -> float:
        """A number above 0.

        Raises:
            ConfigError: If there is none, or it is absurdly large.
        """
        found = self.number(*keys)
        if found is None or found <= 0:
            raise ConfigError(
                f"{self.path}: {'.'.join(keys)}={self._value(*keys)!r}: a row needs a number above 0 there"
            )
        if found > MAX_NEEDED:
            raise self._too_large(MAX_NEEDED, *keys)
        return found

    def degree(self, name: str) -> int:
        """A degree of parallelism; 1 where it was not set."""
        return self.count("world_info", name) or 1
