from pipeline.cli.finals import finals_lines
from tests.search.test_finalists import SEARCHED, Played, study


def test_a_winner_is_called_with_its_gain_on_the_baseline() -> None:
    played = Played(**SEARCHED)
    for name, value in (("better", 1.31), ("good", 1.2), ("baseline", 1.0), ("baseline", 1.01), ("good", 1.21),
                        ("better", 1.3)):  # fmt: skip
        played.start(name, value)
    lines = finals_lines(study(), played.trials, played.rows)
    assert lines[0] == "fresh starts of the finalists, 6 in all:"
    assert lines[1].startswith("  1.3 tok/J over 2 starts: tp=4, +29.9 % on the baseline (95 %: +")
    assert lines[3] == "  1 tok/J over 2 starts: tp=1 (the baseline)"
    assert lines[-1] == "  the best, by multiple comparison: tp=4"


def test_a_tie_is_called_one_and_too_few_starts_too_few() -> None:
    played = Played(**SEARCHED)
    played.start("better", 1.2)
    played.start("good", 1.2)
    assert finals_lines(study(), played.trials, played.rows)[-1].startswith("  too few to tell")
    played.start("good", 1.25)
    played.start("better", 1.24)
    assert finals_lines(study(), played.trials, played.rows)[-1].startswith("  a tie, by multiple comparison, of: tp=")


def test_without_fresh_starts_nothing_is_said() -> None:
    played = Played(**SEARCHED)
    assert finals_lines(study(), played.trials, played.rows) == []
