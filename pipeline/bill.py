"""What a search cost, from its stored trials and rows alone, and how soon the gain repays it.

Every second of a trial belongs to one phase, and every joule says how it came about: a meter's, that of the window
next to it, or idle power, which is the least that it can have been. Failed trials cost too; modelled ones nothing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Self

from pipeline.engine_config import EngineConfig
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.score import best_row, score
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence
from pipeline.workload import Slo


class Phase(StrEnum):
    """What a trial's time went into; idle is the rest of it: checks, stopping, and what came before a failure."""

    START = "start"
    WARMUP = "warm-up"
    WINDOW = "window"
    IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Time and energy of one phase, or of several: they add up.

    Attributes:
        time_s: Wall clock.
        device_s: The same times the GPUs that were reserved; of a CPU, times one machine.
        measured_j: By a meter's reading over that very time.
        estimated_j: By a declared watts model, or by the power of the window that follows.
        least_j: By idle power, where nothing better is known: a lower bound.
        unknown_s: Part of `time_s` of whose energy nothing is known, not even idle power.
    """

    time_s: float = 0.0
    device_s: float = 0.0
    measured_j: float = 0.0
    estimated_j: float = 0.0
    least_j: float = 0.0
    unknown_s: float = 0.0

    def __add__(self, other: Self) -> "Spent":
        """Both."""
        return Spent(
            time_s=self.time_s + other.time_s,
            device_s=self.device_s + other.device_s,
            measured_j=self.measured_j + other.measured_j,
            estimated_j=self.estimated_j + other.estimated_j,
            least_j=self.least_j + other.least_j,
            unknown_s=self.unknown_s + other.unknown_s,
        )

    @property
    def energy_j(self) -> float | None:
        """All joules that are known of; None where there are none, though time was spent."""
        known_j = self.measured_j + self.estimated_j + self.least_j
        return None if known_j == 0 and self.time_s > 0 else known_j

    @property
    def is_least(self) -> bool:
        """Whether the energy is a lower bound."""
        return self.least_j > 0 or self.unknown_s > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What the trials of a study spent.

    Attributes:
        boundary: What the joules cover.
        phases: All of them, in the order of a trial.
        num_trials: Trials that are in it, unfinished ones included.
        num_failed: Of these, those that failed.
        num_unfinished: Of these, those that run still or were killed: only their warm-ups and windows are known.
    """

    boundary: Boundary
    phases: dict[Phase, Spent]
    num_trials: int
    num_failed: int
    num_unfinished: int

    @property
    def total(self) -> Spent:
        """All phases together."""
        return sum(self.phases.values(), start=Spent())


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineGain:
    """What the best config gains over the baseline, both measured.

    Attributes:
        ratio: Score of the best config / score of the baseline: output tokens per joule at the SLO.
        baseline_power_w: Mean power of the baseline per device, at its best load that meets the SLO.
    """

    ratio: float
    baseline_power_w: float

    @property
    def saved_w(self) -> float:
        """Power that a device of the fleet saves: as many tokens as before take 1 / ratio of the energy."""
        return self.baseline_power_w * (1 - 1 / self.ratio)


def bill(study: Study, trials: Sequence[Trial], rows: Sequence[Row]) -> Bill | None:
    """What a study spent; None where nothing was started: it is modelled or imported, or has no trial.

    The phases of a trial add up to its `total_s`; of one that was killed, to the warm-up and windows it had.

    Args:
        study: Says what a device draws doing nothing.
        trials: All of them.
        rows: All of them; some may be of a trial that left no record.
    """
    if study.rig == "modelled":
        return None
    own = grouped(sorted(rows, key=attrgetter("started_utc")), attrgetter("trial_id"))
    imported = {row.trial_id for row in rows if row.origin != "own"}
    known = {trial.trial_id: trial for trial in trials}
    ids = [trial_id for trial_id in {**known, **own} if trial_id not in imported]
    if not ids:
        return None
    phases = dict.fromkeys(Phase, Spent())
    num_failed = num_unfinished = 0
    for trial_id in ids:
        trial, windows = known.get(trial_id), own.get(trial_id, [])
        for phase, spent in _of_trial(study, trial, windows):
            phases[phase] += spent
        num_failed += trial is not None and trial.status.is_failure
        num_unfinished += study.engine.name != "attached" and bool(windows) and (trial is None or trial.start_s is None)
    return Bill(
        boundary=Boundary.GPU if study.hardware.kind == "gpu" else Boundary.CPU,
        phases=phases,
        num_trials=len(ids),
        num_failed=num_failed,
        num_unfinished=num_unfinished,
    )


def baseline_gain(rows: Sequence[Row], trials: Sequence[Trial], slo: Slo) -> BaselineGain | str:
    """The gain of the best config over that of trial 0, the baseline; or why it cannot be told.

    Only measured rows of our own count, and only those of the baseline's boundary and weights.
    """
    first = min(trials, key=attrgetter("number"), default=None)
    measured = [row for row in rows if row.evidence is Evidence.MEASURED and row.origin == "own"]
    if first is None or not measured:
        return "no row is measured"
    kind = attrgetter("boundary", "weights")
    configs = grouped(measured, attrgetter("config_hash"))
    theirs = configs.get(first.config_hash, [])
    base, base_score = best_row(theirs, slo), score(theirs, slo)
    if base is None or not base_score or base.power_w is None:
        return f"no measured row of the baseline meets slo={slo.name}"
    alike = (score([row for row in group if kind(row) == kind(base)], slo) for group in configs.values())
    best_score = max(value for value in alike if value is not None)
    return BaselineGain(ratio=best_score / base_score, baseline_power_w=base.power_w / max(1, base.num_gpus))


def payback_device_s(energy_j: float, gain: BaselineGain) -> float | None:
    """For how long one device must serve to repay a search, energy / saved power, seconds; None without a gain.

    A fleet of ceil(this / 86400 s) devices repays it within a day.

    Args:
        energy_j: What the search spent.
        gain: Of the best config over the baseline.
    """
    return energy_j / gain.saved_w if gain.saved_w > 0 else None


def _of_trial(study: Study, trial: Trial | None, rows: Sequence[Row]) -> Iterator[tuple[Phase, Spent]]:
    """The phases of one trial.

    Args:
        study: As for `bill`.
        trial: None where it was killed.
        rows: Those of this trial, in order of time.
    """
    num_devices = max(1, rows[0].num_gpus if rows else _num_gpus(study, trial))
    idle_w = study.hardware.idle_power_w if study.hardware.kind == "gpu" else study.hardware.declared_idle_w

    def spent(time_s: float, energy_j: float | None, *, is_measured: bool) -> Spent:
        """What this time took; by idle power where its energy is not known."""
        least_j = 0.0 if energy_j is not None or idle_w is None else idle_w * num_devices * time_s
        return Spent(
            time_s=time_s,
            device_s=time_s * num_devices,
            measured_j=energy_j if energy_j is not None and is_measured else 0.0,
            estimated_j=energy_j if energy_j is not None and not is_measured else 0.0,
            least_j=least_j,
            unknown_s=time_s if energy_j is None and idle_w is None else 0.0,
        )

    used_s = 0.0
    if trial is not None:
        # One that neither got ready nor measured anything spent all of its time on starting.
        start_s = (0.0 if rows else trial.total_s) if trial.start_s is None else trial.start_s
        is_metered = trial.evidence is Evidence.MEASURED
        yield Phase.START, spent(start_s, trial.start_energy_j, is_measured=is_metered)
        used_s += start_s
    for row, lead_s in zip(rows, _leads_s(rows), strict=True):
        window_s, power_w = row.window_s or 0.0, row.power_w
        loaded_j = None if power_w is None else lead_s * power_w
        yield Phase.WARMUP, spent(lead_s, loaded_j, is_measured=False)
        window_j = None if power_w is None else window_s * power_w
        yield Phase.WINDOW, spent(window_s, window_j, is_measured=row.energy_evidence is Evidence.MEASURED)
        used_s += lead_s + window_s
    if trial is not None:
        yield Phase.IDLE, spent(max(0.0, trial.total_s - used_s), None, is_measured=False)


def _num_gpus(study: Study, trial: Trial | None) -> int:
    """Devices that a trial without rows reserved."""
    if trial is None or study.hardware.kind != "gpu":
        return 0
    return EngineConfig.from_axes(trial.engine, json.loads(trial.config_json)).parallelism.num_gpus


def _leads_s(rows: Sequence[Row]) -> Iterator[float]:
    """For each row of a trial, the time under its load that was in no window before it.

    `warmup_s` counts from where the load began, so that of a later window under one load holds the earlier ones.
    """
    previous: Row | None = None
    end_s = 0.0
    for row in rows:
        warmup_s = row.warmup_s or 0.0
        goes_on = previous is not None and previous.load == row.load and warmup_s >= end_s
        yield warmup_s - end_s if goes_on else warmup_s
        previous, end_s = row, warmup_s + (row.window_s or 0.0)
