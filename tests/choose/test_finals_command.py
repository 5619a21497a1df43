import dataclasses
import shlex

from pipeline.choose.finals_command import finals_command
from pipeline.config import load_study
from pipeline.search.finalists import BY, num_final_starts, without_finals
from pipeline.search.proposal import REPEAT
from tests.builders import make_slo, make_study, make_trial
from tests.test_recompose import SERVED

STUDY = make_study(*SERVED)


def test_the_sweep_goes_on_with_finals_and_no_more_search() -> None:
    for num_searched in (2, 7, 31):
        trials = [make_trial(number=n, proposed_by="residual") for n in range(num_searched)]
        trials += [make_trial(number=num_searched, proposed_by=BY)]
        words = shlex.split(finals_command(STUDY, trials, STUDY.slo, num_nominees=2))
        assert words[:2] == ["tpw", "sweep"]
        again = load_study(words[2:])
        assert num_final_starts(again) == 1 + 3 * 3
        assert without_finals(again).search.budget_trials == num_searched
        assert again.id == STUDY.id


def test_the_slo_is_that_of_the_choice() -> None:
    slo = dataclasses.replace(make_slo(ttft_p99_s=0.5, tpot_p99_s=0.1), name="custom")
    words = shlex.split(finals_command(STUDY, [make_trial(proposed_by="prior")], slo, num_nominees=1))
    assert load_study(words[2:]).slo.bounds == slo.bounds


def test_one_config_that_was_repeated_is_repeated_on() -> None:
    study = make_study(*SERVED, "precision=fp8", "parallelism=single", "batching=default")
    study = dataclasses.replace(study, id="mine-gpu-0123abcd")
    words = shlex.split(finals_command(study, [make_trial(proposed_by=REPEAT)], study.slo, num_nominees=1))
    assert words[:2] == ["tpw", "repeatability"]
    again = load_study(words[2:])
    assert (again.id, again.plan.starts) == ("mine", 4)
