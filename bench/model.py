"""`make bench-model`: how far the roofline is from published measurements, by GPU and model; JSON last.

The file's columns are those of ML.ENERGY's leaderboard as in bench/data/mlenergy_v3.csv. Left out, and counted: models
without facts in conf/model (Mamba hybrids have none), GPUs without facts in conf/hardware, formats without a
checkpoint, values that are no positive numbers, batches that cannot fit, and
series that the host holds back: on one GPU, their smallest batch takes over HOST_BOUND times what memory would need
and draws under HOST_BOUND_POWER of the limit, so neither memory, arithmetic nor another device is what it waits for.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from pipeline.engine_config import Batching, EngineConfig, Parallelism, Precision
from pipeline.errors import ConfigError
from pipeline.importers.mlenergy import ISL_TOKENS, WEIGHTS, shipped
from pipeline.importers.model_name import conf_name
from pipeline.roofline.calibration import CONSTANTS, SHIPPED
from pipeline.roofline.fit import Array, Mask, Measured, errors_without_own, fit, summary
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.memory import attention_ranks, kv_bytes, kv_pool_bytes
from pipeline.roofline.predict import predict_loads
from pipeline.roofline.work import Work, stack, work
from pipeline.study import Hardware, Model
from pipeline.workload import OperatingPoint, Workload

ROOT = Path(__file__).resolve().parents[1]
POINTS = shipped()

COLUMNS = (
    "model", "task", "weight_precision", "gpu", "num_gpus", "tp", "ep", "dp", "avg_batch_size", "avg_output_len",
    "median_itl_ms", "output_tokens_per_s", "avg_power_w_total", "j_per_output_token",
)  # fmt: skip
"""What of the file is used."""

MEASURED = ("avg_batch_size", "avg_output_len", "output_tokens_per_s", "avg_power_w_total", "j_per_output_token")

MAX_OVER_ROOM = 3.0
"""Batch / what the memory model holds at mean context, beyond which a row is wrong. Published rows reach 2.2: their
requests end early, and what is reserved beside the cache is estimated."""

HOST_BOUND, HOST_BOUND_POWER = 4.0, 0.45

T = TypeVar("T", Model, Hardware)


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Published points that the roofline can answer for, as lines of the file and as the fit takes them."""

    rows: pd.DataFrame
    measured: Measured
    left_out: Counter[str]


def model_facts(name: str) -> Model | None:
    return facts(Model, "model", name) if (ROOT / "conf" / "model" / f"{name}.yaml").is_file() else None


@cache
def facts(kind: type[T], group: str, name: str) -> T:
    return TypeAdapter(kind).validate_python(
        yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text("utf-8"))
    )


def read_points(file: Path) -> Points:
    """Read a file, and leave out what the roofline cannot answer for.

    Raises:
        ConfigError: If it lacks a column, or nothing is left.
    """
    table = pd.read_csv(file)
    if missing := [column for column in COLUMNS if column not in table]:
        raise ConfigError(f"{file} lacks the columns {', '.join(missing)}; they are those of {POINTS.name}")
    table["conf"] = [conf_name(model) for model in table["model"]]
    table["isl_tokens"] = table["task"].map(ISL_TOKENS).fillna(300).astype(float)
    left_out, works, kept = Counter[str](), [], []
    for index, row in table.iterrows():
        try:
            works.append(_work(row))
            kept.append(index)
        except ConfigError as error:
            left_out[str(error)] += 1
    if not works:
        raise ConfigError(f"{file} has no point that the model can answer for: {'; '.join(left_out)}")
    rows = table.loc[kept].reset_index(drop=True)
    measured = Measured(
        work=stack(works),
        running=rows["avg_batch_size"].to_numpy(float),
        tokens_per_s=rows["output_tokens_per_s"].to_numpy(float),
        board_w=(rows["avg_power_w_total"] / rows["num_gpus"]).to_numpy(float),
    )
    bound = _host_bound(rows, measured)
    left_out["held back by the host (rule above)"] += int(bound.sum())
    return Points(rows=rows[~bound].reset_index(drop=True), measured=measured.where(~bound), left_out=left_out)


def _work(row: pd.Series) -> Work:
    model, gpu = model_facts(row["conf"]), str(row["gpu"]).lower()
    if model is None:
        raise ConfigError(f"{row['model']}: no facts in conf/model/{row['conf']}.yaml")
    if not (ROOT / "conf" / "hardware" / f"{gpu}.yaml").is_file():
        raise ConfigError(f"{row['gpu']}: no facts in conf/hardware/{gpu}.yaml")
    if bad := [name for name in MEASURED if not 0 < row[name] < float("inf")]:
        raise ConfigError(f"{bad[0]} is no positive number")
    hardware = facts(Hardware, "hardware", gpu)
    config = EngineConfig(
        engine="vllm",
        precision=Precision(weights=WEIGHTS.get(row["weight_precision"], row["weight_precision"])),
        parallelism=Parallelism(tp=int(row["num_gpus"]), attention_dp=row["dp"] > 1),
    )
    lengths = MeanLengths.equal(row["isl_tokens"], row["avg_output_len"])
    found = work(model, hardware, config, lengths, row["avg_batch_size"])
    room = kv_pool_bytes(model, hardware, config) / kv_bytes(model, config, lengths.context_tokens)
    if row["avg_batch_size"] > MAX_OVER_ROOM * room * attention_ranks(config):
        raise ConfigError(f"{row['conf']} on {row['num_gpus']} x {row['gpu']}: the batch cannot fit their memory")
    return found


def _host_bound(rows: pd.DataFrame, measured: Measured) -> Mask:
    done = measured.work
    least_s = (done.weight_bytes + done.expert_bytes + done.kv_bytes) / done.bandwidth_bytes_per_s
    slow = rows["median_itl_ms"].to_numpy(float) / 1e3 > HOST_BOUND * least_s
    idle = measured.board_w < HOST_BOUND_POWER * done.limit_w
    alone = (rows["num_gpus"] == 1).to_numpy()
    smallest = rows["avg_batch_size"] == series(rows)["avg_batch_size"].transform("min")
    marked = pd.Series(slow & idle & alone & smallest.to_numpy(), index=rows.index)
    return marked.groupby(_series_keys(rows)).transform("any").to_numpy(bool)


def _series_keys(rows: pd.DataFrame) -> list[pd.Series]:
    return [rows[key] for key in ("model", "task", "gpu", "num_gpus", "tp", "ep", "dp")]


def series(rows: pd.DataFrame) -> Any:
    """Points that differ in batch only."""
    return rows.groupby(_series_keys(rows))


def _shapes(name: str) -> str:
    model = model_facts(name)
    return f"{model.num_layers}x{model.hidden_size}x{model.num_experts}" if model else name


def leave_one_model_out(points: Points) -> dict[str, Array] | None:
    """Log errors of every model by constants that never saw it, nor another of the same shapes; None of one alone."""
    shapes = points.rows["conf"].map(_shapes).tolist()
    return errors_without_own(points.measured, shapes) if len(set(shapes)) > 1 else None


def order(points: Points, errors: dict[str, Array]) -> dict[str, float | None]:
    """Rank correlation of J/token within a model and GPU (median over them), and the share of pairs ordered right.

    None where there are too few points to tell.
    """
    measured = np.log(points.rows["j_per_output_token"].to_numpy(float))
    modelled = measured + errors["j_per_token"]
    correlations, num_right, num_pairs = [], 0, 0
    for _, group in points.rows.groupby(["conf", "gpu"]):
        m, p = measured[group.index], modelled[group.index]
        if len(m) > 2 and np.ptp(m) > 0:
            correlations.append(float(spearmanr(m, p).statistic))
        upper = np.triu_indices(len(m), 1)
        num_pairs += len(upper[0])
        num_right += int(((m[:, None] - m)[upper] * (p[:, None] - p)[upper] > 0).sum())
    return {
        "rank_correlation_median": round(float(np.median(correlations)), 4) if correlations else None,
        "rank_correlation_min": round(min(correlations), 4) if correlations else None,
        "pairs_ordered_right": round(num_right / num_pairs, 4) if num_pairs else None,
    }


def floor(points: Points) -> dict[str, float] | None:
    """What no smooth model can beat: a point against the line through its two neighbours in log batch, log J/token.

    The line's own ends are as noisy as the point: of equal noise the point's share is sqrt(2/3) of the difference.
    None where no series has three points.
    """
    differences = []
    for _, group in series(points.rows):
        inner = group.sort_values("avg_batch_size")
        x, y = np.log(inner["avg_batch_size"].to_numpy(float)), np.log(inner["j_per_output_token"].to_numpy(float))
        differences += [abs(y[n] - np.interp(x[n], x[[n - 1, n + 1]], y[[n - 1, n + 1]])) for n in range(1, len(x) - 1)]
    if not differences:
        return None
    scaled = np.expm1(np.array(differences) * np.sqrt(2 / 3))
    return {"median": round(float(np.median(scaled)), 4), "p90": round(float(np.quantile(scaled, 0.9)), 4)}


def show(console: Console, points: Points, inside: dict[str, Array], outside: dict[str, Array] | None) -> None:
    headings = (f"{quantity} {which}" for quantity in ("tok/s", "W", "J/tok") for which in ("in", "out"))
    table = Table("GPU", "model", "n", *headings, box=None, padding=(0, 1))
    table.columns[1].no_wrap = True
    table.caption = "median |error|, %; in: these constants, out: fitted without this model"
    for (gpu, name), group in points.rows.groupby(["gpu", "conf"]):
        both = [
            errors and summary({key: values[group.index] for key, values in errors.items()})
            for errors in (inside, outside)
        ]
        cells: Iterable[str] = (
            f"{100 * getattr(errors, quantity).median:.1f}" if errors else "-" for quantity in inside for errors in both
        )
        table.add_row(str(gpu), str(name), str(len(group)), *cells)
    console.print(table)


def points_per_s() -> int:
    """Speed of the model on one core: loads of distinct configs that it answers for in a second, best of five."""
    model, hardware = facts(Model, "model", "gpt-oss-120b"), facts(Hardware, "hardware", "gb200_nvl72")
    loads = [OperatingPoint(concurrency=n) for n in (1, 4, 16, 64, 256)]
    workload = Workload(
        name="bench", source="bench", isl_tokens=1024, osl_tokens=1024, length_ratio_min=0.8, concurrency=(1,)
    )
    configs = [
        EngineConfig(
            engine="trtllm", precision=Precision(weights="fp4"), parallelism=Parallelism(tp=tp, attention_dp=adp),
            batching=Batching(max_batch_size=size),
        )
        for tp in (1, 2, 4, 8) for adp in (False, True) for size in range(8, 408, 8)
    ]  # fmt: skip
    spent_s = []
    for _ in range(5):
        began = time.perf_counter()
        for config in configs:
            predict_loads(model, hardware, workload, config, loads)
        spent_s.append(time.perf_counter() - began)
    return round(len(configs) * len(loads) / min(spent_s))


def main() -> None:
    parser = argparse.ArgumentParser(description="Error of the roofline on published measurements.")
    parser.add_argument("--csv", type=Path, default=POINTS, help="file with the columns of mlenergy_v3.csv")
    parser.add_argument("--fit", action="store_true", help="fit constants to this file and print them")
    options = parser.parse_args()
    if not options.csv.is_file():
        parser.error(f"--csv {options.csv}: there is no such file")
    try:
        points = read_points(options.csv)
    except ConfigError as error:
        parser.error(str(error))
    constants = fit(points.measured, "fitted-here") if options.fit else SHIPPED
    inside, outside = points.measured.errors(constants), leave_one_model_out(points)
    console = Console()
    show(console, points, inside, outside)
    for reason, count in points.left_out.most_common():
        console.print(f"left out: {count} {reason}", soft_wrap=True)
    result: dict[str, Any] = {
        "calibration": constants.id,
        "num_points": len(points.rows),
        "num_left_out": sum(points.left_out.values()),
        "in_sample": asdict(summary(inside)) | order(points, inside),
        "leave_one_model_out": outside and asdict(summary(outside)) | order(points, outside),
        "floor_j_per_token": floor(points),
        "points_per_s": points_per_s(),
    }
    if options.fit:
        result["constants"] = {name: float(f"{getattr(constants, name):.4g}") for name in CONSTANTS}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
