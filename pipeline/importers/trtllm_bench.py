"""What `trtllm-bench ... throughput --report_json FILE` writes, read with its units and holes.

Keys: tensorrt_llm/bench/dataclasses/reporting.py (1.2). The energy block came in 2026 (PR 11397); its keys are those
that reports of 1.3 hold, and all of it may be absent. A report may say NaN where it has nothing; so do we, with None.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.importers.foreign_file import Document, ForeignFile, read_file
from pipeline.importers.reported import Read, Reported, agrees

TOOL = "trtllm-bench"

FIX = "give the file of --report_json"

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

WEIGHTS = {
    "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "FP8_BLOCK_SCALES": "fp8", "NVFP4": "fp4", "NVFP4_AWQ": "fp4",
    "W4A8_NVFP4_FP8": "fp4", "W4A8_MXFP4_FP8": "fp4", "W4A8_MXFP4_MXFP8": "fp4", "W4A16_MXFP4": "fp4",
}  # fmt: skip
"""TensorRT-LLM's name of a format (tensorrt_llm/quantization/mode.py) -> that of the weights in conf/precision."""


def recognises(file: ForeignFile) -> bool:
    """Whether a file is such a report."""
    return isinstance(file.content, dict) and all(isinstance(file.content.get(name), dict) for name in SECTIONS)


def read(file: ForeignFile) -> Read:
    """Read a report, which holds one measurement.

    Raises:
        ConfigError: If it is no such report, or lacks what a row needs.
    """
    _check(file)
    report = Document(str(file.path), file.content)
    duration_s = report.positive("performance", "total_latency_ms") * 1e-3
    num_requests = report.positive_count("request_info", "num_requests")
    isl_mean_tokens = report.positive("request_info", "avg_input_length")
    osl_mean_tokens = report.positive("request_info", "avg_output_length")
    output_tokens, input_tokens = round(osl_mean_tokens * num_requests), round(isl_mean_tokens * num_requests)
    agrees(report.where, "output tokens / total_latency_ms and system_output_throughput_tok_s",
           output_tokens / duration_s, report.number("performance", "system_output_throughput_tok_s"))  # fmt: skip
    energy_j = report.number("energy", "total_energy_j")
    quantization, dtype = report.text("engine", "quantization"), report.text("engine", "dtype")
    one = Reported(
        tool=TOOL,
        tool_version=report.text("engine", "version"),
        where=str(file.path),
        source=file.path.name,
        digest=file.sha256,
        started=file.modified - timedelta(seconds=duration_s),
        model=report.text("engine", "model") or "",
        weights=_weights(quantization, dtype),
        weights_said=f"engine.quantization={quantization}, engine.dtype={dtype}",
        engine="trtllm",
        engine_version=report.text("engine", "version"),
        gpu_name=report.text("machine", "name"),
        axes=_axes(report),
        num_in_flight=report.number("request_info", "avg_num_concurrent_requests"),
        isl_mean_tokens=isl_mean_tokens,
        osl_mean_tokens=osl_mean_tokens,
        duration_s=duration_s,
        output_tokens=output_tokens,
        input_tokens=input_tokens,
        num_completed=num_requests,
        output_tokens_per_s=output_tokens / duration_s,
        input_tokens_per_s=input_tokens / duration_s,
        latencies_s={name: report.latency_s(*keys) for name, keys in LATENCIES_MS.items()},
        gpu_energy_j=energy_j if energy_j and energy_j > 0 else None,
        output_tokens_per_joule=report.number("energy", "output_tps_per_w"),
        is_one_nodes_energy=True,  # energy_monitor.py reads the GPUs of its own node and scales up to the others
        notes=("time: the file's, less the run",),
    )
    return Read((one,))


def read_report(path: Path) -> Reported:
    """Read the report that lies there.

    Raises:
        ConfigError: If it cannot be read, is no such report, or lacks what a row needs.
    """
    return read(read_file(path, FIX)).reported[0]


def _axes(report: Document) -> dict[str, Any]:
    """Its settings of the engine.

    Raises:
        ConfigError: If its degrees of parallelism contradict each other.
    """

    def degree(name: str) -> int:
        return report.count("world_info", name) or 1

    tp, pp, num_gpus = degree("tp_size"), degree("pp_size"), degree("world_size")
    if num_gpus % (tp * pp):
        raise ConfigError(
            f"{report.where}: world_info.world_size={num_gpus}: is no multiple of tp_size={tp} times pp_size={pp}"
        )
    return {
        "precision.kv_cache": (report.text("engine", "kv_cache_dtype") or "auto").lower(),
        "parallelism.tp": tp,
        "parallelism.pp": pp,
        "parallelism.cp": num_gpus // (tp * pp),
        "parallelism.ep": degree("ep_size"),
        "batching.max_batch_size": report.count("world_info", "max_batch_size"),
        "batching.max_num_tokens": report.count("world_info", "max_num_tokens"),
        "batching.kv_cache_fraction": report.number("world_info", "kv_cache_percentage"),
        "engine.knobs.speculative_config.decoding_type": report.text("decoding_stats", "mode"),
    }


def _weights(quantization: str | None, dtype: str | None) -> str | None:
    """The weights' format in the words of conf/precision; None where the checkpoint's name has to tell."""
    if quantization not in {None, "NO_QUANT"}:
        return WEIGHTS.get(quantization or "", "")
    return "bf16" if dtype == "bfloat16" else None


def _check(file: ForeignFile) -> None:
    """Check that it is a report of trtllm-bench.

    Raises:
        ConfigError: If it is not; says what it looks like.
    """
    content = file.content
    if recognises(file):
        return
    why = "it is a list" if isinstance(content, list) else "it is no JSON object"
    if isinstance(content, dict):
        why = "it has no " + ", ".join(name for name in SECTIONS if not isinstance(content.get(name), dict))
        if {"request_throughput", "output_throughput"} <= content.keys():
            why = "it looks like a load client's result (vLLM's or benchmark_serving), which does not say what ran"
    raise ConfigError(f"{file.path}: is no report of {TOOL}: {why}; {FIX}")
