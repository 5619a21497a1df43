from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.engine.trtllm.recipe_folder import PLACES, Recipe, read_args, read_folder
from pipeline.errors import ConfigError
from tests.engine.trtllm.recipe_files import ARGS, CONFIGS, RECIPES, curated_row, database_row, make_folder


def test_nvidias_own_tables_are_read_row_by_row() -> None:
    recipes, notes = read_folder(RECIPES)
    assert notes == []
    assert Counter(recipe.name.partition("/")[0] for recipe in recipes) == {"database": 35, "curated": 13}
    assert recipes[1] == Recipe(
        name="database/nvidia/DeepSeek-R1-0528-FP4-v2/B200/1k1k_tp4_conc256.yaml",
        path=RECIPES / "examples/configs/database/nvidia/DeepSeek-R1-0528-FP4-v2/B200/1k1k_tp4_conc256.yaml",
        model="nvidia/DeepSeek-R1-0528-FP4-v2", gpus=("B200_NVL",), isl_tokens=1024, osl_tokens=1024, concurrency=256,
        num_gpus=4,
    )  # fmt: skip
    by_name = {recipe.name: recipe for recipe in recipes}
    assert by_name["curated/deepseek-r1-latency.yaml"].gpus == ("B200", "GB200")
    assert by_name["curated/gpt-oss-120b-latency.yaml"].gpus is None
    assert [recipe.name for recipe in recipes if recipe.disagg] == [
        "curated/qwen3-disagg-prefill.yaml", "curated/kimi-k2-thinking.yaml",
    ]  # fmt: skip
    with_file = [recipe for recipe in recipes if recipe.path.is_file()]
    assert len(with_file) == 31
    assert all(read_args(recipe) for recipe in with_file)


def test_columns_of_later_tables_are_taken_in(tmp_path: Path) -> None:
    later = {"profile": "latency", "validated_trtllm_commit": "0" * 40, "validated_trtllm_version": "1.3.0rc14"}
    (recipe,), notes = read_folder(make_folder(tmp_path, [database_row(**later)]))
    assert (recipe.profile, recipe.validated_version, notes) == ("latency", "1.3.0rc14", [])


def test_a_column_that_we_do_not_know_is_named_and_left(tmp_path: Path) -> None:
    recipes, notes = read_folder(make_folder(tmp_path, [database_row(), database_row(colour="red")]))
    assert len(recipes) == 2
    assert notes == [f"{tmp_path}/database/lookup.yaml: not taken into account: column colour"]


@pytest.mark.parametrize("place", [place for place in PLACES if place != ".."])
def test_the_tables_are_found_in_a_tree_that_has_them(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    make_folder(tmp_path / place, curated=[curated_row()])
    ((recipe,), _) = read_folder(tmp_path)
    assert read_args(recipe) == ARGS


def test_the_folder_of_one_table_will_do_as_well() -> None:
    assert len(read_folder(CONFIGS / "database")[0]) == len(read_folder(CONFIGS)[0])


@pytest.mark.parametrize(("name", "said"), [("nowhere", "no such folder"), (".", "holds none of database/lookup.yaml")])
def test_a_folder_without_tables_says_what_to_give(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^search\.recipes=.*: {said}.*; give the folder examples/configs of"):
        read_folder(tmp_path / name)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"a": 1}, "a table of recipes is a list of mappings; this holds a dict"),
        (["a"], "a table of recipes is a list of mappings; this holds a list"),
        (None, "a table of recipes is a list of mappings; this holds nothing"),
        ([database_row(isl="many")], "row 1: isl: Input should be a valid integer"),
        ([database_row(), database_row(num_gpus=0)], "row 2: num_gpus: Input should be greater than 0"),
        ([{k: v for k, v in database_row().items() if k != "gpu"}], "row 1: gpu: Field required"),
        ([database_row(profile="fast")], "row 1: profile: Input should be 'latency', 'balanced' or 'throughput'"),
        ([database_row(config_path="/etc/passwd")], "config_path=/etc/passwd: must lie within the repository"),
        ([database_row(config_path="examples/../../b")], "must lie within the repository"),
    ],
)
def test_a_bad_table_is_named_with_its_row(tmp_path: Path, rows: Any, said: str) -> None:
    table = make_folder(tmp_path, [database_row()]) / "database/lookup.yaml"
    table.write_text(yaml.safe_dump(rows))
    with pytest.raises(ConfigError) as caught:
        read_folder(tmp_path)
    assert str(caught.value).startswith(f"{table}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"a: b: c", b"\t- 1"])
def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, content: bytes) -> None:
    folder = make_folder(tmp_path, [database_row()])
    ((recipe,), _) = read_folder(folder)
    recipe.path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_args(recipe)
    assert str(caught.value).startswith(f"{recipe.path}: cannot be read as YAML (")
    assert "\n" not in str(caught.value)
    (folder / "database/lookup.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"database/lookup\.yaml: cannot be read as YAML"):
        read_folder(folder)


@pytest.mark.parametrize(("content", "said"), [("", "nothing"), ("- 1", "a list"), ("1: 2", "a dict"), ("a", "a str")])
def test_a_recipe_that_is_no_mapping_is_named(tmp_path: Path, content: str, said: str) -> None:
    ((recipe,), _) = read_folder(make_folder(tmp_path, [database_row()]))
    recipe.path.write_text(content)
    with pytest.raises(ConfigError, match=rf"a\.yaml: a recipe maps names of arguments to values; this holds {said}$"):
        read_args(recipe)
