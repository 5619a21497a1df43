import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.trtllm.llm_args import leaves, llm_args
from pipeline.engine.trtllm.recipe_config import engine_config
from pipeline.engine.trtllm.recipe_folder import Recipe, read_args
from pipeline.engine.trtllm.versions import LISTED
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.errors import ConfigError
from pipeline.study import Study
from tests.builders import MODELLED, make_study
from tests.engine.trtllm.recipe_files import CONFIGS, RECIPE_FILES

OLD = ("curated/deepseek-r1-throughput.yaml", "curated/gpt-oss-120b-latency.yaml", "curated/qwen3.yaml")
"""Recipes of 2025 with a key that no later release takes."""

DEFAULTS = {
    "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "moe_expert_parallel_size": 1, "enable_attention_dp": False,
    "backend": "pytorch", "kv_cache_config.dtype": "auto", "stream_interval": 1,
    "cuda_graph_config.enable_padding": False, "cuda_graph_config.max_batch_size": 0,
}  # fmt: skip
"""TensorRT-LLM's own: stated or left out, they mean the same."""

ADDED = {"max_seq_len": 2048, "kv_cache_config.enable_block_reuse": False, "telemetry_config.disabled": True}
"""What every config of ours gets where it does not say."""

RENAMED = {"speculative_config.num_nextn_predict_layers": "speculative_config.max_draft_len"}


def study(version: str | None = LISTED[-1], **engine: Any) -> Study:
    """gpt-oss-120b at 1024/1024, rendered for a version."""
    plain = make_study(*MODELLED)
    return dataclasses.replace(plain, engine=dataclasses.replace(plain.engine, version=version, **engine))


def recipe_at(path: Path) -> Recipe:
    """A file as a recipe for gpt-oss-120b, whatever model it is for: arguments have nothing to do with that."""
    name = str(path.relative_to(CONFIGS)) if path.is_relative_to(CONFIGS) else path.name
    return Recipe(name=name, path=path, model="openai/gpt-oss-120b", gpus=None)


def config_of(folder: Path, args: Any, of: Study | None = None) -> EngineConfig:
    """The config of a recipe with these arguments."""
    path = folder / "a.yaml"
    path.write_text(args if isinstance(args, str) else yaml.safe_dump(args))
    return engine_config(recipe_at(path), study() if of is None else of)


@pytest.mark.parametrize("version", LISTED)
@pytest.mark.parametrize("path", RECIPE_FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_what_is_rendered_is_the_recipe(path: Path, version: str) -> None:
    recipe, of = recipe_at(path), study(version)
    if recipe.name in OLD:
        with pytest.raises(ConfigError) as caught:
            engine_config(recipe, of)
        assert str(caught.value).startswith(f"{recipe.name}: kv_cache_free_gpu_memory_fraction: TensorRT-LLM refuses")
        assert str(caught.value).endswith(
            f"write kv_cache_config.free_gpu_memory_fraction={read_args(recipe)['kv_cache_free_gpu_memory_fraction']}"
        )
        return
    config = engine_config(recipe, of)
    theirs = {RENAMED.get(key, key): value for key, value in leaves(read_args(recipe))}
    variables = {
        f"env.{key.partition('.')[2]}": str(v) for key, v in theirs.items() if key.startswith("env_overrides.")
    }
    assert {key: value for key, value in config.knobs.items() if key.startswith("env.")} == variables
    theirs = {key: value for key, value in theirs.items() if not key.startswith("env_overrides.")}
    ours = dict(leaves(llm_args(config, of)))
    assert DEFAULTS | {key: value for key, value in ADDED.items() if key not in theirs} | theirs == DEFAULTS | ours
    assert all(type(ours[key]) is type(value) for key, value in theirs.items() if key in ours)


def test_the_48_are_there() -> None:
    assert len(RECIPE_FILES) == 48
    assert {str(path.relative_to(CONFIGS)) for path in RECIPE_FILES} >= set(OLD)


def test_a_recipes_config_survives_being_stored() -> None:
    configs = [engine_config(recipe_at(p), study()) for p in RECIPE_FILES if str(p.relative_to(CONFIGS)) not in OLD]
    for config in configs:
        stored = json.loads(canonical_json(config.requested()))
        assert EngineConfig.from_axes("trtllm", stored).config_hash == config.config_hash
    assert len({config.config_hash for config in configs}) > 40


AXIS_ARGS = st.fixed_dictionaries(
    {},
    optional={
        "tensor_parallel_size": st.sampled_from([1, 2, 4, 8]),
        "pipeline_parallel_size": st.integers(1, 4),
        "context_parallel_size": st.integers(1, 2),
        "moe_expert_parallel_size": st.sampled_from([1, 2, 4, 8]),
        "enable_attention_dp": st.booleans(),
        "max_batch_size": st.integers(1, 4096),
        "max_num_tokens": st.integers(1, 65536),
        "enable_chunked_prefill": st.booleans(),
        "kv_cache_config": st.fixed_dictionaries(
            {}, optional={"dtype": st.sampled_from(["auto", "fp8"]), "free_gpu_memory_fraction": st.floats(0.1, 1.0)}
        ),
        "cuda_graph_config": st.one_of(
            st.none(),
            st.fixed_dictionaries({}, optional={"enable_padding": st.booleans(), "max_batch_size": st.integers(0, 9)}),
            st.fixed_dictionaries({"batch_sizes": st.lists(st.integers(1, 512), min_size=1, unique=True)}),
        ),
        "stream_interval": st.integers(1, 100),
    },
)


@given(args=AXIS_ARGS)
def test_whatever_a_recipe_says_is_rendered_as_it_says(
    args: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ours = dict(leaves(llm_args(config_of(tmp_path_factory.mktemp("recipe"), args), study())))
    neutral = DEFAULTS | {"context_parallel_size": 1}
    for key, value in leaves(args):
        assert ours.get(key, neutral.get(key)) == value or value == {}
    is_off = args.get("cuda_graph_config", {}) is None
    assert ("cuda_graph_config" in ours) is is_off
    assert not (is_off and any(key.startswith("cuda_graph_config.") for key in ours))


def test_axes_take_their_own_and_the_rest_are_knobs(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        {
            "tensor_parallel_size": 4, "moe_tensor_parallel_size": 2, "enable_attention_dp": True, "max_batch_size": 8,
            "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.8, "tokens_per_block": 64},
            "cuda_graph_config": {"batch_sizes": [1, 2, 4]}, "moe_config": {"load_balancer": {"num_slots": 288}},
            "env_overrides": {"TRTLLM_ENABLE_PDL": 1}, "load_format": "auto", "speculative_config": None,
        },
    )  # fmt: skip
    assert config == EngineConfig.from_axes(
        "trtllm",
        {
            "precision.weights": "fp4", "precision.kv_cache": "fp8", "parallelism.tp": 4, "parallelism.ep": 2,
            "parallelism.moe_tp": 2, "parallelism.attention_dp": True, "batching.max_batch_size": 8,
            "batching.kv_cache_fraction": 0.8, "engine.knobs.kv_cache_config.tokens_per_block": 64,
            "engine.knobs.cuda_graph_config.batch_sizes": (1, 2, 4),
            "engine.knobs.moe_config.load_balancer.num_slots": 288, "engine.knobs.env.TRTLLM_ENABLE_PDL": "1",
        },
    )  # fmt: skip


def test_cuda_graphs_that_are_off_stay_off(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"cuda_graph_config": None})
    assert config.knobs == {"cuda_graph_config": False}
    assert llm_args(config, study())["cuda_graph_config"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"moe_confg": {"backend": "TRTLLM"}}, "moe_confg.backend: TensorRT-LLM 1.3.0rc29 has no such key"),
        ({"moe_config": {"backnd": "TRTLLM"}}, "moe_config.backend"),
        ({"moe_config": {"backend": "trtllm"}}, "moe_config.backend=trtllm: "),
        ({"stream_interval": "often"}, "stream_interval=often: "),
        ({"kv_cache_free_gpu_memory_fraction": 0.9}, "write kv_cache_config.free_gpu_memory_fraction=0.9"),
        ({"backend": "tensorrt"}, "backend=tensorrt: is set by engine here; leave it out"),
        ({"load_format": "dummy"}, "load_format=dummy: is set by weights here; leave it out"),
        ({"model": "/models/x"}, "model=/models/x: is set by model.path here; leave it out"),
        ({"max_batch_size": None}, "max_batch_size=None: cannot be passed on; state a value, or leave the key out"),
        ({"attention_dp_config": {}}, "attention_dp_config={}: cannot be passed on"),
        ({"moe_config": None}, "moe_config=None: cannot be passed on"),
        ({"speculative_config": {"eagle_choices": [[0], [1]]}}, "speculative_config.eagle_choices=[[0], [1]]: cannot"),
        ({"tensor_parallel_size": 0}, "parallelism.tp=0: Input should be greater than or equal to 1"),
        ({"max_batch_size": "many"}, "batching.max_batch_size='many': Input should be a valid integer"),
        (
            {"speculative_config": {"decoding_type": "MTP", "max_draft_len": 1, "num_nextn_predict_layers": 1}},
            "speculative_config.num_nextn_predict_layers and speculative_config.max_draft_len: are one argument",
        ),
        ("a: [1", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_passed_on_is_named_with_the_recipe(tmp_path: Path, args: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, args)
    assert str(caught.value).startswith("a.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_passes_where_the_user_lets_it(tmp_path: Path) -> None:
    args = {"brand_new_config": {"speed": 11}, "moe_config": {"backend": "NEWEST"}}
    config = config_of(tmp_path, args, study(allow_unknown=True))
    assert dict(leaves(llm_args(config, study(allow_unknown=True)))).items() >= dict(leaves(args)).items()


@pytest.mark.parametrize(
    ("version", "policy"), [("1.3.0rc21", "block_reuse_policy"), ("1.3.0rc24", "block_reuse_config")]
)
@pytest.mark.parametrize(
    "group", [{"block_reuse_policy": "per_request"}, {"block_reuse_config": {"policy": "per_request"}}]
)
def test_a_key_that_got_another_name_has_that_of_the_version(
    tmp_path: Path, version: str, policy: str, group: dict[str, Any]
) -> None:
    of = study(version)
    config = config_of(tmp_path, {"kv_cache_config": group}, of)
    assert config.knobs["kv_cache_config.block_reuse_config.policy"] == "per_request"
    assert policy in llm_args(config, of)["kv_cache_config"]


def test_without_a_version_the_newest_known_counts(tmp_path: Path) -> None:
    assert config_of(tmp_path, {"max_batch_size": 1}, study(version=None)).batching.max_batch_size == 1
    with pytest.raises(ConfigError, match=LISTED[-1]):
        config_of(tmp_path, {"no_such_key": 1}, study(version=None))


def test_a_recipe_of_another_model_has_no_config(tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe_at(RECIPE_FILES[0]), model="someone/else")
    with pytest.raises(ConfigError, match=r"is for someone/else, which is no checkpoint of gpt-oss-120b"):
        engine_config(recipe, study())
