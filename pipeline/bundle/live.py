"""Start a bundle again, measure its one load, and compare with the number that it promises."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.bundle.verify import read_facts
from pipeline.engine.catalog import find_engine
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.held import VERIFY
from pipeline.record import Row
from pipeline.rig.catalog import open_rig
from pipeline.rig.served import ServedRig
from pipeline.score import usable
from pipeline.store import Store
from pipeline.study import Study
from pipeline.trial import Progress, run_trial
from pipeline.workload import OperatingPoint

WIDE = 0.2
"""Of a half-width: starts of one config differ by a tenth of that on GPUs."""

BY = "verify"
"""Who proposes the trials here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A new start beside what the bundle promises.

    Attributes:
        study_id: The study that the new row is stored in.
        promised: Output tokens per joule of the bundle.
        measured: Of the new row; None if none is valid.
        ratio_low: 95 % bounds of the ratio measured / promised; None where there is no interval.
        ratio_high: The same above.
        differences: Why it does not agree, a line each; empty if it does.
        notes: What to know of the comparison.
    """

    study_id: str
    promised: float
    measured: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def measure_again(
    folder: Path,
    store: Store,
    engines_dir: Path,
    progress: Progress,
    *,
    python: str | None = None,
    model: str | None = None,
) -> Comparison:
    """Start what the bundle holds with the cache that it holds, and measure its load once.

    Args:
        folder: A bundle that `verify_bundle` found nothing wrong with.
        store: Gets the new row, in a study of its own.
        engines_dir: The start's folder goes below `verify/` there, away from caches of other starts.
        progress: Told each phase.
        python: Interpreter of the engine's environment, where it is not that of the measured start.
        model: The model, likewise.

    Raises:
        ConfigError: If the bundle cannot be started by this tool on this machine.
        EngineError: If its engine is not to be had here.
        MeterError: If there is nothing to meter.
    """
    facts = read_facts(folder)
    study, config = _study(folder, facts, store, engines_dir, python, model)
    head = facts["headline"]
    promised = float(head["output_tokens_per_joule"])
    rig = open_rig(study)
    rendered = find_engine(rig.study).render(config, rig.study)
    wrong = []
    if rig.engine_version != facts["versions"]["engine_version"]:
        wrong.append(f"engine: is {rig.engine_version} here, {facts['versions']['engine_version']} was measured")
    if rendered.rendered_hash != facts["rendered_hash"]:
        wrong.append(f"rendered_hash: is {rendered.rendered_hash} here, {facts['rendered_hash']} was measured")
    if wrong or not isinstance(rig, ServedRig):
        return Comparison(study_id=study.id, promised=promised, differences=tuple(wrong))
    rig.autotuner_cache = {each["file"]: (folder / each["file"]).read_bytes() for each in facts["autotuner_cache"]}
    trial = run_trial(rig.study, rig, store, config, number=0, proposed_by=BY, earlier_rows=(), progress=progress)
    rows = [row for row in store.rows(study.id) if row.trial_id == trial.trial_id]
    valid = usable(rows)
    if not valid:
        why = "; ".join(trial.reasons) or ", ".join(reason for row in rows for reason in row.reasons) or trial.status
        return Comparison(
            study_id=study.id, promised=promised, differences=(f"the new start gave no valid row: {why}",)
        )
    return compared(head, valid[0], study.id, facts["gpu_uuids"])


def compared(head: Mapping[str, Any], row: Row, study_id: str, gpu_uuids: list[str]) -> Comparison:
    """A valid row of a new start beside a bundle's headline.

    Of several starts the headline's interval says where one more is expected. Of one start it covers its window
    only, and so does the new row's: both add up, in squares, as of independent errors.
    """
    promised, measured = float(head["output_tokens_per_joule"]), float(row.output_tokens_per_joule or math.nan)
    rel, own = head["again_rel"], row.output_tokens_per_joule_rel_ci95
    if head["num_starts"] == 1:
        rel = None if rel is None or own is None else math.hypot(rel, own)
    notes = [f"the interval: {head['interval_of']}"]
    if gpu_uuids and set(gpu_uuids) != set(row.gpu_uuids):
        notes.append("these are other GPUs than those that were measured: identical cards differ by several per cent")
    if rel is not None and rel > WIDE:
        notes.append(f"it is a factor of {math.exp(rel):.3g} either way, so hardly anything falls outside")
    found = Comparison(study_id=study_id, promised=promised, measured=measured, notes=tuple(notes))
    if rel is None:
        return dataclasses.replace(found, differences=("there is no interval to compare by",))
    ratio = measured / promised
    low, high = ratio * math.exp(-rel), ratio * math.exp(rel)
    apart = () if low <= 1 <= high else (
        f"measured {measured:.4g} tok/J, promised {promised:.4g}: the ratio {ratio:.4g} ({low:.4g} to {high:.4g}) "
        "leaves out 1",
    )  # fmt: skip
    return dataclasses.replace(found, ratio_low=low, ratio_high=high, differences=apart)


def _study(
    folder: Path, facts: Mapping[str, Any], store: Store, engines_dir: Path, python: str | None, model: str | None
) -> tuple[Study, EngineConfig]:
    """The study as measured, of the one load, and the config.

    Raises:
        ConfigError: If this tool cannot start it, or cannot read the study.
    """
    if facts["num_machines"] > 1 or facts["rows"][0]["engine"] == "attached":
        raise ConfigError(
            f"{folder}: --live starts one server on this machine, and this is several; start {folder}/run.sh and "
            "measure it by tpw measure url=http://HOST:PORT gpus=..."
        )
    try:
        study = TypeAdapter(Study).validate_json(json.dumps(facts["study"]))
    except ValidationError as error:
        raise ConfigError(
            f"{folder}: was written by version {facts['written_by']}, whose study this cannot read; use that version"
        ) from error
    point = OperatingPoint(**facts["headline"]["point"])
    rates = () if point.request_rate_per_s is None else (point.request_rate_per_s,)
    load = dataclasses.replace(
        study.workload,
        concurrency=() if point.concurrency is None else (point.concurrency,),
        request_rate_per_s=rates,
    )
    settings = study.engine if python is None else dataclasses.replace(study.engine, python=python)
    return dataclasses.replace(
        study,
        id=f"{VERIFY}{facts['name']}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
        workload=load,
        engine=dataclasses.replace(settings, version=None),
        model=study.model if model is None else dataclasses.replace(study.model, path=model),
        plan=dataclasses.replace(study.plan, windows=1),
        results_dir=str(store.results_dir),
        engines_dir=str(engines_dir / "verify"),
    ), EngineConfig.from_axes(study.engine.name, facts["config"])
