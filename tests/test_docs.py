"""The documents say what rows and code say; `make docs` mends them."""

import re
from pathlib import Path

import pytest

from docs.generate import REPO, generated
from pipeline.compose import groups
from pipeline.importers.tools import IMPORTERS


@pytest.mark.parametrize("path", sorted(generated()), ids=lambda path: path.name)
def test_a_generated_document_is_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == generated()[path], "run `make docs`"


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (REPO / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"^\s*make ([a-z-]+)", (REPO / "README.md").read_text("utf-8"), flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_tool_of_import_has_its_line() -> None:
    text = (REPO / "docs" / "import.md").read_text("utf-8")
    assert [name for name in IMPORTERS if f"\n| `{name}` |" not in text] == []


def test_every_choice_of_the_readme_exists() -> None:
    known = groups()
    for group, choice in re.findall(r"\b([a-z]+)=([\w.-]+)", (REPO / "README.md").read_text("utf-8")):
        if group in known:
            assert choice in known[group], f"{group}={choice}"
