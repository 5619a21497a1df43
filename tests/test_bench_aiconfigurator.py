"""The bench of the second model: its arithmetic, on the stand-in."""

import sys
from pathlib import Path

import pytest

from bench import aiconfigurator
from bench.model import POINTS, read_points
from pipeline.search.second_opinion import ask
from tests.search.stand_in_aiconfigurator import TOKENS_PER_S_PER_REQUEST, make_stand_in


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    ask.cache_clear()
    monkeypatch.setenv("PYTHONPATH", str(make_stand_in(tmp_path)))
    return sys.executable


def test_a_cell_is_the_smallest_engine_that_both_answer_for(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiconfigurator, "CASES", [("gpt-oss-120b", "fp4"), ("llama-3.1-8b", "fp4")])
    monkeypatch.setattr(aiconfigurator, "GPUS", ["h100"])
    monkeypatch.setattr(aiconfigurator, "LOADS", (1, 16))
    *_, answered, impossible = aiconfigurator.against_ours(stand_in)
    assert answered.startswith("| gpt-oss-120b | fp4 | x1: ")
    assert impossible == "| llama-3.1-8b | fp4 | - |"


def test_errors_are_those_of_the_points_that_it_answers(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = read_points(POINTS)
    expected = points.rows[(points.rows["conf"] == "llama-3.1-8b") & (points.rows["avg_batch_size"] <= 100)]
    theirs = aiconfigurator._theirs(expected.reset_index(drop=True), stand_in)
    assert theirs == pytest.approx([TOKENS_PER_S_PER_REQUEST * batch for batch in expected["avg_batch_size"]])
