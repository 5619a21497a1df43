"""What every file and every column keeps to."""

import ast
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.columns import Record
from pipeline.record import Row, Trial

PIPELINE = Path(__file__).parents[1] / "pipeline"
MODULES = sorted(PIPELINE.rglob("*.py"))

UNITS = (
    "_s", "_j", "_w", "_c", "_mhz", "_tokens", "_per_joule", "_per_s", "_per_s_per_user",
)  # fmt: skip
"""Endings of columns that carry a unit."""

DIMENSIONLESS = {
    "num_gpus", "concurrency", "num_completed", "num_failed", "num_blocks", "number", "num_rows", "num_preemptions",
    "num_running_mean", "num_waiting_mean", "num_new_kernels", "num_compile_lines",  # counts
    "occupancy", "drift", "power_drift", "output_tokens_per_joule_rel_ci95", "block_autocorrelation", "gpu_busy_mean",
    "kv_cache_use_mean", "token_disagreement", "client_core_share", "host_busy_share", "host_steal_share",  # ratios
    "engine_energy_disagreement", "finished_token_disagreement",  # ratios by the engine's account
    "output_tokens_per_s_rel_error", "power_w_rel_error", "output_tokens_per_joule_rel_error",  # ratios
    "method",  # a version
    "score", "score_bound",  # the names with a unit of their own, in their meaning
}  # fmt: skip

MAX_LINES = 300


@pytest.mark.parametrize("kind", [Row, Trial])
def test_a_number_ends_in_its_unit_or_has_none(kind: type[Record]) -> None:
    numeric = {
        name for name, arrow, _, _ in kind.columns() if pa.types.is_integer(arrow) or pa.types.is_floating(arrow)
    }
    assert {name for name in numeric if not name.endswith(UNITS)} <= DIMENSIONLESS
    assert not {name for name in numeric & DIMENSIONLESS if name.endswith(UNITS)}


def test_no_dimensionless_name_is_listed_for_nothing() -> None:
    assert not DIMENSIONLESS - {*Row.schema().names, *Trial.schema().names}


@pytest.mark.parametrize("kind", [Row, Trial])
def test_every_meaning_fits_one_table_cell(kind: type[Record]) -> None:
    for name, _, _, meaning in kind.columns():
        assert meaning == " ".join(meaning.split()), name
        assert "|" not in meaning, name


def test_columns_that_both_records_have_mean_the_same_type() -> None:
    row, trial = Row.schema(), Trial.schema()
    shared = set(row.names) & set(trial.names) - {"status", "reasons"}
    assert {"study_id", "trial_id", "config_hash"} <= shared
    assert all(row.field(name).type == trial.field(name).type for name in shared)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PIPELINE)))
def test_a_module_is_short_documented_and_imports_absolutely(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PIPELINE)))
def test_no_module_is_a_drawer(path: Path) -> None:
    assert not {*path.relative_to(PIPELINE).with_suffix("").parts} & {"utils", "helpers", "common", "base", "manager"}
