"""What other studies lend: recorded ones, and what must not stop a sweep."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.resume import stored_study
from pipeline.search.transfer import elsewhere
from pipeline.store import Store
from tests.builders import make_study, with_search

STORE = Store(Path(__file__).parents[2] / "results")
STUDY = with_search(dataclasses.replace(stored_study(STORE, "h100-llama-3.1-8b"), id="another"), sampler="residual")


def test_studies_of_the_same_model_and_engine_lend_their_residuals_less_their_mean() -> None:
    found = elsewhere(STUDY, STORE)
    assert len(found) >= 4
    assert sum(each.residual for each in found) == pytest.approx(0, abs=1e-9)
    assert {each.config.engine for each in found} == {"vllm"}


def test_a_study_lends_nothing_to_itself_nor_to_a_sampler_that_takes_nothing_nor_on_a_cpu() -> None:
    own = dataclasses.replace(STUDY, id="h100-llama-3.1-8b")
    assert len(elsewhere(own, STORE)) < len(elsewhere(STUDY, STORE))
    assert elsewhere(with_search(STUDY, sampler="tpe"), STORE) == []
    assert elsewhere(with_search(make_study(), sampler="residual"), STORE) == []


def test_a_file_that_cannot_be_read_is_no_reason_not_to_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "study=broken"
    folder.mkdir(parents=True)
    (folder / "row-x.parquet").write_bytes(b"no parquet")
    assert elsewhere(STUDY, Store(tmp_path)) == []
