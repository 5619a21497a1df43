"""A row as a point of InferenceX: the keys of its `agg_*.json`, which its compare script and dashboard read.

Keys, units and rounding: utils/process_result.py and utils/aggregate_power.py of InferenceX at 843c6254. What a row
does not have is left out, never 0: means, standard deviations, other percentiles, and times between chunks. Keys of
ours follow behind: they say what the row is, and InferenceX's tools pass over them.
"""

import json
from typing import Any

from pipeline.engine_config import EngineConfig
from pipeline.record import Row
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, RowStatus

LATENCIES = {
    f"{ours}_{percentile}_s": f"{statistic}_{theirs}"
    for ours, theirs in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el"))
    for percentile, statistic in (("p50", "median"), ("p99", "p99"))
}
"""Our column -> their key, both in seconds. Their ITL is between chunks, whatever these hold; ours is per token."""

FRAMEWORKS = {"trtllm": "trt", "vllm": "vllm", "sglang": "sglang", "atom": "atom", "tilert": "tilert"}
"""Our engine -> their framework."""

MODELS = {"gpt-oss-120b": "gptoss", "deepseek-r1": "dsr1", "llama-3.3-70b": "70b"}
"""conf/model -> `infmax_model_prefix`, by the master configs of InferenceX."""

POWER_SCHEMA = 2
"""`power_metric_schema_version` that is written; the first whose joules are of the whole deployment."""

LABELS = ("evidence", "boundary", "origin", "weights", "engine_version", "gpu_name", "driver_version", "plan",
          "study_id", "row_id", "started_utc")  # fmt: skip
"""Columns that are written under their own names."""


def why_not(row: Row) -> str | None:
    """Why a row is no point of InferenceX; None where it is one."""
    evidence = row.throughput_evidence
    holds = {
        f"{row.status} ({', '.join(row.reasons)})": row.status is not RowStatus.OK,
        f"its tokens are {evidence}, and points are measured": evidence is not Evidence.MEASURED,
        "it is of no GPU": not row.num_gpus,
        "its prefill and decode engines are apart": row.num_gpus != _config(row).parallelism.num_gpus,
        "an open loop has no concurrency": row.concurrency is None,
        "its tokens/s are not known, input and output": not row.output_tokens_per_s or _input_tokens_per_s(row) is None,
    }
    return next((reason for reason, is_so in holds.items() if is_so), None)


def point(row: Row, study: Study) -> dict[str, Any]:
    """The point of a row that is one, see `why_not`."""
    config = _config(row)
    checkpoint = study.model.checkpoints.get(config.precision.weights)
    output, more = row.output_tokens_per_s or 0.0, _input_tokens_per_s(row) or 0.0
    return {
        "hw": row.hardware.partition("_")[0],
        "conc": row.concurrency,
        "image": study.engine.image,
        "model": checkpoint.repo if checkpoint else row.model,
        "infmax_model_prefix": MODELS.get(row.model, row.model),
        "framework": FRAMEWORKS.get(row.engine, row.engine),
        "precision": config.precision.weights,
        "spec_decoding": config.knobs.get("speculative_config.decoding_type", "none"),
        "disagg": False,
        "recipe_fingerprint": row.rendered_hash,
        "isl": row.isl_tokens,
        "osl": row.osl_tokens,
        "is_multinode": False,
        "tp": config.parallelism.tp,
        "pp": config.parallelism.pp,
        "dcp_size": 1,
        "pcp_size": config.parallelism.cp,
        "ep": config.parallelism.ep,
        "dp_attention": str(config.parallelism.attention_dp).lower(),
        "tput_per_gpu": (output + more) / row.num_gpus,
        "output_tput_per_gpu": output / row.num_gpus,
        "input_tput_per_gpu": more / row.num_gpus,
        **_latencies(row),
        **_power(row),
        **{name: value for name in LABELS if (value := getattr(row, name)) is not None},
    }


def _config(row: Row) -> EngineConfig:
    return EngineConfig.from_axes(row.engine, json.loads(row.config_json))


def _input_tokens_per_s(row: Row) -> float | None:
    if row.input_tokens is not None and row.window_s:
        return row.input_tokens / row.window_s
    if row.total_tokens_per_joule and row.power_w and row.output_tokens_per_s:
        return row.total_tokens_per_joule * row.power_w - row.output_tokens_per_s
    return None


def _latencies(row: Row) -> dict[str, float]:
    """Seconds, and of TPOT its inverse too, tokens/s per user."""
    found = {key: value for column, key in LATENCIES.items() if (value := getattr(row, column))}
    return found | {key.replace("tpot", "intvty"): 1 / value for key, value in found.items() if "tpot" in key}


def _power(row: Row) -> dict[str, float]:
    """The power block; without joules of GPU boards that a device measured, it says that there are none."""
    energy_j, power_w = row.gpu_energy_j, row.power_w
    head: dict[str, float] = {"power_metric_schema_version": POWER_SCHEMA, "power_valid": 0}
    if row.boundary is not Boundary.GPU or row.energy_evidence is not Evidence.MEASURED or not (energy_j and power_w):
        return head
    output, more = row.output_tokens, row.input_tokens
    per = {
        "successful_query": row.num_completed,
        "input_token": more,
        "output_token": output,
        "total_token": None if output is None or more is None else output + more,
    }
    return {
        **head,
        "power_valid": 1,
        "avg_power_w": round(power_w / row.num_gpus, 3),
        "avg_total_gpu_power_w": round(power_w, 3),
        "total_gpu_energy_j": round(energy_j, 3),
        **{f"joules_per_{name}": round(energy_j / count, 6) for name, count in per.items() if count},
    }
