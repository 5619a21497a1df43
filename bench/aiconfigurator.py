"""`python -m bench.aiconfigurator --python DIR/bin/python`: our model, aiconfigurator's, and published measurements.

First table: its throughput / ours for TensorRT-LLM, at the fewest GPUs at which both have an answer, by load. Second:
both against the vLLM points of bench/data/mlenergy_v3.csv (to which our constants were fitted) that it has an answer
to; errors are `|modelled / measured - 1|`. Markdown, as docs/model.md has it.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from bench.model import POINTS, facts, model_facts, read_points
from pipeline.config import load_study
from pipeline.engine_config import EngineConfig, Parallelism, Precision
from pipeline.errors import ConfigError
from pipeline.importers.mlenergy import WEIGHTS
from pipeline.roofline.aiconfigurator import KEY, Answer, Request, disagreement, power_at_speed_w, request
from pipeline.roofline.calibration import SHIPPED
from pipeline.roofline.predict import Prediction
from pipeline.roofline.step import step
from pipeline.search.prior import judged
from pipeline.search.second_opinion import ask, second_opinion
from pipeline.study import Hardware
from pipeline.workload import Workload

CASES = (
    ("gpt-oss-120b", "fp4"),
    ("llama-3.1-8b", "bf16"),
    ("llama-3.1-8b", "fp8"),
    ("qwen3-32b", "bf16"),
    ("qwen3-32b", "fp8"),
    ("deepseek-r1", "fp8"),
    ("deepseek-r1", "fp4"),
)
GPUS = ("h100", "h200", "b200", "gb200_nvl72")
LOADS = (1, 16, 256)


def against_ours(python: str) -> list[str]:
    """Table of its tokens/s / ours: a line per model and format, a column per GPU."""
    lines = [f"| model | weights | {' | '.join(GPUS)} |", f"| --- | --- |{' ---: |' * len(GPUS)}"]
    for model, weights in CASES:
        lines.append(f"| {model} | {weights} | {' | '.join(_cell(model, weights, gpu, python) for gpu in GPUS)} |")
    return lines


def _cell(model: str, weights: str, gpu: str, python: str) -> str:
    overrides = [f"model={model}", f"hardware={gpu}", "rig=modelled", "engine=trtllm", f"precision={weights}"]
    loads = f"workload.concurrency=[{','.join(map(str, LOADS))}]"
    study = load_study([*overrides, "workload=chat_1k_1k", loads, f"{KEY}={python}"])
    configs = [
        EngineConfig(
            engine="trtllm",
            precision=Precision(weights=weights, kv_cache="fp8"),
            parallelism=Parallelism(tp=num_gpus, ep=num_gpus if study.model.num_experts else 1),
        )
        for num_gpus in (1, 2, 4, 8)
    ]
    try:
        second = second_opinion(study, configs)
    except ConfigError as error:  # the GPU does not run the format, or aiconfigurator cannot be asked
        return "-" if "does not run" in str(error) else str(error)
    for config in configs:
        ratios = [
            disagreement(one.ours, one.theirs)["output_tokens_per_s"]
            for one in judged(study, config, second)
            if isinstance(one.theirs, Prediction)
        ]
        if len(ratios) == len(LOADS):
            return f"x{config.parallelism.num_gpus}: {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
    return "-"


def against_measured(python: str) -> list[str]:
    """Table of the errors of both: a line per GPU and model."""
    points = read_points(POINTS)
    rows, todo = points.rows, points.measured.work
    done = step(todo, SHIPPED)
    rows["ours"] = points.measured.running / done.time_s
    rows["theirs"] = _theirs(rows, python)
    ratios = rows["theirs"] / rows["ours"]
    limits = zip(done.power_w, ratios, todo.idle_w, todo.limit_w, strict=True)
    rows["ours_w"] = done.power_w * rows["num_gpus"]
    rows["theirs_w"] = [power_at_speed_w(*one) for one in limits] * rows["num_gpus"]
    known = rows.dropna(subset="theirs")
    lines = [
        f"{len(known)} of {len(rows)} points:\n",
        "| GPU | model | points | aiconfigurator / measured | ours / measured |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for (gpu, model), group in known.groupby(["gpu", "conf"]):
        cells = [np.median(group[name] / group["output_tokens_per_s"]) for name in ("theirs", "ours")]
        lines.append(f"| {gpu} | {model} | {len(group)} | {cells[0]:.2f} | {cells[1]:.2f} |")
    return [*lines, "", *(_errors(known, name) for name in ("theirs", "ours"))]


def _errors(rows: pd.DataFrame, name: str) -> str:
    modelled, measured = rows[name] / rows[f"{name}_w"], 1 / rows["j_per_output_token"]
    errors = {"tok/s": np.abs(rows[name] / rows["output_tokens_per_s"] - 1), "tok/J": np.abs(modelled / measured - 1)}
    pairs = [p for _, group in rows.groupby(["gpu", "conf", "task"]) for p in combinations(group.index, 2)]
    right = [(modelled[a] > modelled[b]) == (measured[a] > measured[b]) for a, b in pairs]
    texts = [f"{what} {np.median(error):.0%}, {np.quantile(error, 0.9):.0%}" for what, error in errors.items()]
    return (
        f"{name}, median and 90th percentile of the error: {'; '.join(texts)}; pairs of configs ordered right by "
        f"tok/J: {np.mean(right):.1%} of {len(right)}"
    )


def _theirs(rows: pd.DataFrame, python: str) -> list[float | None]:
    """Its tokens/s at every point; None where it has none."""
    requests = [_request(row) for _, row in rows.iterrows()]
    answers: dict[Request, Any] = {}
    for key in {(one.model, one.system) for one in requests if isinstance(one, Request)}:
        same = dict.fromkeys(one for one in requests if isinstance(one, Request) and (one.model, one.system) == key)
        try:
            answers |= ask(python, tuple(same)).answers
        except ConfigError as error:
            print(f"left out: {error}")
    found = [answers.get(one) if isinstance(one, Request) else None for one in requests]
    return [
        answer.output_tokens_per_s * row["avg_batch_size"] / one.num_running
        if isinstance(answer, Answer) and isinstance(one, Request)
        else None
        for answer, one, (_, row) in zip(found, requests, rows.iterrows(), strict=True)
    ]


def _request(row: pd.Series) -> Request | str:
    model = model_facts(row["conf"])
    if model is None:
        return "no facts"
    num_gpus = int(row["num_gpus"])
    config = EngineConfig(
        engine="vllm",
        precision=Precision(weights=WEIGHTS.get(row["weight_precision"], row["weight_precision"])),
        parallelism=Parallelism(tp=num_gpus, ep=num_gpus if row["ep"] > 1 else 1, attention_dp=row["dp"] > 1),
    )
    lengths = Workload(
        name="mlenergy", source=POINTS.name, isl_tokens=round(row["isl_tokens"]),
        osl_tokens=round(row["avg_output_len"]), length_ratio_min=1,
    )  # fmt: skip
    return request(
        model, facts(Hardware, "hardware", row["gpu"].lower()), lengths, config, max(1, round(row["avg_batch_size"]))
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="our model, aiconfigurator's and published measurements")
    parser.add_argument("--python", required=True, help="interpreter that has aiconfigurator 0.12")
    python = parser.parse_args(argv).python
    print("\n".join([*against_ours(python), "", *against_measured(python)]))


if __name__ == "__main__":
    main()
