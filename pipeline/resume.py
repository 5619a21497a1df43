"""May rows be added to what is stored of a study, and what did a killed run leave behind?"""

from operator import attrgetter

from pydantic import TypeAdapter, ValidationError

from pipeline.engine_config import canonical_json
from pipeline.errors import ConfigError, StoreError
from pipeline.grouping import grouped
from pipeline.held import held
from pipeline.record import Trial
from pipeline.rig.protocol import Rig
from pipeline.store import Store
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus


def check_same(study: Study, rig: Rig, store: Store) -> None:
    """Refuse to put rows that cannot be compared into one study, which a name chosen by the user allows.

    Raises:
        ConfigError: If the stored trials hold something else fixed.
        StoreError: If what they held fixed cannot be read.
    """
    now = held(study) | {"engine_version": rig.engine_version}
    for trial in {(trial.study_json, trial.engine_version): trial for trial in store.trials(study.id)}.values():
        stored = held(study_of(trial))
        stored["engine_version"] = trial.engine_version or rig.engine_version  # unknown where no start succeeded
        for key in now | stored:
            if stored.get(key) != now.get(key):
                raise ConfigError(
                    f"{key}={now.get(key)}: study {study.id} has rows of {key}={stored.get(key)}; choose another name "
                    "with STUDY="
                )
    others = {row.gpu_uuids[0] for row in store.rows(study.id) if row.gpu_uuids} - {rig.first_gpu}
    if others and study.search.anchor_every is None:
        raise ConfigError(
            f"study {study.id} has rows of {others.pop()}, this run would use {rig.first_gpu}: identical cards differ "
            "by several per cent; choose that GPU with CUDA_VISIBLE_DEVICES, or another name with STUDY=, or measure "
            "the baseline on each with search.anchor_every=4"
        )


def study_of(trial: Trial) -> Study:
    """The study as stored with a trial.

    Raises:
        StoreError: If this version cannot read it.
    """
    try:
        return TypeAdapter(Study).validate_json(trial.study_json)
    except ValidationError as error:
        raise StoreError(
            f"study {trial.study_id} was made by version {trial.tool_version}, whose settings this one cannot read; "
            "choose another name with STUDY="
        ) from error


def stored_study(store: Store, study_id: str) -> Study:
    """The study as stored with its last trial.

    Raises:
        StoreError: If it has none yet, or this version cannot read it.
    """
    trials = store.trials(study_id)
    if not trials:
        raise StoreError(f"study {study_id}: no trial is complete yet")
    return study_of(trials[-1])


def adopt_orphans(study: Study, store: Store) -> None:
    """Give rows whose trial never finished (the process was killed) a trial record that says so."""
    trials = store.trials(study.id)
    known = {trial.trial_id for trial in trials}
    orphans = grouped((row for row in store.rows(study.id) if row.trial_id not in known), attrgetter("trial_id"))
    for number, (trial_id, rows) in enumerate(orphans.items(), start=len(trials)):
        last = rows[-1]
        store.append(
            Trial(
                trial_id=trial_id,
                study_id=study.id,
                number=number,
                status=TrialStatus.INTERRUPTED,
                reasons=("the sweep was killed",),
                config_hash=last.config_hash,
                config_json=last.config_json,
                proposed_by="unknown",
                rendered_hash=last.rendered_hash,
                engine=last.engine,
                engine_version=last.engine_version,
                evidence=last.evidence,
                num_rows=len(rows),
                slo=study.slo.name,
                started_utc=rows[0].started_utc,
                total_s=sum(row.window_s or 0.0 for row in rows),
                tool_version=last.tool_version,
                study_json=study_json(study),
            )
        )


def study_json(study: Study) -> str:
    """The whole study as canonical JSON."""
    return canonical_json(TypeAdapter(Study).dump_python(study, mode="json"))
