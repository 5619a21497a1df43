import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compose import groups
from pipeline.engine.trtllm.recipe_folder import Recipe
from pipeline.engine.trtllm.recipes import GPU_NAMES, matching_recipes
from pipeline.errors import ConfigError
from pipeline.study import Study
from tests.builders import MODELLED, make_study, with_search
from tests.engine.trtllm.recipe_files import RECIPES, curated_row, database_row, make_folder

H200 = "database/openai/gpt-oss-120b/H200"


def study(folder: Path | None = RECIPES, *, ladder: tuple[int, ...] = (1, 4, 16, 64, 256), **choices: str) -> Study:
    """gpt-oss-120b on H200 at 1024/1024 unless told otherwise."""
    given = {"hardware": "h200"} | choices
    texts = [text for text in MODELLED if text.partition("=")[0] not in given]
    plain = make_study(*texts, *(f"{key.replace('__', '.')}={value}" for key, value in given.items()))
    plain = with_search(plain, recipes=None if folder is None else str(folder))
    return dataclasses.replace(plain, workload=dataclasses.replace(plain.workload, concurrency=ladder))


def names(recipes: list[Recipe]) -> list[str]:
    return [recipe.name.removeprefix(f"{H200}/") for recipe in recipes]


def test_without_a_folder_there_is_nothing_and_nothing_to_say() -> None:
    assert matching_recipes(study(None)) == ([], [])


def test_the_nearest_load_comes_first_then_each_load_in_turn() -> None:
    recipes, notes = matching_recipes(study())
    assert names(recipes) == [
        "1k1k_tp1_conc64.yaml", "1k1k_tp1_conc16.yaml", "1k1k_tp1_conc4.yaml", "1k1k_tp2_conc64.yaml",
        "1k1k_tp2_conc16.yaml", "1k1k_tp4_conc16.yaml", "1k1k_tp1_conc32.yaml", "1k1k_tp1_conc8.yaml",
    ]  # fmt: skip
    assert notes == [f"recipes left out: 1 whose file is not there ({H200}/1k1k_tp2_conc32.yaml)"]


def test_the_ladder_decides_which_is_near() -> None:
    assert names(matching_recipes(study(ladder=(8,)))[0])[:3] == [
        "1k1k_tp1_conc8.yaml", "1k1k_tp1_conc16.yaml", "1k1k_tp1_conc4.yaml",
    ]  # fmt: skip
    assert len(matching_recipes(study(ladder=()))[0]) == 8


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        ("rag_8k_1k", {"8k1k_tp1_conc32.yaml", "8k1k_tp1_conc4.yaml", "8k1k_tp4_conc64.yaml"}),
        ("reasoning_1k_8k", {"1k8k_tp1_conc16.yaml", "1k8k_tp1_conc64.yaml", "1k8k_tp2_conc64.yaml"}),
    ],
)
def test_lengths_must_be_the_same(workload: str, expected: set[str]) -> None:
    assert set(names(matching_recipes(study(workload=workload))[0])) == expected
    recipes, notes = matching_recipes(study(workload=workload, workload__isl_tokens="2048"))
    assert {recipe.name.partition("/")[0] for recipe in recipes} == {"curated"}
    assert "none for h200 with 2048/" in notes[0]


def test_a_recipe_of_another_gpu_is_never_used_and_what_there_is_is_said() -> None:
    recipes, notes = matching_recipes(study(hardware="h100"))
    assert names(recipes) == ["curated/gpt-oss-120b-latency.yaml", "curated/gpt-oss-120b-throughput.yaml"]
    assert notes == [
        f"search.recipes={RECIPES} holds 23 recipes for gpt-oss-120b, none for h100 with 1024/1024 tokens "
        "(it has B200_NVL 1024/1024, 1024/8192, 8192/1024; H200_SXM 1024/1024, 1024/8192, 8192/1024)",
        "its 2 curated recipes for any load are considered instead",
    ]


def test_curated_recipes_must_suit_the_gpu(tmp_path: Path) -> None:
    rows = [
        curated_row(config_path=f"examples/configs/curated/{n}.yaml", gpu_compatibility=gpus)
        for n, gpus in enumerate(("B200, GB200", "H100, H200", "any", "", "h200"))
    ]
    recipes, notes = matching_recipes(study(make_folder(tmp_path, curated=rows)))
    assert names(recipes) == ["curated/1.yaml", "curated/2.yaml", "curated/3.yaml", "curated/4.yaml"]
    assert notes[0] == f"search.recipes={tmp_path}: its database has no recipe for gpt-oss-120b"


def test_curated_recipes_stay_out_where_the_database_has_one() -> None:
    assert all(recipe.concurrency for recipe in matching_recipes(study())[0])


def test_a_model_without_recipes_is_told_whose_there_are() -> None:
    recipes, notes = matching_recipes(study(model="qwen3-235b-a22b"))
    assert recipes == []
    assert len(notes) == 1
    assert "none of its recipes is for Qwen/Qwen3-235B-A22B, Qwen/Qwen3-235B-A22B-FP8, nvidia/" in notes[0]
    assert "openai/gpt-oss-120b" in notes[0]


def test_each_checkpoint_of_a_model_has_its_own_recipes_and_the_axis_leaves_some_out() -> None:
    recipes, _ = matching_recipes(study(model="deepseek-r1", hardware="b200"))
    assert [recipe.model for recipe in recipes] == ["nvidia/DeepSeek-R1-0528-FP4-v2"]
    recipes, notes = matching_recipes(study(model="deepseek-r1", hardware="b200", precision="fp8"))
    assert recipes == []
    assert any("2 for fp4 weights, which the axis precision.weights leaves out" in note for note in notes)


def test_no_more_gpus_than_there_are() -> None:
    recipes, notes = matching_recipes(study(hardware__num_gpus="1"))
    assert {recipe.num_gpus for recipe in recipes} == {1}
    assert f"recipes left out: 4 for more GPUs than hardware.num_gpus=1 ({H200}/1k1k_tp2_conc16.yaml)" in notes


def test_one_half_of_disaggregated_serving_is_no_config_of_ours(tmp_path: Path) -> None:
    recipes, notes = matching_recipes(study(make_folder(tmp_path, curated=[curated_row(disagg=True)])))
    assert recipes == []
    assert notes[-1] == "recipes left out: 1 for one half of disaggregated serving (curated/a.yaml)"


def test_case_does_not_matter_in_a_repository(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [database_row(model="OpenAI/GPT-OSS-120B", gpu="h200_sxm")])
    assert names(matching_recipes(study(folder))[0]) == ["database/a.yaml"]


@pytest.mark.parametrize("gpu", ["H100_NVL", "H100_PCIE", "H200_NVL", "GB200_NVL", "GH200", "B200_NVL", "H20"])
def test_cards_of_like_names_are_not_taken_for_one_another(tmp_path: Path, gpu: str) -> None:
    folder = make_folder(tmp_path, [database_row(gpu=gpu)])
    for hardware in ("h100", "h200"):
        assert matching_recipes(study(folder, hardware=hardware))[0] == []


def test_every_gpu_of_conf_has_names_and_no_two_share_one() -> None:
    assert set(GPU_NAMES) == set(groups()["hardware"]) - {"cpu"}
    every = [name for several in GPU_NAMES.values() for name in several]
    assert len(every) == len(set(every))


def test_hardware_of_the_users_own_goes_by_its_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [database_row(gpu="L40S")])
    assert len(matching_recipes(study(folder, hardware__name="l40s"))[0]) == 1


def test_only_trtllm_takes_recipes() -> None:
    with pytest.raises(ConfigError, match=r"search\.recipes=.*: only engine=trtllm has recipes; leave it out"):
        matching_recipes(study(engine="vllm"))


LOADS = st.lists(st.sampled_from([2**n for n in range(15)]), unique=True, max_size=6).map(sorted)


@given(ladder=LOADS, rows=st.lists(st.tuples(st.integers(1, 16384), st.sampled_from([1, 2, 4, 8])), max_size=20))
def test_every_recipe_that_matches_is_proposed_once_and_a_farther_load_never_before_a_nearer(
    ladder: list[int], rows: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "database").mkdir()
    table: list[dict[str, Any]] = [
        database_row(concurrency=load, num_gpus=gpus, config_path=f"examples/configs/database/{n}.yaml")
        for n, (load, gpus) in enumerate(rows)
    ]
    for row in [*table, database_row(config_path="examples/configs/database/none.yaml")]:
        (folder / row["config_path"].removeprefix("examples/configs/")).touch()
    (folder / "database/lookup.yaml").write_text(json.dumps(table))
    recipes, _ = matching_recipes(study(folder, ladder=tuple(ladder)))
    assert sorted(recipe.name for recipe in recipes) == sorted(f"database/{n}.yaml" for n in range(len(rows)))
    ratios = [
        min((max(r.concurrency or 1, x) / min(r.concurrency or 1, x) for x in ladder), default=1) for r in recipes
    ]
    assert ratios == sorted(ratios)
