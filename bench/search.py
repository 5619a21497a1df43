"""`make bench-search`: starts and GPU-seconds that each way of searching takes, against known truths; JSON last.

Two kinds of truth: made-up ones of thousands of configs (search_surrogate.py), and a grid that was measured on GPUs
(search_recorded.py). The best config of each is known. Every method sees the same truth through its rows, climbs the
same ladder, starts with the same baseline, and is judged by the true score of the config it would choose: regret =
1 - true score / best true score.
"""

import argparse
import dataclasses
import importlib.util
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from bench.search_recorded import RecordedTruth, recorded
from bench.search_surrogate import SurrogateTruth
from pipeline.config import load_study
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.record import Row, Trial
from pipeline.score import score
from pipeline.search.climb import Climb, Standing
from pipeline.search.prior import NoPrior, Prior
from pipeline.search.search import Search
from pipeline.search.transfer import Elsewhere
from pipeline.space import Space, build_space
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

CHECKPOINTS = (3, 6, 10, 20)
NEAR = 0.05

PATIENCE = 15
"""Random and the order of the axes get so many times the starts, to see when they come near the best."""

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


class Truth(Protocol):
    """What would be measured."""

    baseline: EngineConfig
    best: float

    def score(self, config: EngineConfig) -> float:
        """True tokens per joule at the best load that meets the SLO; 0 where none does, or it fails."""
        ...

    def rows(self, config: EngineConfig, trial_id: str, climb: Climb) -> list[Row]:
        """Rows of a trial; none where it fails."""
        ...

    def cost_s(self, config: EngineConfig, num_rows: int) -> float:
        """GPU-seconds of a start with so many loads."""
        ...

    def again(self) -> None:
        """Let the next search meet the same noise."""
        ...


class OptunaGp(Search):
    """Optuna's own Gaussian process, after the model's best configs."""

    def _sampler(self, num_trials: int, elsewhere: Sequence[Elsewhere]) -> optuna.samplers.BaseSampler:
        del elsewhere
        settings = self._study.search
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.GPSampler(seed=settings.seed + num_trials, n_startup_trials=settings.num_seeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way of searching: the sampler, how many configs of the model go first, and whether the model is there."""

    sampler: str
    num_seeded: int = 0
    has_prior: bool = False
    patience: int = 1
    kind: type[Search] = Search


METHODS = {
    "random": Method(sampler="random", patience=PATIENCE),
    "grid order": Method(sampler="grid", patience=PATIENCE),
    "tpe": Method(sampler="tpe", num_seeded=10),
    "tpe after the model's best": Method(sampler="tpe", num_seeded=4, has_prior=True),
    "gp": Method(sampler="gp"),
    "residual (ours)": Method(sampler="residual", num_seeded=2, has_prior=True),
}
if importlib.util.find_spec("torch") is not None:
    METHODS["optuna's gp after the model's best"] = Method(
        sampler="random", num_seeded=4, has_prior=True, kind=OptunaGp
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Regret after each start, and the GPU-seconds that had been spent by then."""

    regret: tuple[float, ...]
    spent_s: tuple[float, ...]


def run(study: Study, space: Space, truth: Truth, method: Method, num_starts: int, seed: int) -> Run:
    """One search."""
    named: dict[str, Any] = {"sampler": method.sampler, "num_seeded": method.num_seeded}
    settings = dataclasses.replace(study.search, **named, seed=seed, budget_trials=num_starts * method.patience)
    study = dataclasses.replace(study, search=settings, baseline=truth.baseline)
    prior = (Prior if method.has_prior else NoPrior)(study, space.configs)
    search = method.kind(study, space, [], [], prior)
    best_measured, chosen = 0.0, 0.0
    regret, spent_s = list[float](), list[float]()
    for number, proposal in enumerate(search.proposals()):
        config = proposal.config
        rows = truth.rows(config, f"{number}", Climb.of(study, config, Standing(), search.calibration))
        measured = score(rows, study.slo)
        search.tell(_trial(study, config, number, measured, rows), rows)
        if method.sampler == "residual":
            search.reconsider()
        if measured is not None and measured > best_measured:
            best_measured, chosen = measured, truth.score(config)
        regret.append(1 - chosen / truth.best)
        spent_s.append((spent_s[-1] if spent_s else 0.0) + truth.cost_s(config, len(rows)))
        if number >= num_starts and regret[-1] <= NEAR:
            break
    return Run(regret=tuple(regret), spent_s=tuple(spent_s))


def _trial(study: Study, config: EngineConfig, number: int, value: float | None, rows: Sequence[Row]) -> Trial:
    return Trial(
        trial_id=f"{number}", study_id=study.id, number=number, config_hash=config.config_hash,
        status=TrialStatus.OK if rows else TrialStatus.OUT_OF_MEMORY, config_json=canonical_json(config.requested()),
        proposed_by="", engine=config.engine, num_rows=len(rows), score=value, slo=study.slo.name, started_utc="",
        total_s=0.0, tool_version="", study_json="",
    )  # fmt: skip


def summary(runs: Sequence[Run], checkpoints: Sequence[int]) -> dict[str, Any]:
    """Median regret after so many starts, and median starts and GPU-seconds to within NEAR of the best."""
    result: dict[str, Any] = {}
    for num_starts in checkpoints:
        values = [each.regret[min(num_starts, len(each.regret)) - 1] for each in runs if each.regret]
        result[f"regret_{num_starts}"] = round(float(np.median(values)), 4)
        result[f"regret_{num_starts}_p90"] = round(float(np.quantile(values, 0.9)), 4)
    firsts = [next((n for n, value in enumerate(each.regret) if value <= NEAR), None) for each in runs]
    most = max(checkpoints)
    result["share_near"] = round(sum(first is not None and first < most for first in firsts) / len(runs), 3)
    far = float("inf")
    starts = float(np.median([far if first is None else first + 1 for first in firsts]))
    seconds = float(
        np.median([far if first is None else each.spent_s[first] for first, each in zip(firsts, runs, strict=True)])
    )
    result["starts_to_near"] = None if starts == far else starts
    result["gpu_s_to_near"] = None if seconds == far else round(seconds)
    return result


def show(
    console: Console, runs: Mapping[str, Sequence[Run]], checkpoints: Sequence[int], caption: str
) -> dict[str, Any]:
    """Print a table of methods; returns the same as plain values."""
    table = Table("method", *(f"after {n}" for n in checkpoints), "starts to 95 %", "GPU-s to 95 %", caption=caption)
    result = {name: summary(each, checkpoints) for name, each in runs.items()}
    for name, found in result.items():
        cells = [f"{100 * found[f'regret_{n}']:.1f} % ({100 * found[f'regret_{n}_p90']:.0f} %)" for n in checkpoints]
        cells += [f"{found[key]:g}" if found[key] else "-" for key in ("starts_to_near", "gpu_s_to_near")]
        table.add_row(name, *cells)
    console.print(table)
    return result


def on_surrogates(names: Sequence[str], num_seeds: int, num_starts: int) -> tuple[dict[str, list[Run]], list[int]]:
    """Every method against so many made-up truths; sizes of their spaces."""
    studies = [load_study([*STUDY, *scenario]) for scenario in SCENARIOS[:num_seeds]]
    spaces = [build_space(study) for study in studies]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for seed in range(num_seeds):
        study, space = studies[seed % len(studies)], spaces[seed % len(studies)]
        truth, began = SurrogateTruth(study, space, seed), time.perf_counter()
        for name in names:
            truth.again()
            runs[name].append(run(study, space, truth, METHODS[name], num_starts, seed))
        print(f"truth {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    return runs, [len(space.configs) for space in spaces]


def on_recorded(names: Sequence[str], num_seeds: int) -> tuple[dict[str, list[Run]], list[RecordedTruth]]:
    """Every method against the recorded grid, under each SLO it is judged by; the seed is the search's own."""
    truths = recorded()
    runs = {
        name: [
            run(truth.study, truth.space, truth, METHODS[name], len(truth.space.configs), seed)
            for truth in truths
            for seed in range(num_seeds)
        ]
        for name in names
    }
    return runs, truths


def main() -> None:
    parser = argparse.ArgumentParser(description="Regret of ways to search, against known truths.")
    parser.add_argument("--seeds", type=int, default=20, help="truths, and searches on the recorded grid")
    parser.add_argument("--starts", type=int, default=20, help="engine starts of each search on a made-up truth")
    parser.add_argument("--method", action="append", choices=METHODS, help="only this one; may be given again")
    parser.add_argument("--recorded-only", action="store_true", help="leave the made-up truths out")
    options = parser.parse_args()
    names, console = options.method or list(METHODS), Console()
    grid_runs, truths = on_recorded(names, options.seeds)
    size = len(truths[0].space.configs)
    quarter = max(1, round(size / 4))
    caption = (
        f"regret: median (90th percentile) over {options.seeds} searches under each of "
        f"{', '.join(truth.study.slo.name for truth in truths)}, on {size} configs measured on GPUs"
    )
    result: dict[str, Any] = {
        "recorded": {"num_configs": size, "methods": show(console, grid_runs, (2, quarter, 6), caption)}
    }
    if not options.recorded_only:
        runs, sizes = on_surrogates(names, options.seeds, options.starts)
        caption = f"regret: median (90th percentile) over {options.seeds} truths of {sizes} configs"
        result["surrogate"] = {"num_configs": sizes, "methods": show(console, runs, CHECKPOINTS, caption)}
    print(json.dumps({"seeds": options.seeds, **result}))


if __name__ == "__main__":
    main()
