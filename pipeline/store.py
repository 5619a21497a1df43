"""Plain Parquet files, one per row and one per trial, and the only truth there is.

    results/trials/study=<id>/row-<row_id>.parquet      written when its window closes
    results/trials/study=<id>/trial-<trial_id>.parquet  written last: the trial is complete
    (a survey writes the rows of all its configs to one file, then all its trials, each named after its first)
    results/traces/study=<id>/<row_id>.parquet          requests and energy readings behind the row

A file is written to a temporary name in its folder, fsynced and renamed, so that a kill at any moment leaves
whole files only. Names are unique, so two machines' folders merge by copying.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import SCHEMA_VERSION
from pipeline.errors import StoreError
from pipeline.record import Row, Trial

R = TypeVar("R", Row, Trial)

COMPRESSION_LEVEL = 17
"""Of zstd: a trace of a minute takes 0.1 s. Level 19 saves another 0.4 % and takes two and a half times as long."""


def new_id() -> str:
    """A unique id for a trial or a row, short enough to type."""
    return uuid.uuid4().hex[:12]


class Store:
    """Append to and read from one results folder."""

    def __init__(self, results_dir: Path) -> None:
        """Remember the folder; it is made at the first write."""
        self.results_dir = results_dir

    def study_dir(self, study_id: str) -> Path:
        """Where the rows and trials of a study lie."""
        return self.results_dir / "trials" / f"study={study_id}"

    def append(self, record: Row | Trial) -> Path:
        """Write one record to a file of its own.

        Raises:
            StoreError: If the folder cannot be written, or a value breaks the schema.
        """
        return self.append_all([record])

    def append_all(self, records: Sequence[Row | Trial]) -> Path:
        """Write records of one kind and study to one file, named after the first.

        Raises:
            StoreError: If the folder cannot be written, or a value breaks the schema.
        """
        first = records[0]
        name, key = ("row", first.row_id) if isinstance(first, Row) else ("trial", first.trial_id)
        path = self.study_dir(first.study_id) / f"{name}-{key}.parquet"
        try:
            table = pa.Table.from_pylist([record.to_dict() for record in records], schema=first.schema())
        except (pa.ArrowException, OverflowError) as error:
            raise StoreError(f"{path}: a value is not of its column's type ({error})") from error
        write_atomically(table, path)
        return path

    def append_trace(
        self, table: pa.Table, study_id: str, row_id: str, encodings: Mapping[str, str]
    ) -> tuple[str, str]:
        """Write the evidence behind a row; returns its path relative to the results folder, and its SHA-256.

        Args:
            table: The trace.
            study_id: Its study.
            row_id: Its row.
            encodings: Parquet encodings of its long columns.

        Raises:
            StoreError: If the folder cannot be written.
        """
        path = self.results_dir / "traces" / f"study={study_id}" / f"{row_id}.parquet"
        write_atomically(table, path, encodings)
        return str(path.relative_to(self.results_dir)), hashlib.sha256(path.read_bytes()).hexdigest()

    def read_trace(self, row: Row) -> pa.Table:
        """Read the evidence behind a row.

        Raises:
            StoreError: If the row has no trace, the file is missing, or it is not the one the row names.
        """
        if row.trace_file is None:
            raise StoreError(f"row {row.row_id} has no trace")
        path = self.results_dir / row.trace_file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != row.trace_sha256:
            raise StoreError(f"{path}: missing or not the trace that row {row.row_id} was computed from")
        return _read_table(path)

    def rows(self, study_id: str) -> list[Row]:
        """Every row of a study, in order of time.

        Raises:
            StoreError: If a file cannot be read; the message names it.
        """
        return sorted(self._read(study_id, Row), key=lambda row: row.started_utc)

    def trials(self, study_id: str) -> list[Trial]:
        """Every complete trial of a study, in order of its number.

        Raises:
            StoreError: If a file cannot be read; the message names it.
        """
        return sorted(self._read(study_id, Trial), key=lambda trial: trial.number)

    def studies(self) -> list[str]:
        """Ids of the studies that have rows or trials, by name."""
        files = self.results_dir.glob("trials/study=*/*.parquet")
        return sorted({path.parent.name.removeprefix("study=") for path in files})

    def check_writable(self, study_id: str) -> None:
        """Find out now, not after the first window, that results cannot be written.

        Raises:
            StoreError: If the folder cannot be made or written.
        """
        folder = self.study_dir(study_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"results_dir={self.results_dir}: cannot be written ({error.strerror}); choose another"
            ) from error

    @contextmanager
    def lock(self, study_id: str) -> Iterator[None]:
        """Hold a study for one sweep; the lock dies with the process, however it dies.

        Raises:
            StoreError: If another process holds it.
        """
        self.check_writable(study_id)
        path = self.study_dir(study_id) / ".lock"
        with path.open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                handle.seek(0)
                raise StoreError(
                    f"study {study_id} is being run by process {handle.read().strip() or 'unknown'}; "
                    "wait for it, stop it, or name another with STUDY="
                ) from error
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def _read(self, study_id: str, kind: type[R]) -> list[R]:
        name = kind.__name__.lower()
        records: list[R] = []
        for path in sorted(self.study_dir(study_id).glob(f"{name}-*.parquet")):
            table = _read_table(path)
            try:
                records += [kind.from_dict(values) for values in table.to_pylist()]
            except (StoreError, ValueError) as error:
                raise StoreError(
                    f"{path}: holds no {name} ({error}); restore or move it away, the others are intact"
                ) from error
        return records


def write_atomically(table: pa.Table, path: Path, encodings: Mapping[str, str] | None = None) -> None:
    """Write a Parquet file so that it is either whole or not there.

    Args:
        table: What to write.
        path: Where to.
        encodings: Parquet encodings by column, where the plain one is not wanted.

    Raises:
        StoreError: If it cannot be written.
    """
    is_long = encodings is None and len(table) > 1  # many records, which repeat each other
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            pq.write_table(
                table,
                handle,
                compression="zstd",
                use_dictionary=is_long,
                compression_level=COMPRESSION_LEVEL,
                column_encoding=None if is_long else dict(encodings or {}),
                write_page_checksum=True,
                write_statistics=False,  # of a line or two they say nothing, and fill a third of the file
            )
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another results_dir"
        ) from error


def _read_table(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        version = int((table.schema.metadata or {}).get(b"schema_version", b"0"))
    except (OSError, ValueError, pa.ArrowException) as error:
        first = " ".join(str(error).split())
        raise StoreError(
            f"{path}: not a readable Parquet file ({first}); restore or move it away, the others are intact"
        ) from error
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path}: schema version {version} is newer than this program's {SCHEMA_VERSION}; update it")
    return table
