"""A made-up truth for `bench.search`: the roofline of a model and GPU, wrong in every way that is thought of.

Every constant is off by a factor (10 %), every structural cell by another (12 %), every value of every knob and
scheduler limit by a third (6 %), and starts fail where little memory is left.
"""

import dataclasses
from typing import Any

import numpy as np

from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.record import Row
from pipeline.roofline.calibration import CONSTANTS, SHIPPED
from pipeline.roofline.memory import kv_pool_bytes, published
from pipeline.roofline.predict import Prediction, predict_loads
from pipeline.score import within
from pipeline.search.climb import Climb
from pipeline.search.ladder import loads_of
from pipeline.space import Space, engine_default
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, RowStatus
from pipeline.workload import OperatingPoint

CONSTANT_SD, CELL_SD, KNOB_SD, NOISE_SD = 0.10, 0.12, 0.06, 0.02
"""Of logs: errors of the model's constants, of structural cells, of knobs; of one measured row."""

MIN_POOL_SHARES = (0.0, 0.1)
"""Of memory that must be left for the cache, or the start fails: drawn per truth."""

START_S, LOAD_S, FAILED_S = 150.0, 32.0, 60.0
"""GPU-seconds of a start, of a load point, and of a start that fails. Source: docs/measurement.md and `tpw plan`."""

STRUCTURE = ("precision.", "parallelism.")


class SurrogateTruth:
    """What would be measured, were there no noise."""

    def __init__(self, study: Study, space: Space, seed: int) -> None:
        self._study = study
        self._noise = np.random.default_rng(seed)
        factors = {name: float(np.exp(self._noise.normal(0, CONSTANT_SD))) for name in CONSTANTS}
        off: dict[str, Any] = {
            name: float(np.clip(getattr(SHIPPED, name) * factors[name], low, high))
            for name, (_, low, high) in CONSTANTS.items()
        }
        self._constants = dataclasses.replace(SHIPPED, id="truth", **off)
        self._factors: dict[tuple[str, str], float] = {}
        self._points = loads_of(study)
        self._loads: dict[object, dict[OperatingPoint, Prediction] | None] = {}
        self._seed = seed
        self._min_pool = float(self._noise.uniform(*MIN_POOL_SHARES))
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
            factor = self._factor(config) * float(np.exp(self._noise.normal(0, NOISE_SD)))
            rows.append(self._row(config, f"{trial_id}-{len(rows)}", point, loads[point], factor))
        return rows

    def again(self) -> None:
        """Let the next search meet the same noise."""
        self._noise = np.random.default_rng(self._seed)

    def cost_s(self, config: EngineConfig, num_rows: int) -> float:
        """GPU-seconds of a start with so many loads; of one that fails, without any."""
        return config.parallelism.num_gpus * (START_S + LOAD_S * num_rows if num_rows else FAILED_S)

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
