import dataclasses
import io
from pathlib import Path

from rich.console import Console

from pipeline.cli.gain import gain_lines
from pipeline.cli.show import print_results
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine_config import Value
from pipeline.recipe_gain import Gain
from pipeline.rig.modelled import ModelledRig
from pipeline.store import Store
from pipeline.sweep import sweep
from tests.builders import MODELLED, Recorder, make_row, make_slo, make_study, with_search
from tests.engine.trtllm.recipe_files import RECIPES

SLO = make_slo(tpot_p99_s=0.02)
ROW = make_row(concurrency=64)
CAVEAT = (
    "  \N{PLUS-MINUS SIGN} is of the windows alone: start-to-start spread is not in it, "
    "and the best of many configs looks better than it is"
)


def test_a_gain_is_one_line_with_its_interval_and_its_evidence() -> None:
    gain = Gain(recipe="database/a_conc64.yaml", row=ROW, ratio=1.123, rel_ci95=0.0187, is_slo_met=None)
    assert gain_lines([gain], SLO) == [
        "gain over NVIDIA's recipe database/a_conc64.yaml at 64 users: "
        "+12.3 % \N{PLUS-MINUS SIGN} 2.1 % tokens/J [measured]",
        CAVEAT,
    ]


def test_a_loss_has_its_sign_and_an_unknown_interval_is_named() -> None:
    gain = Gain(recipe="a.yaml", row=ROW, ratio=0.951, rel_ci95=None, is_slo_met=None)
    assert gain_lines([gain], SLO)[0].endswith(" at 64 users: -4.9 % (\N{PLUS-MINUS SIGN} unknown) tokens/J [measured]")


def test_whether_the_recipe_meets_the_slo_is_said() -> None:
    ends = []
    for is_met in (True, False):
        gain = Gain(recipe="a.yaml", row=ROW, ratio=1.0, rel_ci95=None, is_slo_met=is_met)
        ends.append(gain_lines([gain], SLO)[0].rpartition("; ")[2])
    assert ends == ["the recipe meets slo=test", "the recipe misses slo=test"]


def test_a_recipe_that_streams_in_chunks_or_is_not_their_best_is_told_apart() -> None:
    gain = Gain(
        row=make_row(concurrency=1), recipe="a.yaml", ratio=1.5, rel_ci95=None, is_slo_met=True, chunk_tokens=20,
        better_recipe="database/b.yaml", better_ratio=0.99,
    )  # fmt: skip
    line = gain_lines([gain], SLO)[0]
    assert " at 1 user: +50.0 % " in line
    assert line.endswith("; -1.0 % over b, their best there; the recipe meets slo=test, streaming 20 tokens at a time")


def test_an_open_loop_has_a_rate() -> None:
    row = make_row(concurrency=None, request_rate_per_s=2.5)
    line = gain_lines([Gain(recipe="a.yaml", row=row, ratio=1.0, rel_ci95=None, is_slo_met=None)], SLO)[0]
    assert " at load 2.5/s: " in line


def test_nothing_is_said_without_a_recipe() -> None:
    assert gain_lines([], SLO) == []


def test_a_sweep_with_recipes_tries_them_first_and_says_what_it_gained(tmp_path: Path) -> None:
    texts = [text for text in MODELLED if not text.startswith("hardware=")]
    study = with_search(make_study(*texts, "hardware=h200"), recipes=str(RECIPES), budget_trials=6)
    axes: dict[str, tuple[Value | None, ...]] = {
        "precision.weights": ("fp4",),
        "precision.kv_cache": ("auto", "fp8"),
        "parallelism.tp": (1, 2, 4),
    }
    study = dataclasses.replace(study, axes=axes)
    store, progress = Store(tmp_path), Recorder()
    sweep(study, ModelledRig(study, TrtllmEngine()), store, progress)
    folder = "database/openai/gpt-oss-120b/H200"
    assert any(note.startswith("recipes tried first, after the baseline: ") for note in progress.notes)
    by = [trial.proposed_by for trial in store.trials(study.id)]
    assert by[1:4] == [f"recipe:{folder}/1k1k_tp1_conc{load}.yaml" for load in (64, 16, 4)]
    stream = io.StringIO()
    print_results(Console(file=stream, width=300), study, store)
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("gain over NVIDIA's recipe ")]
    assert [line.partition(" at ")[2].partition(":")[0] for line in lines] == [
        "1 user", "4 users", "16 users", "64 users", "256 users",
    ]  # fmt: skip
    assert lines[2].startswith(f"gain over NVIDIA's recipe {folder}/1k1k_tp1_conc16.yaml at 16 users: +")
    assert all("[modelled]" in line for line in lines)
    assert f"│ {folder}/1k1k_tp1_conc64.yaml " in stream.getvalue()
