"""A checkpoint's fingerprint: the same for the same files, another when anything that tells them apart differs."""

from pathlib import Path

import pytest

from pipeline.engine.fingerprint import checkpoint_fingerprint, snapshot_revision

FILES = {"config.json": b"{}", "tokenizer/vocab.txt": b"a", "model-00001.safetensors": b"0123", "model.bin": b"01"}


def checkpoint(folder: Path, changes: dict[str, bytes | None] | None = None) -> str:
    for name, content in {**FILES, **(changes or {})}.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return checkpoint_fingerprint(folder)


def test_it_is_that_of_the_files_and_not_of_the_folder(tmp_path: Path) -> None:
    assert checkpoint(tmp_path / "a") == checkpoint(tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"config.json": b"{ }"},
        {"tokenizer/vocab.txt": b"b"},
        {"model-00001.safetensors": b"01234"},
        {"model.bin": None},
        {"more.json": b""},
        {"config.json": None, "confi.json": b"{}"},
    ],
)
def test_anything_else_is_another(tmp_path: Path, changes: dict[str, bytes | None]) -> None:
    assert checkpoint(tmp_path / "a") != checkpoint(tmp_path / "b", changes)


def test_weights_are_told_by_their_size_alone(tmp_path: Path) -> None:
    same_size: dict[str, bytes | None] = {"model-00001.safetensors": b"9876"}
    assert checkpoint(tmp_path / "a") == checkpoint(tmp_path / "b", same_size)


def test_a_snapshot_knows_its_revision(tmp_path: Path) -> None:
    assert snapshot_revision(tmp_path / "models--a--b" / "snapshots" / "abc123") == "abc123"
    assert snapshot_revision(tmp_path / "model") is None
