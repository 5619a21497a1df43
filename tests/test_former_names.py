from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import former_names
from pipeline.compose import groups
from pipeline.config import load_study
from pipeline.former_names import present_name


@pytest.fixture
def renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A conf folder with a model that was renamed twice."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "new.yaml").write_text("name: new\nformer_names: [old, older]\n")
    (tmp_path / "model" / "plain.yaml").write_text("name: plain\n")
    monkeypatch.setattr(former_names, "conf_dir", lambda: tmp_path)
    former_names._present_names.cache_clear()
    yield
    former_names._present_names.cache_clear()


@pytest.mark.usefixtures("renamed")
def test_a_former_name_is_taken_for_the_present_one() -> None:
    assert [present_name(name) for name in ("old", "older", "new", "plain", "unknown")] == [
        "new", "new", "new", "plain", "unknown",
    ]  # fmt: skip


def test_no_model_goes_by_the_former_name_of_another() -> None:
    former: list[str] = []
    for choice in groups()["model"]:
        former += load_study([f"model={choice}"]).model.former_names
    names = {load_study([f"model={choice}"]).model.name for choice in groups()["model"]}
    assert len(set(former)) == len(former)
    assert not names & set(former)
