"""AIPerf's exports of a run: `profile_export_aiperf.json`, the same as `.csv`, and `profile_export.jsonl` per request.

Keys: schema 1.4 of AIPerf 0.13, and its docs/metrics-reference.md; every metric carries its unit, which is read and
never assumed. The JSON says model and load; the other two do not. Warm-up is left out, as AIPerf does. GPU energy is
the difference of the boards' counters, or integrated power, over every GPU that its collectors see, up to 0.7 s longer
than the requests. A time between chunks (`inter_chunk_latency`) is not our ITL, `inter_token_latency` is TPOT.
"""

import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.importers.foreign_file import Document, ForeignFile, digest
from pipeline.importers.reported import Read, Reported, agrees

TOOL = "aiperf"

UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "sec": 1.0, "s": 1.0, "seconds": 1.0}
UNITS_J = {"J": 1.0, "joules": 1.0, "kJ": 1e3, "MJ": 1e6}
COUNTS = {"tokens": 1.0, "requests": 1.0, "count": 1.0, "": 1.0}
RATES = {"tokens/sec": 1.0, "tokens/s": 1.0, "requests/sec": 1.0, "requests/s": 1.0}

VENDORS = ("nvidia_", "amd_", "")
"""Whose boards' energy it may have, under tags of their own; the first versions that had it named no vendor."""

LATENCIES = {"ttft": "time_to_first_token", "tpot": "inter_token_latency", "e2e": "request_latency"}

TAGS = {"Total Output Sequence Length": "total_osl", "Total Input Sequence Length": "total_isl",
        "Total GPU Energy": "nvidia_total_gpu_energy"}  # fmt: skip
"""Headings of the CSV whose tag is not the heading in lower case."""


def recognises(file: ForeignFile) -> bool:
    """Whether a file is such an export."""
    content = file.content
    if file.kind == "json":
        metrics = content.values() if isinstance(content, dict) else ()
        of_ours = isinstance(content, dict) and content.keys() & {"request_latency", "request_throughput"}
        return bool(of_ours) and any(isinstance(each, dict) and "unit" in each for each in metrics)
    if file.kind == "jsonl":
        return bool(content) and isinstance(content[0], dict) and content[0].keys() >= {"metadata", "metrics"}
    return bool(content) and content[0][:2] == ["Metric", "avg"]


def read(file: ForeignFile) -> Read:
    """Read an export, which holds one measurement.

    Raises:
        ConfigError: If it is none, the run was cut short, a unit is unknown, or it lacks what a row needs.
    """
    if not recognises(file):
        raise ConfigError(
            f"{file.path}: is no export of AIPerf; give profile_export_aiperf.json, its .csv, or profile_export.jsonl"
        )
    content = {"json": _as_is, "csv": _of_csv, "jsonl": _of_records}[file.kind](file)
    run = Document(str(file.path), content)
    if run.value("was_cancelled") is True or run.value("is_complete") is False:
        raise ConfigError(f"{run.where}: the run was cut short: its averages are of a part of the load")
    completed = round(_needed(run, "request_count", "avg", COUNTS))
    duration_s = _duration_s(run, completed)
    output_tokens = round(_total(run, "osl", "output_sequence_length", completed))
    input_tokens = round(_total(run, "isl", "input_sequence_length", completed)) or None
    if not output_tokens:
        raise ConfigError(f"{run.where}: has neither total_osl nor output_sequence_length: it is of no tokens")
    # It divides by the time from the start of dispatch, which is longer, and much so where the run is short.
    agrees(run.where, "total_osl / benchmark_duration and output_token_throughput",
           output_tokens / duration_s, _value(run, "output_token_throughput", "avg", RATES), within=0.5)  # fmt: skip
    phase, load_note = _phase(run)
    gpu_name, num_gpus = _gpus(run)
    vendor = next((name for name in VENDORS if run.value(f"{name}total_gpu_energy") is not None), VENDORS[0])
    energy_j = _value(run, f"{vendor}total_gpu_energy", "avg", UNITS_J)
    latencies_s, unmapped = _latencies_s(run)
    started, clock = _started(run, file)
    one = Reported(
        tool=TOOL,
        tool_version=run.text("aiperf_version"),
        where=str(file.path),
        source=file.path.name,
        digest=_digest(run, duration_s, completed, output_tokens),
        started=started,
        model=_model(run),
        gpu_name=gpu_name,
        num_gpus_metered=num_gpus,
        has_parallelism=False,
        concurrency=phase.count("concurrency"),
        request_rate_per_s=None if phase.count("concurrency") else _rate(phase),
        num_in_flight=_value(run, "effective_concurrency", "avg", COUNTS),
        isl_mean_tokens=_value(run, "input_sequence_length", "avg", COUNTS),
        osl_mean_tokens=_value(run, "output_sequence_length", "avg", COUNTS),
        duration_s=duration_s,
        output_tokens=output_tokens,
        input_tokens=input_tokens,
        num_completed=completed,
        num_failed=round(_value(run, "error_request_count", "avg", COUNTS) or 0),
        output_tokens_per_s=output_tokens / duration_s,
        input_tokens_per_s=input_tokens / duration_s if input_tokens else None,
        latencies_s=latencies_s,
        gpu_energy_j=energy_j if energy_j and energy_j > 0 else None,
        output_tokens_per_joule=run.number(f"{vendor}output_tokens_per_joule", "avg"),
        notes=(clock, "ITL: theirs is between chunks, whatever these hold", *load_note, *unmapped),
    )
    return Read((one,))


def _as_is(file: ForeignFile) -> Any:
    return file.content


def _value(run: Document, tag: str, statistic: str, units: dict[str, float]) -> float | None:
    """A statistic of a metric in our unit; None where the run has none.

    Raises:
        ConfigError: If its unit is none of those it may have.
    """
    value = run.number(tag, statistic)
    if value is None:
        return None
    unit = run.value(tag, "unit")
    if not isinstance(unit, str) or unit not in units:
        raise ConfigError(f"{run.where}: units in doubt: {tag} is in {unit!r}; known: {', '.join(filter(None, units))}")
    return value * units[unit]


def _needed(run: Document, tag: str, statistic: str, units: dict[str, float]) -> float:
    """The same of what a row cannot do without.

    Raises:
        ConfigError: If it is not there or not above 0, or its unit is unknown.
    """
    run.positive(tag, statistic)
    return _value(run, tag, statistic, units) or 0.0


def _duration_s(run: Document, completed: int) -> float:
    """Time from the first request sent to the last answer; early versions give only what it was divided by.

    Raises:
        ConfigError: If neither is there.
    """
    duration_s = _value(run, "benchmark_duration", "avg", UNITS_S)
    return duration_s or completed / _needed(run, "request_throughput", "avg", RATES)


def _total(run: Document, name: str, each: str, completed: int) -> float:
    """Tokens of all requests; early versions give the mean alone. 0 where neither is there."""
    total = _value(run, f"total_{name}", "avg", COUNTS)
    return total if total is not None else (_value(run, each, "avg", COUNTS) or 0.0) * completed


def _latencies_s(run: Document) -> tuple[dict[str, float | None], list[str]]:
    """Percentiles by our column, seconds, and which of them are 0, as where all tokens come in one chunk."""
    found: dict[str, float | None] = {}
    zero = []
    for ours, tag in LATENCIES.items():
        for percentile in ("p50", "p99"):
            value = _value(run, tag, percentile, UNITS_S)
            found[f"{ours}_{percentile}_s"] = value or None
            zero += [f"{tag} {percentile}: 0, as where tokens come in one chunk; left out"] if value == 0 else []
    return found, zero


def _phase(run: Document) -> tuple[Document, list[str]]:
    """The one phase that counts, as it was configured: a list of phases (0.13), or the load generator's (before)."""
    phases = run.value("input_config", "phases")
    if not isinstance(phases, list):
        return Document(run.where, run.value("input_config", "loadgen")), []
    counted = [each for each in phases if isinstance(each, dict) and not each.get("exclude_from_results")]
    if len(counted) != 1:
        return Document(run.where, None), [f"load: of {len(counted)} phases, no single one"]
    phase = Document(run.where, counted[0])
    kind = phase.text("type")
    is_other = _rate(phase) is not None and not phase.count("concurrency") and kind not in {None, "poisson"}
    return phase, [f"load: arrivals of type {kind}, taken for a Poisson process"] if is_other else []


def _rate(phase: Document) -> float | None:
    """Requests per second that were asked for."""
    return phase.number("rate") or phase.number("request_rate")


def _model(run: Document) -> str:
    """The model's name, if it is one."""
    items = run.value("input_config", "models", "items")
    names = [each.get("name") for each in items if isinstance(each, dict)] if isinstance(items, list) else []
    older = run.value("input_config", "endpoint", "model_names")
    names = names or (older if isinstance(older, list) else [])
    return names[0] if len(names) == 1 and isinstance(names[0], str) else ""


def _gpus(run: Document) -> tuple[str | None, int | None]:
    """Name and number of the GPUs that its collectors saw; None where none, or several kinds."""
    endpoints = run.value("telemetry_data", "endpoints")
    gpus = [
        gpu
        for endpoint in (endpoints.values() if isinstance(endpoints, dict) else ())
        if isinstance(endpoint, dict) and isinstance(endpoint.get("gpus"), dict)
        for gpu in endpoint["gpus"].values()
        if isinstance(gpu, dict)
    ]
    names = {name for gpu in gpus if isinstance(name := gpu.get("gpu_name"), str)}
    uuids = {str(gpu.get("gpu_uuid")) for gpu in gpus}
    return (names.pop() if len(names) == 1 else None), len(uuids) or None


def _started(run: Document, file: ForeignFile) -> tuple[datetime, str]:
    """When it began, and by which clock."""
    text = run.text("start_time")
    try:
        local = datetime.fromisoformat(text or "")
        if local.tzinfo is not None:
            return local.astimezone(UTC), "time: the client's clock"
    except (ValueError, OverflowError):
        return file.modified, "time: the file's"
    return local.replace(tzinfo=UTC), "time: `start_time`, whose zone it does not say, taken for UTC"


def _digest(run: Document, duration_s: float, *counts: int) -> str:
    """Of figures that all three exports of one run have, to the two digits that the CSV gives."""
    means = [run.number(tag, "avg") for tag in LATENCIES.values()]
    shown = [f"{value:.2f}" for value in (duration_s, *(mean or 0.0 for mean in means))]
    return digest(TOOL, [*counts, *shown])


def _of_csv(file: ForeignFile) -> dict[str, Any]:
    """The JSON's metrics from the CSV: a block with statistics, one with single values, one of GPUs."""
    metrics: dict[str, Any] = {}
    gpus: dict[str, dict[str, str]] = {}
    head: list[str] = []
    for line in file.content:
        if not line or line[0] in {"Metric", "Endpoint"}:
            head = line or head
        elif head[0] == "Metric":
            heading, _, unit = line[0].partition(" (")
            tag = TAGS.get(heading, re.sub(r"\W+", "_", heading.lower()))
            values = {
                "avg" if name == "Value" else name: _cell(cell) for name, cell in zip(head[1:], line[1:], strict=False)
            }
            metrics[tag] = {"unit": unit.rstrip(")"), **values}
        else:
            cells = dict(zip(head, line, strict=False))
            gpus[cells.get("GPU_UUID", "")] = {
                "gpu_name": cells.get("GPU_Name", ""),
                "gpu_uuid": cells.get("GPU_UUID", ""),
            }
    return metrics | {"telemetry_data": {"endpoints": {"csv": {"gpus": gpus}}}}


def _cell(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _of_records(file: ForeignFile) -> dict[str, Any]:
    """The JSON's metrics from the records of single requests.

    Raises:
        ConfigError: If no request of the profiling phase is there, or units change between requests.
    """
    starts, ends, failed = [], [], 0
    values: dict[str, list[float]] = defaultdict(list)
    units: dict[str, str] = {}
    for number, content in enumerate(file.content):
        record = Document(f"{file.path}:{number + 1}", content)
        if record.text("metadata", "benchmark_phase") not in {None, "profiling"}:
            continue
        if record.value("error") is not None or record.value("metadata", "was_cancelled") is True:
            failed += 1
            continue
        starts.append(record.positive_ns("metadata", "request_start_ns"))
        ends.append(record.positive_ns("metadata", "request_end_ns"))
        for tag in (*LATENCIES.values(), "input_sequence_length", "output_sequence_length"):
            value, unit = record.number("metrics", tag, "value"), record.value("metrics", tag, "unit")
            if value is not None:
                values[tag].append(value)
                if units.setdefault(tag, unit) != unit:
                    raise ConfigError(
                        f"{record.where}: units in doubt: {tag} is in {unit!r} here and in {units[tag]!r} before"
                    )
    if not starts:
        raise ConfigError(f"{file.path}: has no request of the profiling phase that succeeded")
    metrics: dict[str, Any] = {
        tag: {"unit": units[tag], "avg": float(np.mean(each)), "p50": float(np.median(each)),
              "p99": float(np.percentile(each, 99))}
        for tag, each in values.items()
    }  # fmt: skip
    for total, tag in (("total_osl", "output_sequence_length"), ("total_isl", "input_sequence_length")):
        metrics[total] = {"unit": units.get(tag, "tokens"), "avg": sum(values[tag]) if values[tag] else None}
    return metrics | {
        "request_count": {"unit": "requests", "avg": len(starts)},
        "error_request_count": {"unit": "requests", "avg": failed},
        "benchmark_duration": {"unit": "ns", "avg": max(ends) - min(starts)},
        "start_time": datetime.fromtimestamp(min(starts) * 1e-9, UTC).isoformat(),
    }
