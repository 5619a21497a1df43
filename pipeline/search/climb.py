"""How far one start goes: its ladder, its time, and the score that it has to beat."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.grouping import grouped
from pipeline.record import Row, Trial
from pipeline.roofline.calibration import Calibration
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import predict_loads
from pipeline.score import score, usable, within
from pipeline.search.ladder import AdaptiveLadder, FixedLadder, Grid, Ladder
from pipeline.search.score_bound import ScoreBound, score_bound
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from pipeline.workload import OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a study is.

    Attributes:
        best: The best score of its finished trials; None without one.
        num_rows: Its usable rows.
    """

    best: float | None = None
    num_rows: int = 0

    @classmethod
    def of(cls, study: Study, trials: Sequence[Trial], rows: Sequence[Row]) -> "Standing":
        """By what is stored; scores are taken anew, under the SLO that is owed now."""
        finished = {trial.config_hash for trial in trials if trial.status is not TrialStatus.INTERRUPTED}
        by_config = grouped(rows, lambda row: row.config_hash)
        scores = [score(by_config.get(config_hash, ()), study.slo) for config_hash in finished]
        return cls(best=max((each for each in scores if each is not None), default=None), num_rows=len(usable(rows)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """The loads of one start.

    Attributes:
        study: What is held fixed.
        config: What is measured.
        ladder: Which loads come, in which order.
        budget_s: Time for all of them; None is as long as it takes.
        standing: The study when the start began; None where nothing is to be compared.
    """

    study: Study
    config: EngineConfig
    ladder: Ladder
    budget_s: float | None = None
    standing: Standing | None = None

    @classmethod
    def whole(cls, study: Study, config: EngineConfig) -> "Climb":
        """Every load of the workload, until one breaks the SLO."""
        return cls(study=study, config=config, ladder=FixedLadder(points=study.workload.ladder, slo=study.slo))

    @classmethod
    def of(
        cls, study: Study, config: EngineConfig, standing: Standing, calibration: Calibration | None = None
    ) -> "Climb":
        """As the search settings want it.

        Args:
            study: What is held fixed.
            config: What is measured.
            standing: The study now.
            calibration: Constants by which the first load is looked for; else those that the study names.

        Raises:
            ConfigError: If the calibration that the study names cannot be read.
        """
        climb = cls.whole(study, config)
        if study.search.ladder == "adaptive":
            grid = Grid.of(study.workload)
            ladder = AdaptiveLadder(grid=grid, slo=study.slo, first=first_load(study, config, grid, calibration))
            climb = dataclasses.replace(climb, ladder=ladder)
        return dataclasses.replace(climb, budget_s=study.search.ladder_budget_s, standing=standing)

    def next_load(self, rows: Sequence[Row], durations_s: Sequence[float]) -> OperatingPoint | None:
        """The load to measure next; None where the ladder is done, or another load would not fit into the budget.

        Args:
            rows: Of the config so far.
            durations_s: How long each load of this start took; the next is taken to be as long as the longest.
        """
        if self.budget_s is not None and durations_s and sum(durations_s) + max(durations_s) > self.budget_s:
            return None
        return self.ladder.next_load(rows)

    def bound(self, rows: Sequence[Row], num_new: int) -> ScoreBound | None:
        """The most that the config can score, see `score_bound`; None where nothing is to be compared.

        Args:
            rows: Of the config so far.
            num_new: Usable ones among them that the standing does not count.
        """
        if self.standing is None:
            return None
        num_rows = self.standing.num_rows + num_new
        return score_bound(self.study, self.config, rows, self.ladder.left(rows), num_rows)

    def beaten(self, bound: ScoreBound | None) -> str | None:
        """Why the trial need not go on, in words; None if it has to."""
        best = self.standing.best if self.standing else None
        if not self.study.search.prune or best is None or bound is None or bound.value >= best:
            return None
        return f"cannot win: at most {bound.value:.3g} tok/J (bound: {bound.by}), the best so far has {best:.3g}"


def first_load(
    study: Study, config: EngineConfig, grid: Grid, calibration: Calibration | None = None
) -> OperatingPoint:
    """Where the roofline expects the most tokens per joule under the SLO, among the coarse loads.

    The lightest where it expects the SLO to be broken at all of them, the middle where there is no model.
    """
    points = [grid.points[n] for n in sorted(grid.coarse)]
    if study.hardware.kind != "gpu":
        return points[len(points) // 2]
    constants = calibration or calibration_of(study)
    found = predict_loads(study.model, study.hardware, study.workload, config, points, constants)
    if isinstance(found, str):
        return points[len(points) // 2]
    met = [
        (each.output_tokens_per_joule, -point.load, point)
        for point, each in zip(points, found, strict=True)
        if each.ttft_s is not None and within(each.ttft_s, each.tpot_s, study.slo)
    ]
    return max(met, key=lambda each: each[:2])[2] if met else points[0]
