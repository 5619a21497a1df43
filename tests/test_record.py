import dataclasses
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.columns import SCHEMA_VERSION, Record, markdown_table
from pipeline.errors import StoreError
from pipeline.record import Row, Trial
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus, weaker
from tests.builders import make_row, make_trial

KINDS = [Row, Trial]
EXAMPLES = [make_row(), make_trial()]


def changed(record: Row | Trial, **values: Any) -> Row | Trial:
    return dataclasses.replace(record, **values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_has_one_column_per_field_in_order(kind: type[Record]) -> None:
    assert kind.schema().names == [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]  # a dataclass
    assert kind.schema().metadata == {
        b"schema_version": str(SCHEMA_VERSION).encode(),
        b"record": kind.__name__.lower().encode(),
    }


@pytest.mark.parametrize(
    ("kind", "name", "arrow", "nullable"),
    [
        (Row, "row_id", pa.string(), False),
        (Row, "status", pa.string(), False),
        (Row, "concurrency", pa.int64(), True),
        (Row, "gpu_energy_j", pa.float64(), True),
        (Row, "output_tokens", pa.int64(), True),
        (Row, "reasons", pa.list_(pa.string()), False),
        (Row, "gpu_uuids", pa.list_(pa.string()), False),
        (Row, "engine_version", pa.string(), True),
        (Trial, "evidence", pa.string(), True),
        (Trial, "log_tail", pa.list_(pa.string()), False),
        (Trial, "score", pa.float64(), True),
        (Trial, "total_s", pa.float64(), False),
    ],
)
def test_types_and_nullability_follow_from_the_field(
    kind: type[Record], name: str, arrow: pa.DataType, nullable: bool
) -> None:
    field = kind.schema().field(name)
    assert (field.type, field.nullable) == (arrow, nullable)


@pytest.mark.parametrize("record", EXAMPLES)
def test_a_column_that_must_be_set_may_not_be_null(record: Row | Trial) -> None:
    required = [name for name, _, nullable, _ in record.columns() if not nullable]
    assert len(required) > 10
    for name in required:
        with pytest.raises(StoreError, match=f"column {name} must be set"):
            changed(record, **{name: None}).to_dict()


@pytest.mark.parametrize("record", EXAMPLES)
def test_a_column_that_must_be_set_may_not_be_missing_or_null_when_read(record: Row | Trial) -> None:
    columns = record.to_dict()
    for item in dataclasses.fields(record):
        if item.default is dataclasses.MISSING:
            with pytest.raises(StoreError, match=item.name):
                type(record).from_dict({name: value for name, value in columns.items() if name != item.name})
            with pytest.raises(StoreError, match=item.name):
                type(record).from_dict(columns | {item.name: None})


@pytest.mark.parametrize("record", EXAMPLES)
def test_every_nullable_column_may_be_null_and_stays_so(record: Row | Trial) -> None:
    nothing = changed(record, **{name: None for name, _, nullable, _ in record.columns() if nullable})
    assert type(record).from_dict(nothing.to_dict()) == nothing


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("record", EXAMPLES)
def test_no_number_column_takes_nan_or_infinity(record: Row | Trial, value: float) -> None:
    numeric = [name for name, arrow, _, _ in record.columns() if arrow == pa.float64()]
    assert numeric
    for name in numeric:
        with pytest.raises(StoreError, match=f"column {name} is .*never NaN"):
            changed(record, **{name: value}).to_dict()


def test_zero_is_a_value_and_not_absence() -> None:
    back = Row.from_dict(make_row(num_failed=0, drift=0.0).to_dict())
    assert (back.num_failed, back.drift, back.num_completed) == (0, 0.0, None)


@given(
    status=st.sampled_from(RowStatus),
    evidence=st.sampled_from(Evidence),
    boundary=st.sampled_from(Boundary),
    reasons=st.lists(st.sampled_from(Reason)).map(tuple),
    joules=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_a_row_comes_back_from_arrow_as_it_went_in(
    status: RowStatus, evidence: Evidence, boundary: Boundary, reasons: tuple[Reason, ...], joules: float, text: str
) -> None:
    row = make_row(
        status=status, evidence=evidence, boundary=boundary, reasons=reasons, gpu_energy_j=joules, engine_version=text
    )
    (stored,) = pa.Table.from_pylist([row.to_dict()], schema=Row.schema()).to_pylist()
    back = Row.from_dict(stored)
    assert back == row
    assert (type(back.status), type(back.evidence), type(back.boundary)) == (RowStatus, Evidence, Boundary)
    assert all(type(reason) is Reason for reason in back.reasons)


@pytest.mark.parametrize("status", TrialStatus)
def test_a_trial_comes_back_from_arrow_as_it_went_in(status: TrialStatus) -> None:
    trial = make_trial(status=status, reasons=("it broke", "twice"), evidence=Evidence.MEASURED, score=1.5)
    (stored,) = pa.Table.from_pylist([trial.to_dict()], schema=Trial.schema()).to_pylist()
    assert Trial.from_dict(stored) == trial


def test_columns_of_a_later_version_are_left_out() -> None:
    row = make_row()
    assert Row.from_dict(row.to_dict() | {"invented_later": 1}) == row


def test_an_unknown_reason_is_not_taken_for_a_known_one() -> None:
    with pytest.raises(ValueError, match="sunspots"):
        Row.from_dict(make_row().to_dict() | {"reasons": ["sunspots"]})


def test_evidence_goes_from_strong_to_weak() -> None:
    order = [Evidence.MEASURED, Evidence.ESTIMATED, Evidence.MODELLED, Evidence.SIMULATED]
    for n, strong in enumerate(order):
        for weak in order[n:]:
            assert weaker(strong, weak) is weaker(weak, strong) is weak


@pytest.mark.parametrize("kind", KINDS)
def test_the_docs_table_names_every_column_with_its_meaning(kind: type[Record]) -> None:
    header, _, *lines = markdown_table(kind).splitlines()
    assert header.count("|") == 5
    assert [line.split("`")[1] for line in lines] == kind.schema().names
    for line, (_, arrow, nullable, meaning) in zip(lines, kind.columns(), strict=True):
        assert line.count("|") == 5, line
        assert f"| {arrow} | {'yes' if nullable else 'no'} | {meaning} |" in line
        assert meaning.strip()
