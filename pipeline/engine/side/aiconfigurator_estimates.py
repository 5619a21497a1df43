"""What aiconfigurator expects of engines: `python -P aiconfigurator_estimates.py < requests.json`.

Runs in an environment that has aiconfigurator 0.12. One process answers all requests: importing it and reading its
database take seconds, an estimate a few hundredths of one. Standard input is a JSON list of requests:

    model, system, backend            its own names; a model is a Hugging Face repository
    tp, pp, attention_dp              degrees
    ep, moe_tp                        degrees; null without routed experts
    isl_tokens, osl_tokens            mean lengths
    max_seq_len_tokens                longest context
    batch                             requests running per attention rank and pipeline stage
    prompt_tokens                     prompt tokens of an iteration that has any
    linear, experts, kv_cache         its names of number formats; that of attention in prompts follows from its data

Prints one line `MARK {json}` whatever else the package prints:

    version     of aiconfigurator, or null
    database    version of the engine that it has measured kernels of, or null
    problem     {"key", "message"} that concerns all requests: key is module, system or model; or null
    answers     per request output_tokens_per_s (of all ranks and stages), ttft_s and tpot_s, or error
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import logging
import sys
import warnings
from typing import Any

MARK = "AICONFIGURATOR-ESTIMATES"
SUPPORTED = "0.12."

MAX_ERROR_CHARS = 160


def estimates(requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Answers to requests that share model, system and backend, as above."""
    found: dict[str, Any] = {"version": None, "database": None, "problem": None, "answers": []}
    try:
        found["version"] = importlib.metadata.version("aiconfigurator")
        if not found["version"].startswith(SUPPORTED):
            return _with_problem(found, "module", f"it has {found['version']}")
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
        estimate = importlib.import_module("aiconfigurator.cli.api").cli_estimate
        database = importlib.import_module("aiconfigurator.sdk.perf_database")
        models = importlib.import_module("aiconfigurator.sdk.utils")
    except Exception as error:  # noqa: BLE001  # whatever keeps the package from being imported here
        return _with_problem(found, "module", _one_line(error))
    first = requests[0]
    # Asked for once: finding it reads hundreds of files.
    found["database"] = database.get_latest_database_version(system=first["system"], backend=first["backend"])
    if found["database"] is None:
        return _with_problem(found, "system", f"no data of {first['backend']} on {first['system']}")
    try:
        models.get_model_config_from_model_path(first["model"])
    except Exception as error:  # noqa: BLE001  # not in the package, no network, or an architecture that it lacks
        return _with_problem(found, "model", _one_line(error))
    found["answers"] = [_answer(request, estimate, found["database"]) for request in requests]
    return found


def _answer(request: dict[str, Any], estimate: Any, database: str) -> dict[str, Any]:
    try:
        result = estimate(
            request["model"],
            request["system"],
            mode="agg",
            backend_name=request["backend"],
            backend_version=database,
            isl=request["isl_tokens"],
            osl=request["osl_tokens"],
            batch_size=request["batch"],
            ctx_tokens=request["prompt_tokens"],
            max_seq_len=request["max_seq_len_tokens"],
            tp_size=request["tp"],
            pp_size=request["pp"],
            attention_dp_size=request["attention_dp"],
            moe_tp_size=request["moe_tp"],
            moe_ep_size=request["ep"],
            gemm_quant_mode=request["linear"],
            moe_quant_mode=request["experts"],
            kvcache_quant_mode=request["kv_cache"],
        )
    except Exception as error:  # noqa: BLE001  # memory, missing measurements, layouts that it does not know
        return {"error": _one_line(error)}
    if result.kv_cache_warning:  # its figures hold without a queue only
        return {"error": "the batch exceeds what its KV cache holds"}
    if not result.tokens_per_second > 0:
        return {"error": "no throughput"}
    return {
        "output_tokens_per_s": float(result.tokens_per_second),
        "ttft_s": float(result.ttft) / 1e3,
        "tpot_s": float(result.tpot) / 1e3,
    }


def _with_problem(found: dict[str, Any], key: str, message: str) -> dict[str, Any]:
    return found | {"problem": {"key": key, "message": message}}


def _one_line(error: Exception) -> str:
    text = " ".join(f"{error}".split()) or type(error).__name__
    return text if len(text) <= MAX_ERROR_CHARS else f"{text[: MAX_ERROR_CHARS - 3]}..."


if __name__ == "__main__":
    said = estimates(json.load(sys.stdin))
    # A line of its own, even behind a library that printed half a line.
    print(f"\n{MARK} {json.dumps(said)}", flush=True)  # noqa: T201
