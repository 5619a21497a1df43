"""`make bench-search`: starts and GPU-seconds that each way of searching takes, against known truths; JSON last.

A truth is the roofline of a model and GPU (SCENARIOS, in turn) with every constant off by a factor (10 %), every
structural cell by another (12 %), every value of every knob and scheduler limit by a third (6 %), and starts that fail
where little memory is left. Its best config is known. Every method sees the same truth through rows with noise (2 %),
climbs the same adaptive ladder, starts with the same baseline, and is judged by the true score of the config it would
choose: regret = 1 - true score / best true score.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.config import load_study
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.record import Row, Trial
from pipeline.roofline.calibration import CONSTANTS, SHIPPED
from pipeline.roofline.memory import kv_pool_bytes, published
from pipeline.roofline.predict import Prediction, predict_loads
from pipeline.score import score, within
from pipeline.search.climb import Climb, Standing
from pipeline.search.ladder import loads_of
from pipeline.search.prior import NoPrior, Prior
from pipeline.search.search import Search
from pipeline.space import Space, build_space, engine_default
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint

CONSTANT_SD, CELL_SD, KNOB_SD, NOISE_SD = 0.10, 0.12, 0.06, 0.02
"""Of logs: errors of the model's constants, of structural cells, of knobs; of one measured row."""

MIN_POOL_SHARES = (0.0, 0.1)
"""Of memory that must be left for the cache, or the start fails: drawn per truth."""

START_S, LOAD_S, FAILED_S = 150.0, 32.0, 60.0
"""GPU-seconds of a start, of a load point, and of a start that fails. Source: docs/measurement.md and `tpw plan`."""

STRUCTURE = ("precision.", "parallelism.")

CHECKPOINTS = (3, 6, 10, 20)
NEAR = 0.05

SCENARIOS = (
    ("model=gpt-oss-120b", "hardware=b200"),
    ("model=llama-3.3-70b", "hardware=h100"),
    ("model=qwen3-235b-a22b", "hardware=h200"),
    ("model=deepseek-r1", "hardware=b200"),
)
STUDY = (
    "rig=modelled", "engine=trtllm", "precision=auto", "parallelism=auto", "batching=auto", "workload=chat_1k_1k",
    "slo=interactive", "study=bench", "search.ladder=adaptive",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way of searching: the sampler, how many configs of the model go first, and whether the model is there."""

    sampler: str
    num_seeded: int = 0
    has_prior: bool = False


METHODS = {
    "random": Method(sampler="random"),
    "grid order": Method(sampler="grid"),
    "tpe": Method(sampler="tpe", num_seeded=10),
    "tpe after the model's best": Method(sampler="tpe", num_seeded=4, has_prior=True),
    "gp": Method(sampler="gp"),
    "residual (ours)": Method(sampler="residual", num_seeded=2, has_prior=True),
}


class Truth:
    """What would be measured, were there no noise."""

    def __init__(self, study: Study, space: Space, seed: int) -> None:
        self._study = study
        self.noise = np.random.default_rng(seed)
        factors = {name: float(np.exp(self.noise.normal(0, CONSTANT_SD))) for name in CONSTANTS}
        off: dict[str, Any] = {
            name: float(np.clip(getattr(SHIPPED, name) * factors[name], low, high))
            for name, (_, low, high) in CONSTANTS.items()
        }
        self._constants = dataclasses.replace(SHIPPED, id="truth", **off)
        self._factors: dict[tuple[str, str], float] = {}
        self._points = loads_of(study)
        self._loads: dict[object, dict[OperatingPoint, Prediction] | None] = {}
        self._seed = seed
        self._min_pool = float(self.noise.uniform(*MIN_POOL_SHARES))
        self.baseline = engine_default(space)
        self.scores = {config.config_hash: self.score(config) for config in (*space.configs, self.baseline)}
        self.best = max(self.scores.values())

    def score(self, config: EngineConfig) -> float:
        """True tokens per joule at the best load that meets the SLO; 0 where none does, or it fails."""
        factor, loads = self._factor(config), self._predicted(config) or {}
        met = [one for one in loads.values() if within(one.ttft_s, one.tpot_s / factor, self._study.slo)]
        return max((one.output_tokens_per_joule * factor for one in met), default=0.0)

    def rows(self, config: EngineConfig, trial_id: str, climb: Climb) -> list[Row]:
        """Rows of a trial; none where it fails."""
        loads = self._predicted(config)
        rows = list[Row]()
        while loads is not None and (point := climb.next_load(rows, ())) is not None:
            factor = self._factor(config) * float(np.exp(self.noise.normal(0, NOISE_SD)))
            rows.append(self._row(config, f"{trial_id}-{len(rows)}", point, loads[point], factor))
        return rows

    def _predicted(self, config: EngineConfig) -> dict[OperatingPoint, Prediction] | None:
        kind = (config.precision, config.parallelism, config.batching)
        if kind not in self._loads:
            study = self._study
            found = predict_loads(study.model, study.hardware, study.workload, config, self._points, self._constants)
            pool = kv_pool_bytes(study.model, study.hardware, config) / published(study.hardware, "memory_bytes")
            if isinstance(found, str) or pool < self._min_pool:
                self._loads[kind] = None
            else:
                self._loads[kind] = dict(zip(self._points, found, strict=True))
        return self._loads[kind]

    def _factor(self, config: EngineConfig) -> float:
        layout = config.parallelism
        cell = f"{config.precision} {layout.tp} {layout.ep > 1} {layout.attention_dp}"
        requested = config.requested()
        others = [key for key, values in self._study.axes.items() if not key.startswith(STRUCTURE) and len(values) > 1]
        factors = [self._drawn(key, str(requested.get(key)), KNOB_SD) for key in others]
        return self._drawn("cell", cell, CELL_SD) * float(np.prod(factors))

    def _drawn(self, name: str, value: str, sd: float) -> float:
        if (name, value) not in self._factors:
            words = [self._seed, *canonical_json([name, value]).encode()]
            self._factors[name, value] = float(np.exp(np.random.default_rng(words).normal(0, sd)))
        return self._factors[name, value]

    def _row(self, config: EngineConfig, row_id: str, point: OperatingPoint, found: Prediction, factor: float) -> Row:
        study = self._study
        return Row(
            row_id=row_id, trial_id=row_id.partition("-")[0], study_id=study.id, case_id="", rendered_hash="",
            config_hash=config.config_hash, config_json=canonical_json(config.requested()), status=RowStatus.OK,
            evidence=Evidence.MEASURED, throughput_evidence=Evidence.MEASURED, energy_evidence=Evidence.MEASURED,
            boundary=Boundary.GPU, started_utc="", model=study.model.name, weights="checkpoint",
            hardware=study.hardware.name, num_gpus=config.parallelism.num_gpus, engine=config.engine, tool_version="",
            workload=study.workload.name, plan=study.plan.name, isl_tokens=study.workload.isl_tokens,
            osl_tokens=study.workload.osl_tokens, concurrency=point.concurrency,
            output_tokens_per_s=found.output_tokens_per_s * factor, power_w=found.power_w,
            output_tokens_per_joule=found.output_tokens_per_joule * factor,
            ttft_p99_s=found.ttft_s, tpot_p99_s=found.tpot_s / factor,
            output_tokens_per_joule_rel_ci95=1.96 * NOISE_SD,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Regret after each start, and the GPU-seconds that had been spent by then."""

    regret: tuple[float, ...]
    spent_s: tuple[float, ...]


def run(study: Study, space: Space, truth: Truth, method: Method, num_starts: int, seed: int) -> Run:
    """One search."""
    named: dict[str, Any] = {"sampler": method.sampler, "num_seeded": method.num_seeded}
    settings = dataclasses.replace(study.search, **named, seed=seed, budget_trials=num_starts)
    study = dataclasses.replace(study, search=settings, baseline=truth.baseline)
    prior = (Prior if method.has_prior else NoPrior)(study, space.configs)
    search = Search(study, space, [], [], prior)
    best_measured, chosen = 0.0, 0.0
    regret, spent_s = list[float](), list[float]()
    for number, proposal in enumerate(search.proposals()):
        config = proposal.config
        rows = truth.rows(config, f"{number}", Climb.of(study, config, Standing(), search.calibration))
        measured = score(rows, study.slo)
        trial = _trial(study, config, number, measured, rows)
        search.tell(trial, rows)
        if method.sampler == "residual":
            search.reconsider()
        if measured is not None and measured > best_measured:
            best_measured = measured
            chosen = truth.scores.get(config.config_hash) or truth.score(config)
        regret.append(1 - chosen / truth.best)
        cost_s = START_S + LOAD_S * len(rows) if rows else FAILED_S
        spent_s.append((spent_s[-1] if spent_s else 0.0) + cost_s * config.parallelism.num_gpus)
    return Run(regret=tuple(regret), spent_s=tuple(spent_s))


def _trial(study: Study, config: EngineConfig, number: int, value: float | None, rows: Sequence[Row]) -> Trial:
    return Trial(
        trial_id=f"{number}", study_id=study.id, number=number, config_hash=config.config_hash,
        status=TrialStatus.OK if rows else TrialStatus.OUT_OF_MEMORY, config_json=canonical_json(config.requested()),
        proposed_by="", engine=config.engine, num_rows=len(rows), score=value, slo=study.slo.name, started_utc="",
        total_s=0.0, tool_version="", study_json="",
    )  # fmt: skip


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Median regret after so many starts, and median starts and GPU-seconds to within NEAR of the best."""
    result: dict[str, Any] = {}
    for num_starts in CHECKPOINTS:
        values = [each.regret[min(num_starts, len(each.regret)) - 1] for each in runs if each.regret]
        result[f"regret_{num_starts}"] = round(float(np.median(values)), 4)
        result[f"regret_{num_starts}_p90"] = round(float(np.quantile(values, 0.9)), 4)
    firsts = [next((n for n, value in enumerate(each.regret) if value <= NEAR), None) for each in runs]
    result["share_near"] = round(sum(first is not None for first in firsts) / len(runs), 3)
    far = float("inf")
    starts = float(np.median([far if first is None else first + 1 for first in firsts]))
    seconds = float(
        np.median([far if first is None else each.spent_s[first] for first, each in zip(firsts, runs, strict=True)])
    )
    result["starts_to_near"] = None if starts == far else starts
    result["gpu_s_to_near"] = None if seconds == far else round(seconds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Regret of ways to search, against known truths.")
    parser.add_argument("--seeds", type=int, default=20, help="truths")
    parser.add_argument("--starts", type=int, default=20, help="engine starts of each search")
    parser.add_argument("--method", action="append", choices=METHODS, help="only this one; may be given again")
    options = parser.parse_args()
    studies = [load_study([*STUDY, *scenario]) for scenario in SCENARIOS[: options.seeds]]
    spaces = [build_space(study) for study in studies]
    names = options.method or list(METHODS)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    spent_s = dict.fromkeys(names, 0.0)
    console = Console()
    for seed in range(options.seeds):
        study, space = studies[seed % len(studies)], spaces[seed % len(studies)]
        truth = Truth(study, space, seed)
        for name in names:
            truth.noise, began = np.random.default_rng(seed), time.perf_counter()  # every method meets the same
            runs[name].append(run(study, space, truth, METHODS[name], options.starts, seed))
            spent_s[name] += time.perf_counter() - began
    table = Table("method", *(f"after {n}" for n in CHECKPOINTS), "starts to 95 %", "GPU-s to 95 %", "s/start")
    result: dict[str, Any] = {}
    for name in names:
        found = summary(runs[name])
        result[name] = found
        cells = [f"{100 * found[f'regret_{n}']:.1f} % ({100 * found[f'regret_{n}_p90']:.0f} %)" for n in CHECKPOINTS]
        cells += [str(found["starts_to_near"] or "-"), str(found["gpu_s_to_near"] or "-")]
        table.add_row(name, *cells, f"{spent_s[name] / options.seeds / options.starts:.2f}")
    sizes = [len(space.configs) for space in spaces]
    table.caption = f"regret: median (90th percentile) over {options.seeds} truths of {sizes} configs"
    console.print(table)
    print(json.dumps({"num_configs": sizes, "seeds": options.seeds, "surrogate": result}))


if __name__ == "__main__":
    main()
