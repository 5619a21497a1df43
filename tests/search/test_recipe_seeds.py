import dataclasses
from pathlib import Path

import pytest

from pipeline.engine.catalog import refusal
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine.trtllm.recipe_config import engine_config
from pipeline.engine.trtllm.recipes import matching_recipes
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.search.recipe_seeds import Seeds, recipe_seeds, widened
from pipeline.search.search import Search
from pipeline.space import build_space
from pipeline.study import Study
from tests.builders import MODELLED, make_slo, make_study, with_search
from tests.engine.trtllm.recipe_files import RECIPES, database_row, make_folder
from tests.search.listed import Listed


def study(folder: Path | None = RECIPES, budget: int = 60) -> Study:
    """gpt-oss-120b on H200 at 1024/1024: nine recipes, one without its file."""
    texts = [text for text in MODELLED if not text.startswith("hardware=")]
    plain = make_study(*texts, "hardware=h200")
    return with_search(plain, recipes=None if folder is None else str(folder), budget_trials=budget)


def takes_all(_: EngineConfig) -> None:
    """An engine that renders anything."""


def names(seeds: Seeds) -> list[str]:
    return [by.rpartition("/")[2] for _, by in seeds.configs]


@pytest.mark.parametrize(
    ("workload", "hardware", "expected"),
    [("chat_1k_1k", "h200", 8), ("reasoning_1k_8k", "h200", 3), ("rag_8k_1k", "h200", 3), ("chat_1k_1k", "b200", 2),
     ("reasoning_1k_8k", "b200", 1)],
)  # fmt: skip
def test_what_nvidia_tuned_for_a_gpu_breaks_no_rule_of_ours_there(workload: str, hardware: str, expected: int) -> None:
    texts = [text for text in MODELLED if not text.startswith(("hardware=", "workload="))]
    of = with_search(make_study(*texts, f"hardware={hardware}", f"workload={workload}"), recipes=str(RECIPES))
    seeds = recipe_seeds(with_search(of, budget_trials=60), lambda config: refusal(TrtllmEngine(), config, of))
    assert len(seeds.configs) == expected
    assert not [note for note in seeds.notes if "not tried" in note]


def test_without_a_folder_there_are_none() -> None:
    assert recipe_seeds(study(None), takes_all) == Seeds()


def test_the_recipes_that_match_are_the_seeds_in_their_order() -> None:
    of = study()
    seeds = recipe_seeds(of, takes_all)
    matched, notes = matching_recipes(of)
    assert [(config, by) for config, by in seeds.configs] == [
        (engine_config(recipe, of), f"recipe:{recipe.name}") for recipe in matched
    ]
    assert len(seeds.configs) == 8
    assert seeds.notes[:-1] == tuple(notes)
    assert seeds.notes[-1].startswith(
        "recipes tried first, after the baseline: database/openai/gpt-oss-120b/H200/1k1k_"
    )


@pytest.mark.parametrize(("budget", "expected"), [(1, 0), (2, 1), (10, 5), (16, 8), (100, 8)])
def test_half_the_budget_is_left_to_the_search_and_what_is_not_tried_is_said(budget: int, expected: int) -> None:
    everything, seeds = recipe_seeds(study(), takes_all), recipe_seeds(study(budget=budget), takes_all)
    assert seeds.configs == everything.configs[:expected]
    assert any("tried first" in note for note in seeds.notes) == (expected > 0)
    left = [note for note in seeds.notes if f"over half of search.budget_trials={budget}" in note]
    assert len(left) == (expected < 8)
    for name in names(everything)[expected:]:
        assert name.removesuffix(".yaml") in left[0]


def test_a_recipe_that_breaks_a_rule_is_not_tried_and_the_rule_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [database_row()], args={"tensor_parallel_size": 8, "moe_expert_parallel_size": 3})
    seeds = recipe_seeds(study(folder), takes_all)
    assert seeds.configs == ()
    (note,) = seeds.notes
    assert note.startswith("recipes not tried: database/a: parallelism.ep=3 does not divide tp=8")


def test_a_recipe_that_no_rule_can_judge_is_a_line_and_does_not_stop_the_others(tmp_path: Path) -> None:
    rows = [database_row(config_path=f"examples/configs/database/{n}.yaml") for n in "ab"]
    folder = make_folder(tmp_path, rows)
    path = folder / "database/a.yaml"
    path.write_text(path.read_text() + "\nkv_cache_config: {dtype: int2}\n")

    def refuse(config: EngineConfig) -> str | None:
        if config.precision.kv_cache == "int2":
            raise ConfigError("precision.kv_cache=int2: unknown; allowed: auto, fp8")
        return None

    seeds = recipe_seeds(study(folder), refuse)
    assert names(seeds) == ["b.yaml"]
    assert "recipes not tried: database/a: precision.kv_cache=int2" in seeds.notes[-1]


def test_recipes_that_the_engine_refuses_for_one_reason_share_a_line(tmp_path: Path) -> None:
    rows = [database_row(config_path=f"examples/configs/database/{n}.yaml") for n in "ab"]
    seeds = recipe_seeds(study(make_folder(tmp_path, rows)), lambda _: "this engine is picky")
    assert seeds == Seeds(notes=("recipes not tried: database/a b: this engine is picky",))


def test_a_recipe_that_cannot_be_read_is_a_line_and_does_not_stop_the_others(tmp_path: Path) -> None:
    rows = [database_row(config_path=f"examples/configs/database/{n}.yaml") for n in "ab"]
    folder = make_folder(tmp_path, rows)
    (folder / "database/a.yaml").write_text("a: [")
    seeds = recipe_seeds(study(folder), takes_all)
    assert names(seeds) == ["b.yaml"]
    assert f"recipes not tried: database/a: {folder}/database/a.yaml: cannot be read as YAML" in seeds.notes[-1]


def test_two_recipes_of_one_content_are_one_seed(tmp_path: Path) -> None:
    rows = [database_row(config_path=f"examples/configs/database/{load}.yaml", concurrency=load) for load in (16, 64)]
    assert names(recipe_seeds(study(make_folder(tmp_path, rows)), takes_all)) == ["64.yaml"]


def test_a_folder_that_cannot_be_read_stops_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"search\.recipes="):
        recipe_seeds(study(tmp_path), takes_all)


def test_a_recipe_for_another_gpu_is_never_among_the_seeds() -> None:
    of = study()
    elsewhere = dataclasses.replace(of, hardware=dataclasses.replace(of.hardware, name="h100"))
    assert not [by for _, by in recipe_seeds(elsewhere, takes_all).configs if "H200" in by or "B200" in by]


def test_a_recipe_that_only_the_slo_speaks_against_is_tried_and_that_is_said() -> None:
    slo = make_slo(tpot_p99_s=0.04)
    of = dataclasses.replace(study(), slo=slo)
    seeds = recipe_seeds(of, takes_all)
    assert seeds.configs == recipe_seeds(study(), takes_all).configs
    assert seeds.notes[-1].startswith(
        "the search itself would not try 8 of these recipes: engine.knobs.stream_interval=20: users would wait"
    )


def test_the_recipes_values_join_the_axes_so_that_the_search_learns_from_them() -> None:
    plain = study()
    seeds = recipe_seeds(plain, takes_all)
    wide = widened(plain, (config for config, _ in seeds.configs))
    assert not all(_are_within(seeds, plain))
    assert all(_are_within(seeds, wide))
    for key, values in plain.axes.items():
        assert wide.axes[key][: len(values)] == values
        assert len(values) > 1 or wide.axes[key] == values


def _are_within(seeds: Seeds, of: Study) -> list[bool]:
    search = Search(of, build_space(of), [], [], Listed(of))
    return [search._find_params(config) is not None for config, _ in seeds.configs]
