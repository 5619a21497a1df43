"""A grid that was measured for real, for `bench.search`: every config once, on GPUs told apart by an anchor config.

llama-3.1-8b with vLLM 0.24 on two H200s of one host: weights and cache bf16 or FP8, CUDA graphs or none, batches of 64
or 256. A config's rows are what any search would have seen; its score is the truth.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from pipeline.config import load_study
from pipeline.engine_config import EngineConfig
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.resume import stored_study
from pipeline.score import score
from pipeline.search.anchor import as_on_first_set
from pipeline.search.climb import Climb
from pipeline.space import build_space
from pipeline.store import Store
from pipeline.study import Study

STUDIES = ("h200-grid-llama-3.1-8b-gpu2", "h200-grid-llama-3.1-8b-gpu3")
ANCHOR_STUDIES = ("h200-grid-llama-3.1-8b-gpu0", "h200-grid-llama-3.1-8b-gpu1")
"""Another host of the same visit, where only the anchor was measured."""

SLOS = ("none", "interactive")
STORE = Store(Path(__file__).parents[1] / "results")


class RecordedTruth:
    """The grid under one SLO."""

    def __init__(self, study: Study, rows: Mapping[str, Sequence[Row]], trials: Mapping[str, Trial]) -> None:
        """Take the rows and the trial of each config, the anchor's first."""
        self.study, self._rows, self._trials = study, rows, trials
        anchor = next(iter(trials.values()))
        self.baseline = EngineConfig.from_axes(anchor.engine, json.loads(anchor.config_json))
        every = build_space(study)  # in the order of the axes
        measured = tuple(config for config in every.configs if config.config_hash in trials)
        self.space = dataclasses.replace(every, configs=measured)
        self.best = max(map(self.score, measured))

    def score(self, config: EngineConfig) -> float:
        """Measured tokens per joule at the best load that meets the SLO; 0 where none does."""
        return score(self._rows[config.config_hash], self.study.slo) or 0.0

    def rows(self, config: EngineConfig, trial_id: str, climb: Climb) -> list[Row]:
        """Rows as they were measured, as far as the ladder goes."""
        by_load = {row.load: row for row in self._rows[config.config_hash]}
        rows = list[Row]()
        while (point := climb.next_load(rows, ())) is not None:
            rows.append(dataclasses.replace(by_load[point.load], trial_id=trial_id))
        return rows

    def cost_s(self, config: EngineConfig, num_rows: int) -> float:
        """GPU-seconds that the start took, of its loads as many as were climbed."""
        trial = self._trials[config.config_hash]
        start_s = trial.start_s or 0.0
        return start_s + (trial.total_s - start_s) * num_rows / trial.num_rows

    def again(self) -> None:
        """There is no noise but what was measured."""


def recorded() -> list[RecordedTruth]:
    """The grid under each SLO, with tokens per joule as on its first GPU."""
    every = [trial for name in STUDIES for trial in STORE.trials(name)]
    anchor = Counter(trial.config_hash for trial in every).most_common(1)[0][0]
    first = {trial.config_hash: trial for trial in reversed(every)}
    trials = {anchor: first.pop(anchor), **dict(reversed(first.items()))}
    held, used = stored_study(STORE, STUDIES[0]), {trial.trial_id for trial in trials.values()}
    moved = as_on_first_set([row for name in STUDIES for row in STORE.rows(name)], anchor)
    own = [dataclasses.replace(row, study_id=held.id) for row in moved if row.trial_id in used]
    slos = [load_study([f"slo={name}", "study=bench"]).slo for name in SLOS]
    rows = grouped(own, attrgetter("config_hash"))
    return [RecordedTruth(dataclasses.replace(held, slo=slo), rows, trials) for slo in slos]
