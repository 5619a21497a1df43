"""The command that measures the fresh starts a decision lacks."""

import math
import re
import shlex
from collections.abc import Sequence

from pipeline.choose.owed import CUSTOM
from pipeline.recompose import AGAIN, overrides_of
from pipeline.record import Trial
from pipeline.search.finalists import BY, MAX_FINALISTS
from pipeline.search.proposal import REPEAT
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from pipeline.workload import Slo

ROUNDS = 3
"""More fresh starts of each config that are asked for: from three each a difference of a few per cent shows."""


_GPU = re.compile(r"-gpu-[0-9a-f]{8}\Z")
"""What the command itself adds to the name of a study."""


def finals_command(study: Study, trials: Sequence[Trial], slo: Slo, num_nominees: int) -> str:
    """A `tpw` command that starts the best configs of a study afresh.

    Where one config was started again and again that goes on; else the sweep goes on with finals and no more search.

    Args:
        study: The winner's.
        trials: All of it.
        slo: What is owed now: it says which configs are the best.
        num_nominees: Configs that look alike.

    Raises:
        ConfigError: If the study cannot be composed again.
    """
    replaced = ("slo", "search.budget_trials=", "search.finals_share=", "plan.starts=")
    overrides = [each for each in overrides_of(study) if not each.startswith(replaced)]
    if all(trial.proposed_by == REPEAT for trial in trials):
        overrides = [_GPU.sub("", each) if each.startswith("study=") else each for each in overrides]
        return _shell("repeatability", [*overrides, *_slo(slo), f"plan.starts={len(trials) + ROUNDS}"])
    search = [*overrides, *_slo(slo)]
    done = [trial for trial in trials if trial.proposed_by != BY and trial.status is not TrialStatus.INTERRUPTED]
    num_fresh = sum(trial.proposed_by == BY for trial in trials)
    num_fresh += ROUNDS * (min(max(num_nominees, 2), MAX_FINALISTS) + 1)  # and the baseline
    num_searched = study.search.budget_trials if f"study={study.id}{AGAIN}" in overrides else len(done)
    budget = num_searched + num_fresh
    share = math.ceil((num_fresh + 0.5) / budget * 1000) / 1000  # int(budget x share) must not fall short by rounding
    return _shell("sweep", [*search, f"search.budget_trials={budget}", f"search.finals_share={share}"])


def _slo(slo: Slo) -> list[str]:
    """Of a choice of conf/ the name, else every bound."""
    if slo.name != CUSTOM:
        return [f"slo={slo.name}"]
    return [f"slo.{column}={bound:g}" for column, bound in slo.bounds.items()]


def _shell(command: str, overrides: Sequence[str]) -> str:
    return shlex.join(["tpw", command, *overrides])
