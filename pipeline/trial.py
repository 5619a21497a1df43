"""One config: start it once, climb the ladder of loads, store every row as its window closes, then the trial.

A config that fails is a record, not a crash. Whatever happens inside, the engine is stopped and the trial is
written; Ctrl-C is passed on after that.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Protocol

from pipeline import __version__
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.errors import LoadError
from pipeline.record import Row, Trial
from pipeline.resume import study_json
from pipeline.rig.protocol import Rig, Start, TrialError
from pipeline.score import score, usable
from pipeline.search.climb import Climb
from pipeline.search.score_bound import ScoreBound
from pipeline.store import new_id
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus


class Progress(Protocol):
    """Told what happens in a trial; shows it or not."""

    def note(self, text: str) -> None:
        """Something the user should know."""
        ...

    def phase(self, text: str) -> None:
        """A new phase began."""
        ...

    def row(self, row: Row) -> None:
        """A row was stored."""
        ...


class Sink(Protocol):
    """Where rows and the trial go, one at a time: a `Store`, or what keeps them for one."""

    def append(self, record: Row | Trial) -> object:
        """Take one."""
        ...


def run_trial(  # noqa: PLR0913  # what is measured, with what, and whom to tell
    study: Study,
    rig: Rig,
    store: Sink,
    config: EngineConfig,
    *,
    number: int,
    proposed_by: str,
    earlier_rows: Sequence[Row],
    progress: Progress,
    climb: Climb | None = None,
) -> Trial:
    """Measure one config and store what came of it.

    Args:
        study: What is held fixed.
        rig: How rows are got.
        store: Where they go.
        config: What to measure.
        number: Position in the study.
        proposed_by: baseline, prior, or the sampler's name.
        earlier_rows: Usable rows of this config from a start that was interrupted; their loads are not repeated.
        progress: Told each phase and row.
        climb: Which loads, and what ends them; None: all of the workload's.

    Returns:
        The trial as stored.

    Raises:
        KeyboardInterrupt: After the trial was stored as interrupted.
        SystemExit: The same.
        PipelineError: If something must be mended first (a port taken, a GPU in use, the disk full): it says nothing
            about this config, which therefore gets no record.
    """
    trial_id, began, began_utc = new_id(), time.monotonic(), _now_utc()
    earlier = usable(earlier_rows)
    rows = list(earlier)
    climb = climb or Climb.whole(study, config)
    start: Start | None = None
    bound: ScoreBound | None = None
    beaten: str | None = None

    def finish(status: TrialStatus, reasons: tuple[str, ...] = (), log_tail: tuple[str, ...] = ()) -> Trial:
        trial = Trial(
            trial_id=trial_id,
            study_id=study.id,
            number=number,
            status=status,
            reasons=reasons,
            log_tail=log_tail,
            config_hash=config.config_hash,
            config_json=canonical_json(config.requested()),
            proposed_by=proposed_by,
            engine=config.engine,
            num_rows=len(rows) - len(earlier),
            score=score(rows, study.slo),
            slo=study.slo.name,
            score_bound=bound.value if bound else None,
            score_bound_by=bound.by if bound else None,
            started_utc=began_utc,
            total_s=time.monotonic() - began,
            tool_version=__version__,
            study_json=study_json(study),
            evidence=rows[-1].evidence if rows else None,
            **_start_columns(start),
        )
        store.append(trial)
        return trial

    for doubt in rig.doubts(config):
        progress.note(f"doubtful: {doubt}")
    try:
        with rig.start(config, trial_id, progress.phase) as session:
            start = session.start
            durations_s = list[float]()
            while not beaten and (point := climb.next_load(rows, durations_s)) is not None:
                load_began = time.monotonic()
                with closing(session.measure(point, progress.phase)) as windows:
                    for row in windows:
                        store.append(row)
                        rows.append(row)
                        progress.row(row)
                durations_s.append(time.monotonic() - load_began)
                latest = climb.bound(rows, len(usable(rows)) - len(earlier))
                beaten = climb.beaten(latest)
                bound = latest if beaten else bound or latest
    except TrialError as failure:
        start = start or failure.start
        return finish(failure.status, (str(failure),), failure.log_tail)
    except LoadError as failure:
        return finish(TrialStatus.LOAD_FAILED, (str(failure),))
    except (KeyboardInterrupt, SystemExit):
        finish(TrialStatus.INTERRUPTED, ("stopped before it was complete",))
        raise
    return finish(TrialStatus.PRUNED, (beaten,)) if beaten else finish(TrialStatus.OK)


def _start_columns(start: Start | None) -> dict[str, Any]:
    if start is None:
        return {}
    return {
        "rendered_hash": start.rendered_hash,
        "effective_hash": start.effective_hash,
        "effective_json": canonical_json(start.effective) if start.effective else None,
        "argv_json": canonical_json(start.argv) if start.argv else None,
        "engine_version": start.engine_version,
        "start_s": start.start_s,
        "start_energy_j": start.start_energy_j,
    }


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
