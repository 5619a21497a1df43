import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.columns import SCHEMA_VERSION
from pipeline.errors import StoreError
from pipeline.record import Row
from pipeline.store import Store, new_id
from tests.builders import make_row, make_trial

PATIENCE_S = 60


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process of ours that runs `code`."""
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


def rewrite(path: Path, table: pa.Table, **metadata: str) -> None:
    """Replace a record's file by another table with the file's metadata, changed."""
    kept = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
    pq.write_table(table.replace_schema_metadata(kept | metadata), path)


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    rows = [make_row(started_utc=f"2026-01-0{day}T00:00:00.000+00:00") for day in (3, 1, 2)]
    trials = [make_trial(number=number) for number in (2, 0, 1)]
    for row in rows:
        store.append(row)
    for trial in trials:
        store.append(trial)
    assert store.rows("test") == sorted(rows, key=lambda row: row.started_utc)
    assert store.trials("test") == sorted(trials, key=lambda trial: trial.number)


def test_a_store_without_a_folder_is_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")
    assert (store.rows("x"), store.trials("x"), store.studies()) == ([], [], [])
    assert not (tmp_path / "nowhere").exists()


def test_a_study_is_listed_once_something_is_in_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("empty"):
        pass
    store.append(make_row(study_id="b"))
    store.append(make_trial(study_id="a"))
    store.append(make_trial(study_id="b"))
    assert store.studies() == ["a", "b"]


def test_studies_are_kept_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(make_row(study_id="a"))
    assert len(store.rows("a")) == 1
    assert store.rows("b") == []


def test_an_id_is_not_given_twice() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


WRITER = """
import os, sys
from pathlib import Path
from pipeline.store import Store
from tests.builders import make_row
store, incompressible = Store(Path(sys.argv[1])), os.urandom(250_000).hex()
while True:
    store.append(make_row(config_json=incompressible))
    print("one", flush=True)
"""


def test_a_kill_at_any_moment_leaves_whole_files_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    store = Store(tmp_path)
    num_confirmed = 0
    for _ in range(3):
        with child(WRITER, str(tmp_path)) as writer:
            assert writer.stdout is not None
            for _ in range(int(rng.integers(1, 4))):
                num_confirmed += bool(writer.stdout.readline())
            time.sleep(rng.uniform(0, 0.02))
            writer.kill()
            num_confirmed += len(writer.stdout.readlines())
        assert writer.returncode == -signal.SIGKILL
        rows = store.rows("test")
        assert num_confirmed <= len(rows)
        assert all(len(row.config_json) == 500_000 for row in rows)
        num_torn = sum(path.name.startswith(".tmp-") for path in store.study_dir("test").iterdir())
        assert len(rows) + num_torn == len(list(store.study_dir("test").iterdir()))
    assert num_confirmed >= 3


def test_a_torn_file_under_its_temporary_name_is_ignored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_row())
    path.with_name(f".tmp-{path.name}-1").write_bytes(path.read_bytes()[:100])
    assert len(store.rows("test")) == 1
    assert store.studies() == ["test"]


@pytest.mark.parametrize("damage", ["cut short", "empty", "text", "a folder"])
def test_a_corrupt_file_is_named_and_the_good_ones_are_not_blamed(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    paths = [store.append(make_row()) for _ in range(3)]
    whole = paths[1].read_bytes()
    if damage == "a folder":
        paths[1].unlink()
        paths[1].mkdir()
    else:
        paths[1].write_bytes({"cut short": whole[:-100], "empty": b"", "text": b"not parquet at all"}[damage])
    with pytest.raises(StoreError) as caught:
        store.rows("test")
    assert str(paths[1]) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(str(path) in str(caught.value) for path in (paths[0], paths[2]))
    paths[1].rename(tmp_path / "away")
    assert len(store.rows("test")) == 2


def test_a_flipped_bit_in_a_number_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_row(gpu_energy_j=1234.5))
    column = pq.ParquetFile(path).metadata.row_group(0).column(Row.schema().names.index("gpu_energy_j"))
    whole = path.read_bytes()
    start = min(offset for offset in (column.dictionary_page_offset, column.data_page_offset) if offset)
    num_noticed = 0
    for position in range(start, start + column.total_compressed_size):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try:
            assert store.rows("test")[0].gpu_energy_j == 1234.5
        except StoreError as error:
            assert str(path) in str(error)  # noqa: PT017  # both outcomes are right, a wrong number is not
            num_noticed += 1
    assert num_noticed > column.total_compressed_size / 2


@pytest.mark.parametrize(
    ("column", "value"), [("status", "splendid"), ("reasons", ["sunspots"]), ("trial_id", None), ("evidence", "")]
)
def test_a_file_that_holds_no_record_is_named(tmp_path: Path, column: str, value: object) -> None:
    store = Store(tmp_path)
    path = store.append(make_row())
    columns = make_row().to_dict() | {column: value}
    fields = [field.with_nullable(nullable=True) for field in Row.schema()]
    rewrite(path, pa.Table.from_pylist([columns], schema=pa.schema(fields)))
    with pytest.raises(StoreError, match=f"{path}: holds no row"):
        store.rows("test")


def test_a_parquet_file_of_something_else_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_row())
    pq.write_table(pa.table({"a": [1, 2]}), path)
    with pytest.raises(StoreError, match=f"{path}: holds no row .column row_id must be set"):
        store.rows("test")


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_row())
    rewrite(path, pq.read_table(path), schema_version=str(SCHEMA_VERSION + 1))
    with pytest.raises(StoreError, match=f"{path}: schema version {SCHEMA_VERSION + 1} is newer .* update it"):
        store.rows("test")


def test_a_schema_version_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_row())
    rewrite(path, pq.read_table(path), schema_version="one")
    with pytest.raises(StoreError, match=str(path)):
        store.rows("test")


def test_unknown_columns_are_ignored_and_columns_of_later_are_null(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = make_row(engine_version="1.0")
    path = store.append(row)
    table = pq.read_table(path)
    rewrite(path, table.append_column("novelty", pa.array([7])).drop_columns(["driver_version", "warnings"]))
    assert store.rows("test") == [row]


@pytest.mark.parametrize("values", [{"concurrency": "many"}, {"concurrency": 2**70}, {"gpu_energy_j": "1 J"}])
def test_a_value_of_the_wrong_type_is_refused_and_leaves_no_file(tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="type"):
        Store(tmp_path).append(make_row(**values))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_null_that_must_be_set_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="column engine must be set"):
        Store(tmp_path).append(make_row(engine=None))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.fixture
def unwritable(tmp_path: Path) -> Store:
    """A store below a regular file, which not even root can write to."""
    (tmp_path / "file").write_text("in the way")
    return Store(tmp_path / "file" / "results")


def test_an_unwritable_folder_is_one_message_that_names_it(unwritable: Store) -> None:
    for attempt in (
        lambda: unwritable.append(make_row()),
        lambda: unwritable.append_trace(pa.table({"a": [1]}), "test", "row", {"a": "DELTA_BINARY_PACKED"}),
        lambda: unwritable.check_writable("test"),
        lambda: unwritable.lock("test").__enter__(),
    ):
        with pytest.raises(StoreError, match=r"cannot be written \(\w[\w ]+\).*another") as caught:
            attempt()
        assert str(unwritable.results_dir) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_checking_that_a_folder_is_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    Store(tmp_path).check_writable("test")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pipeline.errors import StoreError
from pipeline.store import Store
from tests.builders import make_row
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path(sys.argv[1]))
store.append(make_row(row_id="before"))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.append(make_row(row_id="after"))
except StoreError as error:
    print(error)
"""


def test_a_write_that_stops_half_way_leaves_no_file(tmp_path: Path) -> None:
    with child(FULL_DISK, str(tmp_path)) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert "row-after.parquet: cannot be written" in said
    assert [row.row_id for row in Store(tmp_path).rows("test")] == ["before"]
    assert [path.name for path in Store(tmp_path).study_dir("test").iterdir()] == ["row-before.parquet"]


HOLDER = """
import sys, time
from pathlib import Path
from pipeline.store import Store
with Store(Path(sys.argv[1])).lock("test"):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with child(HOLDER, str(tmp_path)) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            with (
                pytest.raises(StoreError, match=f"study test is being run by process {holder.pid};"),
                store.lock("test"),
            ):
                pytest.fail("two hold the lock")
            with store.lock("another"):
                pass
        finally:
            holder.kill()
    with store.lock("test"):
        assert (store.study_dir("test") / ".lock").read_text() == str(os.getpid())


def test_a_lock_is_freed_at_the_end_and_by_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.lock("test"):
        raise RuntimeError
    with store.lock("test"), pytest.raises(StoreError), store.lock("test"):
        pytest.fail("two hold the lock")
    with store.lock("test"):
        pass


def test_a_lock_does_not_stop_readers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(make_row())
    with store.lock("test"):
        assert len(Store(tmp_path).rows("test")) == 1


def test_two_folders_merge_by_copying(tmp_path: Path) -> None:
    one, other, both = (Store(tmp_path / name) for name in ("one", "other", "both"))
    for store, day in ((one, 1), (other, 2)):
        for hour in (1, 2):
            row = make_row(started_utc=f"2026-01-0{day}T0{hour}:00:00.000+00:00")
            trace_file, sha = store.append_trace(
                pa.table({"day": [day]}), "test", row.row_id, {"day": "DELTA_BINARY_PACKED"}
            )
            store.append(make_row(**row.to_dict() | {"trace_file": trace_file, "trace_sha256": sha}))
        store.append(make_trial(number=0))
        shutil.copytree(store.results_dir, both.results_dir, dirs_exist_ok=True)
    assert len(both.trials("test")) == 2
    rows = both.rows("test")
    assert {row.row_id for row in rows} == {row.row_id for store in (one, other) for row in store.rows("test")}
    assert [both.read_trace(row).to_pylist()[0]["day"] for row in rows] == [1, 1, 2, 2]


def test_a_trace_is_found_again_and_any_change_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = pa.table({"a": [1, 2, 3]})
    trace_file, sha = store.append_trace(table, "test", "row1", {"a": "DELTA_BINARY_PACKED"})
    row = make_row(row_id="row1", trace_file=trace_file, trace_sha256=sha)
    assert store.read_trace(row) == table
    assert not Path(trace_file).is_absolute()

    store.append_trace(pa.table({"a": [1, 2, 4]}), "test", "row1", {"a": "DELTA_BINARY_PACKED"})
    with pytest.raises(StoreError, match="not the trace that row row1"):
        store.read_trace(row)
    (tmp_path / trace_file).unlink()
    with pytest.raises(StoreError, match="missing"):
        store.read_trace(row)
    with pytest.raises(StoreError, match="has no trace"):
        store.read_trace(make_row())
