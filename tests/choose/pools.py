"""Pools of made-up configs: what each start of each gives at each load."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.choose.conditions import Pool
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.resume import study_json
from pipeline.search.finalists import BY
from pipeline.vocabulary import TrialStatus
from tests.builders import MODELLED, make_row, make_study, make_trial

STUDY = make_study(*MODELLED)

Ladder = Mapping[int, tuple[float, float]]
"""Load -> tokens per joule, tokens per second."""


def config(tp: int = 1, **more: Any) -> EngineConfig:
    """A config that is told from others by its tp."""
    axes: dict[str, Any] = {"precision.weights": "fp4", "parallelism.tp": tp}
    axes |= {key.replace("__", "."): value for key, value in more.items()}
    return EngineConfig.from_axes("trtllm", axes)


def steady(tokens_per_joule: float, tokens_per_s: float = 1000.0) -> Ladder:
    """A ladder whose heavier load is twice as fast and twice as efficient."""
    return {8: (tokens_per_joule / 2, tokens_per_s / 2), 64: (tokens_per_joule, tokens_per_s)}


class Pools:
    """Rows and trials, one start after the other."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.trials: dict[str, Any] = {}

    def start(
        self, of: EngineConfig, ladder: Ladder, by: str = BY, status: TrialStatus = TrialStatus.OK, **columns: Any
    ) -> None:
        number = len(self.trials)
        own = {"config_hash": of.config_hash, "config_json": canonical_json(of.requested())}
        trial = make_trial(
            number=number, proposed_by=by, status=status, study_json=study_json(STUDY),
            started_utc=f"2026-01-01T00:{number:02}:00.000+00:00", **own,
        )  # fmt: skip
        self.trials[trial.trial_id] = trial
        for load, (tokens_per_joule, tokens_per_s) in ladder.items():
            measured = {
                "output_tokens_per_joule": tokens_per_joule, "output_tokens_per_s": tokens_per_s,
                "power_w": tokens_per_s / tokens_per_joule, "ttft_p99_s": load / 1000, "tpot_p50_s": load / 1000,
                "output_tokens_per_s_per_user": 1000 / load, "concurrency": load, "num_gpus": of.parallelism.num_gpus,
            }  # fmt: skip
            self.rows.append(make_row(trial_id=trial.trial_id, **own, **(measured | columns)))

    def starts(self, of: EngineConfig, values: Sequence[float], **more: Any) -> "Pools":
        """A fresh start for each value of tokens per joule."""
        for value in values:
            self.start(of, steady(value), **more)
        return self

    @property
    def pool(self) -> Pool:
        held = {"evidence": "measured", "weights": "checkpoint"}
        return Pool(rows=tuple(self.rows), invalid=(), trials=self.trials, conditions=held, gpu_uuids=())
