"""Made-up histories of releases, cards and configs, as rows in a store: what is planted in them is known."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine_config import EngineConfig, canonical_json, content_hash
from pipeline.record import Row, Trial
from pipeline.resume import study_json
from pipeline.store import Store
from pipeline.study import Study
from pipeline.workload import OperatingPoint
from tests.builders import make_row, make_study, make_trial

STUDY = make_study("model=llama-3.1-8b", "hardware=h100", "engine=vllm", "precision=fp8", "parallelism=single",
                   "batching=default", "workload=chat_1k_1k", "plan=standard", "study=nightly")  # fmt: skip

BEGAN = datetime(2024, 6, 1, tzinfo=UTC)


def config(batch: int = 64, **more: Any) -> EngineConfig:
    """A config that is told from others by its largest batch."""
    return EngineConfig.from_axes("vllm", {"precision.weights": "fp8", "batching.max_batch_size": batch, **more})


@dataclasses.dataclass
class Builder:
    """Starts, one after the other, a day apart; written at the end."""

    study: Study = STUDY
    rows: list[Row] = dataclasses.field(default_factory=list)
    trials: list[Trial] = dataclasses.field(default_factory=list)

    def start(
        self,
        version: str,
        tokens_per_joule: Mapping[int, float],
        of: EngineConfig | None = None,
        *,
        card: str = "GPU-a",
        driver: str = "580",
        image: str | None = None,
        trial: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> "Builder":
        """One engine start with a window for each load."""
        of = of or config()
        study = dataclasses.replace(self.study, engine=dataclasses.replace(self.study.engine, image=image))
        began = (BEGAN + timedelta(days=len(self.trials))).isoformat()
        own = {"config_hash": of.config_hash, "config_json": canonical_json(of.requested()), "engine": "vllm",
               "engine_version": version, "study_id": study.id, "started_utc": began}  # fmt: skip
        made = make_trial(study_json=study_json(study), number=len(self.trials), **(own | dict(trial or {})))
        self.trials.append(made)
        for load, value in tokens_per_joule.items():
            measured = {
                "trial_id": made.trial_id, "case_id": study.case_id(of, OperatingPoint(concurrency=load)),
                "output_tokens_per_joule": value, "output_tokens_per_s": 100.0 * load, "power_w": 100.0 * load / value,
                "output_tokens_per_s_per_user": 1000 / load, "concurrency": load, "gpu_uuids": (card,),
                "driver_version": driver, "model": study.model.name, "hardware": study.hardware.name,
                "gpu_name": "NVIDIA H100", "workload": study.workload.name, "plan": study.plan.name,
                "power_limit_w": 700.0, "weights": study.weights, "ttft_p99_s": load / 1000,
            }  # fmt: skip
            self.rows.append(make_row(**(own | measured | columns)))
        return self

    def store(self, folder: Path) -> Store:
        """All of it in one study."""
        store = Store(folder)
        store.append_all(self.trials)
        if self.rows:
            store.append_all(self.rows)
        return store


@dataclasses.dataclass(frozen=True)
class Planted:
    """What happens in two years.

    Attributes:
        levels: Release -> factor on everything from then on, by a newer engine.
        driver: Release from which another driver runs, and the factor that this is.
        retuned: Release from which a better config is measured too, and its factor.
    """

    levels: Mapping[int, float]
    driver: tuple[int, float] | None = None
    retuned: tuple[int, float] | None = None


NOTHING = Planted(levels={})

NUM_RELEASES = 40
CARDS = ("GPU-a", "GPU-b", "GPU-c")
START_SD, WINDOW_SD, CARD_SD = 0.008, 0.007, 0.029
"""As measured (docs/measurement.md)."""


def two_years(planted: Planted, seed: int, loads: Sequence[int] = (8, 64)) -> Builder:
    """Each release on one of three cards, whichever is free: two configs, one start of each, a window at each load."""
    random = np.random.default_rng(seed)
    cards = dict(zip(CARDS, np.exp(random.normal(0, CARD_SD, len(CARDS))), strict=True))
    built = Builder()
    for release in range(NUM_RELEASES):
        level = float(np.prod([factor for since, factor in planted.levels.items() if since <= release]))
        has_driver = planted.driver is not None and planted.driver[0] <= release
        level *= planted.driver[1] if planted.driver and has_driver else 1.0
        configs = {64: 1.0, 128: 0.95}
        if planted.retuned and planted.retuned[0] <= release:
            configs[256] = planted.retuned[1]
        card = str(random.choice(CARDS))
        for batch, factor in configs.items():
            own = level * factor * cards[card] * np.exp(random.normal(0, START_SD))
            built.start(
                f"0.{release}.0",
                {load: float(own * (1 + load / 64) * np.exp(random.normal(0, WINDOW_SD))) for load in loads},
                config(batch),
                card=card,
                driver="590" if has_driver else "580",
                image=f"vllm@sha256:{content_hash(release) * 4}",
            )
    return built
