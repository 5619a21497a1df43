"""Rows and trials as programs of every schema version wrote them, kept byte for byte: they are read, and they join."""

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.columns import SCHEMA_VERSION
from pipeline.resume import study_of
from pipeline.store import Store
from pipeline.track.track import Asked, history_of, track
from tests.builders import make_slo

FROZEN = Path(__file__).parent / "data" / "schema_versions"
PRESENT = Store(Path(__file__).parents[1] / "results")
VERSIONS = range(1, SCHEMA_VERSION + 1)


def only_study(store: Store) -> str:
    (study,) = store.studies()
    return study


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_each_version_is_read_as_the_same_row_that_is_stored_today(version: int) -> None:
    """Whoever adds a version adds what the program of that version writes."""
    store = Store(FROZEN / str(version))
    study = only_study(store)
    files = sorted(store.study_dir(study).glob("*.parquet"))
    assert {int(pq.read_schema(file).metadata[b"schema_version"]) for file in files} == {version}
    later = {row.row_id: row for row in PRESENT.rows(study)}
    rows, trials = store.rows(study), {trial.trial_id: trial for trial in store.trials(study)}
    assert rows
    columns = set(pq.read_schema(next(store.study_dir(study).glob("row-*.parquet"))).names)
    for row in rows:
        same = {name: value for name, value in dataclasses.asdict(row).items() if name in columns}
        stored = dataclasses.asdict(later[row.row_id])
        moved = {"trace_file", "trace_sha256"}  # traces were compressed anew
        assert {name for name, value in same.items() if stored[name] != value} <= moved
        assert study_of(trials[row.trial_id]).model.name == row.model


@pytest.mark.parametrize("version", VERSIONS)
def test_old_rows_join_with_those_of_a_newer_release_and_stay_as_they_are(version: int, tmp_path: Path) -> None:
    shutil.copytree(FROZEN / str(version), tmp_path, dirs_exist_ok=True)
    store = Store(tmp_path)
    study = only_study(store)

    def digests() -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in store.study_dir(study).iterdir()}

    before, row, trial = digests(), store.rows(study)[0], store.trials(study)[0]
    newer: dict[str, Any] = {"trial_id": "newer", "engine_version": "9.9", "started_utc": "2026-11-29T12:00:00+00:00"}
    value = (row.output_tokens_per_joule or 0.0) * 1.5
    store.append(dataclasses.replace(row, row_id="newer", output_tokens_per_joule=value, **newer))
    store.append(dataclasses.replace(trial, **newer))
    found = track(history_of(store, [study], Asked()), make_slo(), Asked())
    (case,) = found.groups[0].cases
    assert (case.case_id, round(case.gain.ratio, 6)) == (row.case_id, 1.5)
    assert before.items() <= digests().items()  # appended, never changed
