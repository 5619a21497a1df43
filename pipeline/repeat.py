"""One config, started afresh again and again: how far does the same measurement agree with itself?"""

import dataclasses

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.resume import adopt_orphans, check_same
from pipeline.rig.protocol import Rig
from pipeline.score import usable
from pipeline.search.proposal import REPEAT, Proposal
from pipeline.store import Store
from pipeline.study import Study
from pipeline.sweep import SweepProgress
from pipeline.trial import run_trial
from pipeline.vocabulary import TrialStatus


def repeat(study: Study, rig: Rig, store: Store, progress: SweepProgress, *, only_once: bool = False) -> None:
    """Start one config afresh until the study has `plan.starts` starts with a valid row; resumes from what is stored.

    A start that fails counts as an attempt: as many attempts as starts are made in one run.

    Raises:
        StoreError: If the study is being run by another process, or its files cannot be read or written.
        ConfigError: If the axes span several configs, the engine cannot be given it, or the study of this name holds
            something else fixed.
        KeyboardInterrupt: After the open trial was stored.
    """
    config = only_config(study)
    if reason := rig.refusal(config):
        raise ConfigError(reason)
    with store.lock(study.id):
        check_same(study, rig, store)
        adopt_orphans(study, store)
        trials = store.trials(study.id)
        with_rows = {row.trial_id for row in usable(store.rows(study.id))}
        num_good = sum(trial.status is TrialStatus.OK and trial.trial_id in with_rows for trial in trials)
        num_left = 1 if only_once else study.plan.starts - num_good
        for done in range(num_left):
            number = len(trials) + done
            progress.trial_began(
                number, done if only_once else num_good + done, Proposal(config=config, proposed_by=REPEAT)
            )
            progress.trial_ended(
                run_trial(
                    study, rig, store, config, number=number, proposed_by=REPEAT, earlier_rows=(), progress=progress
                )
            )


def measure_once(study: Study, rig: Rig, store: Store, progress: SweepProgress) -> None:
    """Start one config once more, whatever is stored; raises as `repeat` does."""
    repeat(study, rig, store, progress, only_once=True)


def only_config(study: Study) -> EngineConfig:
    """The config of a study whose axes have one value each.

    Raises:
        ConfigError: If an axis has several.
    """
    several = [
        f"{key}=[{','.join('null' if value is None else str(value) for value in values)}]"
        for key, values in study.axes.items()
        if len(values) > 1
    ]
    if several:
        raise ConfigError(f"{', '.join(several)}: one configuration is measured; give one value each")
    return EngineConfig.from_axes(study.engine.name, {key: value for key, (value,) in study.axes.items()})


def on_gpu(study: Study, first_gpu: str | None) -> Study:
    """The study under a name that holds the GPU, since one study holds rows of one set of cards."""
    return study if first_gpu is None else dataclasses.replace(study, id=f"{study.id}-{first_gpu[:12].lower()}")
