"""The loop: ask for a config, measure it, store what came of it, tell the search."""

from typing import Protocol

from pipeline.record import Trial
from pipeline.resume import adopt_orphans, check_same
from pipeline.rig.protocol import Rig
from pipeline.search.anchor import BY as ANCHOR
from pipeline.search.anchor import as_on_first_set, is_anchor_due
from pipeline.search.climb import Climb, Standing
from pipeline.search.finalists import BY, next_finalist, without_finals
from pipeline.search.prior import Prior
from pipeline.search.proposal import Proposal
from pipeline.search.recipe_seeds import recipe_seeds, widened
from pipeline.search.search import Search
from pipeline.search.transfer import elsewhere
from pipeline.space import baseline_of, build_space
from pipeline.store import Store
from pipeline.study import Study
from pipeline.trial import Progress, run_trial


class SweepProgress(Progress, Protocol):
    """Told what happens in a sweep; shows it or not."""

    def trial_began(self, number: int, num_done: int, proposal: Proposal) -> None:
        """A config is about to be started; so many have had their trial."""
        ...

    def trial_ended(self, trial: Trial) -> None:
        """A trial was stored."""
        ...


def sweep(study: Study, rig: Rig, store: Store, progress: SweepProgress) -> None:
    """Measure configs until the budget or the space is used up, the best ones afresh; resumes from what is stored.

    Raises:
        StoreError: If the study is being run by another process, or its files cannot be read or written.
        ConfigError: If no config is feasible, the folder of recipes cannot be read, or the study of this name holds
            something else fixed.
        KeyboardInterrupt: After the open trial was stored.
    """
    seeds = recipe_seeds(rig.study, rig.refusal)
    study = widened(study, (config for config, _ in seeds.configs))
    space = build_space(study, rig.refusal)
    with store.lock(study.id):
        check_same(study, rig, store)
        adopt_orphans(study, store)
        baseline, trials = baseline_of(study, space), store.trials(study.id)
        rows = as_on_first_set(store.rows(study.id), baseline.config_hash)
        for note in (*([space.describe()] if space.is_drawn else []), *seeds.notes):
            progress.note(note)

        def measure(proposal: Proposal) -> Trial:
            nonlocal trials, rows
            progress.trial_began(len(trials), search.num_done, proposal)
            is_final = proposal.proposed_by == BY  # nothing is cut short that is to be reported
            standing = Standing() if is_final else Standing.of(study, trials, rows)
            climb = Climb.of(study, proposal.config, standing, search.calibration)
            trial = run_trial(
                study, rig, store, proposal.config, number=len(trials), proposed_by=proposal.proposed_by,
                earlier_rows=proposal.earlier_rows, progress=progress, climb=climb,
            )  # fmt: skip
            trials, rows = [*trials, trial], as_on_first_set(store.rows(study.id), baseline.config_hash)
            progress.trial_ended(trial)
            return trial

        def measure_anchor() -> None:
            if trials and is_anchor_due(study, trials, rows, baseline, rig.first_gpu):
                measure(Proposal(config=baseline, proposed_by=ANCHOR))

        prior, others = Prior(study, space.configs), elsewhere(study, store)
        search = Search(without_finals(study), space, trials, rows, prior, seeds.configs, others)
        measure_anchor()
        for proposal in search.proposals():
            trial = measure(proposal)
            search.tell(trial, [row for row in rows if row.config_hash == trial.config_hash])
            if (learned := search.reconsider()) is not None:
                progress.note(learned)
            measure_anchor()
        while (config := next_finalist(study, trials, rows)) is not None:
            measure(Proposal(config=config, proposed_by=BY))
