"""The last starts of a budget, on made-up trials of three configs and a baseline."""

import dataclasses
import random

import pytest

from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.record import Row, Trial
from pipeline.search.finalists import BY, finalists, finals, next_finalist, num_final_starts
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from tests.builders import MODELLED, make_row, make_study, make_trial, with_search

CONFIGS = {
    name: EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": tp})
    for name, tp in {"baseline": 1, "good": 2, "better": 4, "bad": 8}.items()
}
NAMES = {config.config_hash: name for name, config in CONFIGS.items()}


def study(budget: int = 50, share: float = 0.2) -> Study:
    held = with_search(make_study(*MODELLED), budget_trials=budget, finals_share=share)
    return dataclasses.replace(held, rig="served")


class Played:
    """Stored trials and rows, one start after the other."""

    def __init__(self, **searched: float) -> None:
        self.trials: list[Trial] = []
        self.rows: list[Row] = []
        for name, value in searched.items():
            self.start(name, value, by="baseline" if name == "baseline" else "residual")

    def start(self, name: str, value: float | None, by: str = BY, status: TrialStatus = TrialStatus.OK) -> None:
        config = CONFIGS[name]
        trial = make_trial(
            number=len(self.trials), config_hash=config.config_hash, status=status, proposed_by=by,
            config_json=canonical_json(config.requested()),
        )  # fmt: skip
        self.trials.append(trial)
        if value is not None:
            self.rows.append(
                make_row(config_hash=config.config_hash, trial_id=trial.trial_id, output_tokens_per_joule=value)
            )

    def next(self, held: Study) -> str | None:
        config = next_finalist(held, self.trials, self.rows)
        return None if config is None else NAMES[config.config_hash]


def names(played: Played) -> list[str]:
    return [NAMES[config.config_hash] for config in finalists(study(), played.trials, played.rows)]


SEARCHED = {"baseline": 1.0, "good": 1.2, "better": 1.22, "bad": 0.5}


@pytest.mark.parametrize(
    ("budget", "share", "rig", "kept"),
    [(10, 0.2, "served", 2), (4, 0.2, "served", 0), (10, 0.0, "served", 0), (50, 0.2, "modelled", 0)],
)
def test_a_share_of_the_budget_is_kept_where_starts_can_differ(budget: int, share: float, rig: str, kept: int) -> None:
    assert num_final_starts(dataclasses.replace(study(budget, share), rig=rig)) == kept  # type: ignore[arg-type]


def test_those_near_the_best_and_the_baseline_are_finalists() -> None:
    played = Played(**SEARCHED)
    assert [NAMES[c.config_hash] for c in finalists(study(), played.trials, played.rows)] == [
        "better",
        "good",
        "baseline",
    ]


def test_the_luck_of_fresh_starts_does_not_choose_who_is_a_finalist() -> None:
    played = Played(**SEARCHED)
    played.start("good", 0.3)
    assert [NAMES[c.config_hash] for c in finalists(study(), played.trials, played.rows)] == [
        "better",
        "good",
        "baseline",
    ]


def test_they_run_in_turns_there_and_back() -> None:
    played, held, order = Played(**SEARCHED), study(), []
    for value in (1.2, 1.21, 1.0, 1.19, 1.2, 1.21):
        name = played.next(held)
        assert name is not None
        order.append(name)
        played.start(name, value)
    assert order == ["better", "good", "baseline", "baseline", "good", "better"]


def test_it_ends_when_one_is_known_to_be_best() -> None:
    played, held, chooser = Played(**SEARCHED), study(), random.Random(1)  # noqa: S311  # no secret
    truth, num = {"better": 1.3, "good": 1.2, "baseline": 1.0}, 0
    while (name := played.next(held)) is not None:
        played.start(name, truth[name] * chooser.gauss(1, 0.005))
        num += 1
    found = finals(held, played.trials, played.rows)
    assert num == 6
    assert found.is_decided
    assert [NAMES[key] for key in found.tied] == ["better"]


def test_it_ends_with_the_budget_and_a_tie() -> None:
    played, held, chooser = Played(**SEARCHED), study(), random.Random(1)  # noqa: S311  # no secret
    num = 0
    while (name := played.next(held)) is not None:
        played.start(name, 1.2 * chooser.gauss(1, 0.02))
        num += 1
    assert num == num_final_starts(held) == 10
    assert len(finals(held, played.trials, played.rows).tied) > 1


def test_a_start_that_was_interrupted_is_made_again_and_one_that_failed_rules_its_config_out() -> None:
    played, held = Played(**SEARCHED), study()
    assert played.next(held) == "better"
    played.start("better", 1.2, status=TrialStatus.INTERRUPTED)
    assert played.next(held) == "better"
    played.start("better", None, status=TrialStatus.START_FAILED)
    assert played.next(held) == "good"
    for name in ("good", "baseline", "baseline", "good"):
        played.start(name, 1.1)
    assert CONFIGS["better"].config_hash not in finals(held, played.trials, played.rows).scores


def test_without_a_rival_there_is_no_final() -> None:
    assert Played(baseline=1.0).next(study()) is None
    assert Played().next(study()) is None
