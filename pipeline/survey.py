"""Every feasible config of a modelled study: what costs nothing needs no search."""

from pipeline.record import Row, Trial
from pipeline.resume import check_same
from pipeline.rig.protocol import Rig
from pipeline.space import baseline_of, build_space
from pipeline.store import Store
from pipeline.study import Study
from pipeline.sweep import SweepProgress
from pipeline.trial import run_trial


def survey(study: Study, rig: Rig, store: Store, progress: SweepProgress) -> None:
    """Predict the baseline and every config of the space, or those drawn from it, and store all at the end.

    Raises:
        StoreError: If the study is being run by another process, or its files cannot be read or written.
        ConfigError: If no config is feasible, or the study of this name holds something else fixed.
    """
    space = build_space(study, rig.refusal)
    with store.lock(study.id):
        check_same(study, rig, store)
        stored = store.trials(study.id)
        known = {trial.config_hash for trial in stored}
        progress.note(space.describe())
        wanted = {each.config_hash: each for each in (baseline_of(study, space), *space.configs)}
        left = [config for config_hash, config in wanted.items() if config_hash not in known]
        kept, quiet = _Kept(), _Quiet()
        for number, config in enumerate(left, start=len(stored)):
            proposed_by = "baseline" if number == 0 else "survey"
            run_trial(study, rig, kept, config, number=number, proposed_by=proposed_by, earlier_rows=(), progress=quiet)
        if left:
            store.append_all(kept.rows)
            store.append_all(kept.trials)


class _Kept:
    """What run_trial would write, one file each, kept to be written as one."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.trials: list[Trial] = []

    def append(self, record: Row | Trial) -> None:
        if isinstance(record, Row):
            self.rows.append(record)
        else:
            self.trials.append(record)


class _Quiet:
    """Thousands of configs, each in a millisecond: there is nothing to watch."""

    def note(self, text: str) -> None: ...

    def phase(self, text: str) -> None: ...

    def row(self, row: Row) -> None: ...
