"""ML.ENERGY's leaderboard: its JSON, a file per model and task or per task, and the CSV that comes with this project.

Keys: scripts/build_data.py of ml-energy/leaderboard at 0cd52dab. Joules and watts are of all GPU boards (NVML),
over the steady part of a run of vLLM with at most `max_num_seqs` requests in the batch; tokens are output tokens. Not
published are prompt lengths, TTFT, TPOT (ITL is), the driver and the time of a run.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.importers.foreign_file import Document, ForeignFile, digest
from pipeline.importers.reported import Read, Reported, agrees

TOOL = "mlenergy"

ISL_TOKENS = {"lm-arena-chat": 250, "gpqa": 300, "sourcegraph-fim": 1000}
"""Mean prompt by task: declared by this project, for the leaderboard does not say."""

WEIGHTS = {"bfloat16": "bf16", "fp8": "fp8", "mxfp4": "fp4", "nvfp4": "fp4"}

NEEDED = {"model_id", "task", "gpu_model", "num_gpus", "max_num_seqs"}

CSV_NAMES = {
    "model": "model_id", "gpu": "gpu_model", "tp": "tensor_parallel", "ep": "expert_parallel", "dp": "data_parallel",
    "output_tokens_per_s": "output_throughput_tokens_per_sec", "avg_power_w_total": "avg_power_watts",
    "j_per_output_token": "energy_per_token_joules",
}  # fmt: skip
"""Columns of our CSV under the leaderboard's names; the others have them already."""

TEXTS = {"model_id", "task", "weight_precision", "architecture", "gpu_model"}


def shipped() -> Path:
    """The leaderboard v3 as it comes with this project: inside an installed package, beside it in a checkout."""
    inside = Path(__file__).parents[1] / "data" / "mlenergy_v3.csv"
    return inside if inside.is_file() else Path(__file__).parents[2] / "bench" / "data" / "mlenergy_v3.csv"


def recognises(file: ForeignFile) -> bool:
    """Whether a file is of the leaderboard."""
    if file.kind == "csv":
        return bool(file.content) and {"j_per_output_token", "max_num_seqs", "task"} <= set(file.content[0])
    return isinstance(file.content, dict) and file.content.keys() >= {"configurations", "task"}


def read(file: ForeignFile) -> Read:
    """Read every configuration of a file; one that is none is rejected.

    Raises:
        ConfigError: If the file is not of the leaderboard.
    """
    if not recognises(file):
        raise ConfigError(
            f"{file.path}: is not of ML.ENERGY's leaderboard; give its public/data/models/*.json or "
            "public/data/tasks/*.json, or a CSV with the columns of bench/data/mlenergy_v3.csv"
        )
    points, rejected = [], []
    for place, content in _of_csv(file) if file.kind == "csv" else _of_json(file):
        try:
            points.append(_point(file, Document(f"{file.path}{place}", content), f"{file.path.name}{place}"))
        except ConfigError as error:
            rejected.append(str(error))
    return Read(tuple(points), tuple(rejected))


def _of_json(file: ForeignFile) -> Iterator[tuple[str, Any]]:
    """Every configuration, with what stands above all of them, and their parallelism among the rest."""
    above = {
        key: value for key, value in file.content.items() if key not in {"configurations", "output_length_distribution"}
    }
    configurations = file.content["configurations"]
    for number, each in enumerate(configurations if isinstance(configurations, list) else [configurations]):
        place = f" configurations[{number}]"
        if not isinstance(each, dict):
            yield place, each
            continue
        split = each.get("parallelization")
        yield place, above | each | (split if isinstance(split, dict) else {})


def _of_csv(file: ForeignFile) -> Iterator[tuple[str, Any]]:
    head, *lines = file.content
    names = [CSV_NAMES.get(name, name) for name in head]
    for number, line in enumerate(lines, start=2):
        if line:
            yield f":{number}", {name: _cell(name, cell) for name, cell in zip(names, line, strict=False)}


def _cell(name: str, text: str) -> str | float | None:
    if name in TEXTS:
        return text
    try:
        return float(text)
    except ValueError:
        return text or None


def _point(file: ForeignFile, point: Document, source: str) -> Reported:
    if not isinstance(point.content, dict):
        raise ConfigError(f"{point.where}: is no JSON object")
    if missing := sorted(key for key in NEEDED if point.value(key) is None):
        raise ConfigError(f"{point.where}: it has no {', '.join(missing)}")
    task = point.text("task") or ""
    if point.value("energy_per_token_joules") is None:
        raise ConfigError(f"{point.where}: task {task} has no energy_per_token_joules: it is not of tokens")
    joules, tokens_per_s = point.positive("energy_per_token_joules"), point.positive("output_throughput_tokens_per_sec")
    num_gpus, batch = point.positive_count("num_gpus"), point.positive_count("max_num_seqs")
    power_w = _said_or(point, "avg_power_watts", joules * tokens_per_s)
    agrees(point.where, "energy_per_token_joules x output_throughput_tokens_per_sec and avg_power_watts",
           joules * tokens_per_s, power_w)  # fmt: skip
    data_parallel, expert_parallel = point.count("data_parallel") or 1, point.count("expert_parallel") or 1
    mean_batch, precision = point.positive("avg_batch_size"), point.text("weight_precision")
    osl_mean_tokens = _said_or(point, "avg_output_len", (point.number("energy_per_request_joules") or 0) / joules)
    model, gpu = point.text("model_id") or "", point.text("gpu_model") or ""
    isl_note = (
        f"ISL: not published; {ISL_TOKENS[task]} is declared for {task}" if task in ISL_TOKENS else "ISL: not published"
    )
    return Reported(
        tool=TOOL,
        where=point.where,
        source=source,
        # The CSV is rounded: three digits are alike in both.
        digest=digest(TOOL, [model, task, gpu, num_gpus, batch, data_parallel, expert_parallel, f"{tokens_per_s:.3g}"]),
        started=file.modified,
        model=model,
        weights=None if precision is None else WEIGHTS.get(precision, ""),  # None: the checkpoint's name has to tell
        weights_said=f"weight_precision={precision}",
        engine="vllm",
        gpu_name=None,
        hardware=re.sub(r"\W", "", gpu).lower(),
        axes={
            "parallelism.tp": num_gpus,
            "parallelism.ep": expert_parallel,
            "parallelism.attention_dp": data_parallel > 1 or None,
            "batching.max_batch_size": batch,
        },
        num_in_flight=mean_batch,
        workload=f"{TOOL}_{task}",
        isl_tokens=ISL_TOKENS.get(task),
        osl_mean_tokens=osl_mean_tokens,
        output_tokens_per_s=tokens_per_s,
        latencies_s={"itl_p50_s": point.latency_s("median_itl_ms"), "itl_p99_s": point.latency_s("p99_itl_ms")},
        power_w=power_w,
        output_tokens_per_joule=1 / joules,
        notes=(
            isl_note,
            "TTFT, TPOT, versions, driver: not published",
            "time: the file's",
        ),
    )


def _said_or(point: Document, key: str, follows: float) -> float:
    """A figure, or where the first build of leaderboard v3 left it out, what follows from the others.

    Raises:
        ConfigError: If it is not above 0, or nothing follows either.
    """
    return follows if point.value(key) is None and follows > 0 else point.positive(key)
