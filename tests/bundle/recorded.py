"""Recorded trials and rows, and a TensorRT-LLM trial made up around what is really rendered."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.engine.catalog import find_engine
from pipeline.engine_config import EngineConfig
from pipeline.record import Row, Trial
from pipeline.repeat import only_config
from pipeline.resume import study_json, study_of
from pipeline.score import usable
from pipeline.store import Store
from pipeline.study import Study
from tests.builders import make_row, make_study, make_trial

RESULTS = Path(__file__).parents[2] / "results"
STUDIES = [name for name in Store(RESULTS).studies() if usable(Store(RESULTS).rows(name))]
RECORDED = "h200-qwen3-32b"
DECISION = {"schema_version": 1, "winner": "as chosen"}


def recorded(study_id: str = RECORDED) -> dict[str, Any]:
    """What `write_bundle` takes of a recorded study's first trial with a valid row."""
    store = Store(RESULTS)
    rows = store.rows(study_id)
    with_rows = {row.trial_id for row in usable(rows)}
    trial = next(trial for trial in store.trials(study_id) if trial.trial_id in with_rows)
    rows = [row for row in rows if row.config_hash == trial.config_hash]
    return {"study": study_of(trial), "trial": trial, "rows": rows, "decision": DECISION}


def trtllm_study(folder: Path, *overrides: str) -> Study:
    """A study of one TensorRT-LLM config."""
    study = make_study(
        "model=gpt-oss-120b", "hardware=b200", "engine=trtllm", "precision=fp4", "precision.kv_cache=fp8",
        "parallelism=single", "batching=default", "workload=chat_1k_1k", "study=made-up", *overrides,
    )  # fmt: skip
    axes = {key: values[:1] for key, values in study.axes.items()}
    return dataclasses.replace(study, axes=axes, engines_dir=str(folder / "engines"))


def made_up(study: Study, config: EngineConfig | None = None, **columns: Any) -> dict[str, Any]:
    """A trial of one row, as if it had been measured; its rendered_hash is real."""
    config = config or only_config(study)
    rendered = find_engine(study).render(config, study)
    shared = {
        "config_hash": config.config_hash, "config_json": json.dumps(config.requested()), "trial_id": "made-up-trial",
        "rendered_hash": rendered.rendered_hash, "engine_version": study.engine.version,
    }  # fmt: skip
    trial: Trial = make_trial(**shared, study_json=study_json(study), num_rows=1)
    row: Row = make_row(**shared, **columns)
    return {"study": study, "trial": trial, "rows": [row], "decision": DECISION}


def engine_folder(study: Study, content: str = '{"kernels": [1, 2]}') -> Path:
    """The engine folder that the made-up start left, its autotuner's cache in it; returns the start's folder."""
    start = Path(study.engines_dir) / "engine-id" / "starts" / "made-up-trial"
    start.mkdir(parents=True)
    (start / "autotuner_cache.json").write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    (start / "start.json").write_text(json.dumps({"autotuner_cache_sha256": {"autotuner_cache.json": digest}}))
    meta = {
        "image": "nvcr.io/x@sha256:" + "0" * 64,
        "model": {"revision": "abc", "checkpoint_hash": "0123456789abcdef"},
    }
    (start.parents[1] / "meta.json").write_text(json.dumps(meta))
    return start
