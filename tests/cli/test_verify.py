"""`tpw verify`: rows that follow from their evidence, and every way in which they do not."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from pipeline.meter.protocol import DeviceReading
from pipeline.record import Row
from pipeline.rig.rows import measured
from pipeline.store import Store
from pipeline.trace import Context, Trace
from pipeline.trace_file import ENCODINGS, from_table, to_table
from pipeline.vocabulary import Boundary, Evidence
from pipeline.workload import OperatingPoint
from tests.builders import SECOND_NS, make_request, make_row, make_study, steady_device
from tests.cli.command import tpw

RECORDED = Path(__file__).parents[2] / "results"
STUDY = make_study("study=test", "plan=quick")


def store_row(store: Store, row_id: str) -> Row:
    """A row with its trace, computed as a session does."""
    devices: dict[str, DeviceReading] = {"GPU-0": steady_device(300, -3, 23)}
    requests = [make_request(n - 10, [(n - 10 + 0.1 * m, m) for m in range(1, 11)]) for n in range(40)]
    context = Context(plan=STUDY.plan, slo=STUDY.slo, boundary=Boundary.GPU, num_gpus=1)
    point = OperatingPoint(concurrency=1)
    trace = Trace(open_ns=0, close_ns=20 * SECOND_NS, point=point, requests=requests, devices=devices, context=context)
    table = to_table(trace, row_id)
    trace_file, trace_sha256 = store.append_trace(table, "test", row_id, ENCODINGS)
    columns = measured(from_table(table), context)
    row = make_row(**columns, gpu_uuids=tuple(devices), row_id=row_id, trace_file=trace_file, trace_sha256=trace_sha256)
    store.append(row)
    return row


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One study of three rows, whose run was killed: it has no trial, and traces hold all that it takes."""
    store = Store(tmp_path)
    for row_id in ("aa1", "aa2", "bb3"):
        store_row(store, row_id)
    return store


def test_rows_that_follow_from_their_evidence_are_counted(store: Store) -> None:
    said = tpw("verify", "--results", store.results_dir)
    assert (said.status, said.err) == (0, "")
    assert "3 rows follow from their evidence, 0 do not" in said.out
    assert "1 rows follow" in tpw("verify", "aa2", "--results", store.results_dir).out
    assert "3 rows follow" in tpw("verify", "test", "--results", store.results_dir).out


def test_a_changed_row_is_named_with_the_column_and_both_values(store: Store) -> None:
    row = store.rows("test")[0]
    assert row.gpu_energy_j is not None
    store.append(dataclasses.replace(row, gpu_energy_j=row.gpu_energy_j * 0.99))
    said = tpw("verify", "--results", store.results_dir)
    assert said.status == 1
    (line,) = (line for line in said.out.splitlines() if row.row_id in line)
    assert f"gpu_energy_j is stored as {row.gpu_energy_j * 0.99}" in line
    assert f"its evidence gives {row.gpu_energy_j}" in line
    assert "2 rows follow from their evidence, 1 do not" in said.out


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")])
def test_evidence_that_is_gone_or_changed_fails_and_the_others_are_still_checked(store: Store, change: object) -> None:
    assert callable(change)
    row = store.rows("test")[0]
    change(store.results_dir / str(row.trace_file))
    said = tpw("verify", "--results", store.results_dir)
    assert said.status == 1
    assert f"missing or not the trace that row {row.row_id} was computed from" in said.out
    assert "2 rows follow from their evidence, 1 do not" in said.out


def test_evidence_that_was_exchanged_is_not_that_of_the_row(store: Store) -> None:
    first, second, _ = store.rows("test")
    (store.results_dir / str(first.trace_file)).write_bytes((store.results_dir / str(second.trace_file)).read_bytes())
    said = tpw("verify", first.row_id, "--results", store.results_dir)
    assert said.status == 1
    assert "not the trace that row" in said.out


def test_modelled_rows_have_nothing_to_verify(store: Store) -> None:
    store.append(make_row(row_id="cc4", evidence=Evidence.MODELLED))
    said = tpw("verify", "--results", store.results_dir)
    assert said.status == 0
    assert "3 rows follow from their evidence, 0 do not, 1 are modelled or imported and have none" in said.out
    assert tpw("verify", "cc4", "--results", store.results_dir).status == 1


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("aa", ("'aa'", "beginning of 2 row ids")),
        ("zz", ("'zz'", "no row and no study", "studies: test")),
        ("tset", ("'tset'", "test")),
    ],
)
def test_a_word_that_names_no_row_or_several_is_refused(store: Store, word: str, parts: tuple[str, ...]) -> None:
    tpw("verify", word, "--results", store.results_dir).assert_refused(2, *parts)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    tpw("verify", "--results", tmp_path / "none").assert_refused(2, "holds no study")


def test_a_row_of_an_older_method_says_what_was_not_compared() -> None:
    rows = [row for row in Store(RECORDED).rows("h100-gpt-oss-120b") if row.method == 1]
    said = tpw("verify", rows[0].row_id, "--results", RECORDED)
    assert said.status == 0, said.out
    assert "not compared, as method 1" in said.out
    assert "output_tokens_per_joule_rel_ci95" in said.out


def test_rows_without_any_of_their_traces_here_are_said_not_to_be_checked(store: Store) -> None:
    shutil.rmtree(store.results_dir / "traces")
    said = tpw("verify", "--results", store.results_dir)
    assert said.status == 1  # nothing was
    assert "test: none of its traces is here, so 3 rows were not checked" in said.out
    assert "0 rows follow from their evidence, 0 do not" in said.out
