import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.trtllm.llm_args import AXES, draft_model, leaves, llm_args
from pipeline.engine.trtllm.manifest import Argument, find_manifest
from pipeline.engine.trtllm.versions import LISTED, NEWEST
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.study import Study
from tests.builders import make_study

STUDY = make_study(
    "model=gpt-oss-120b", "hardware=b200", "engine=trtllm", "precision=auto", "workload=chat_1k_1k", "plan=quick"
)

WITHOUT_DRAFTS = dataclasses.replace(STUDY, model=dataclasses.replace(STUDY.model, draft_models={}))


def at(version: str | None, **changes: Any) -> Study:
    """The study for a version, with other engine settings changed too."""
    return dataclasses.replace(STUDY, engine=dataclasses.replace(STUDY.engine, version=version, **changes))


def config(knobs: dict[str, Value] | None = None, **axes: Value | None) -> EngineConfig:
    """A config with the given knobs and axes, these written with __ for the dot."""
    values = {"precision.weights": "fp4", **{key.replace("__", "."): value for key, value in axes.items()}}
    return EngineConfig.from_axes(
        "trtllm", values | {f"engine.knobs.{key}": value for key, value in (knobs or {}).items()}
    )


def args(knobs: dict[str, Value] | None = None, study: Study = STUDY, **axes: Value | None) -> dict[str, Any]:
    """The file's content."""
    return llm_args(config(knobs, **axes), study)


KNOBS = {
    path: argument
    for path, argument in find_manifest(NEWEST).arguments.items()
    if not argument.is_group and path not in AXES and "list[list[int]]" not in argument.types
}
"""Every argument that can be a knob; a list of lists is no value of an engine config."""

_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.integers(-5, 10**6),
    "int>0": st.integers(1, 10**6),
    "int>=0": st.integers(0, 10**6),
    "float": st.floats(0, 10, allow_nan=False),
    "str": st.sampled_from(["word", "true", "1", "null", "a: b"]),
    "any": st.just("anything"),
}


def value_of(argument: Argument) -> st.SearchStrategy[Value]:
    """Values that an argument takes and a knob can have."""
    strategies: list[st.SearchStrategy[Any]] = []
    for name in argument.types:
        inner = name.removeprefix("list[").removesuffix("]")
        scalar = st.sampled_from(argument.words) if inner == "literal" else _SCALARS.get(inner)
        if scalar is not None:
            several = st.lists(scalar, min_size=1, max_size=3).map(tuple)
            strategies.append(scalar if name == inner else several)
    return st.one_of(strategies)


CHOSEN = st.sets(st.sampled_from(sorted(path for path in KNOBS if "dict" not in KNOBS[path].types)), max_size=8)
AXIS_VALUES: dict[str, tuple[Value, ...]] = {
    "parallelism.tp": (1, 2, 8), "parallelism.pp": (1, 2), "parallelism.cp": (1, 2), "parallelism.ep": (1, 4),
    "parallelism.moe_tp": (1, 2), "parallelism.attention_dp": (False, True), "batching.max_batch_size": (1, 720),
    "batching.max_num_tokens": (256, 16384), "batching.kv_cache_fraction": (0.85,),
    "batching.chunked_prefill": (False, True), "precision.kv_cache": ("auto", "bf16", "fp8", "nvfp4"),
}  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> EngineConfig:
    """Any axes and any knobs, each allowed by itself."""
    axes = {key: draw(st.sampled_from((None, *values))) for key, values in AXIS_VALUES.items()}
    names = draw(CHOSEN) - {"speculative_config.decoding_type", "speculative_config.speculative_model"}
    knobs = {f"engine.knobs.{name}": draw(value_of(KNOBS[name])) for name in sorted(names)}
    if draw(st.booleans()):
        knobs["engine.knobs.speculative_config.decoding_type"] = draw(st.sampled_from(["MTP", "NGram", "AUTO"]))
    return EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", **axes, **knobs})


@settings(max_examples=150)
@given(configs(), st.booleans(), st.sampled_from(["checkpoint", "random"]))
def test_whatever_is_rendered_is_what_the_manifest_allows(given_config: EngineConfig, on: bool, weights: Any) -> None:
    study = dataclasses.replace(at(None, instrumented=on), weights=weights)
    made = llm_args(given_config, study)
    assert find_manifest(NEWEST).problems(made) == []
    shuffled = dataclasses.replace(given_config, knobs=dict(reversed(given_config.knobs.items())))
    assert yaml.safe_dump(llm_args(shuffled, study), sort_keys=False) == yaml.safe_dump(made, sort_keys=False)
    read_back = yaml.safe_load(yaml.dump(made, Dumper=yaml.CSafeDumper, sort_keys=False))
    assert dict(leaves(read_back)) == dict(leaves(made))


@pytest.mark.parametrize("version", ["1.0.0", "1.2.0", "1.3.0rc14", *LISTED])
def test_every_version_gets_only_keys_that_it_has(version: str) -> None:
    knobs: dict[str, Value] = {
        "speculative_config.decoding_type": "MTP", "speculative_config.max_draft_len": 2, "moe_config.backend": "TRTLLM"
    }  # fmt: skip
    made = args(knobs, at(version, instrumented=True), parallelism__tp=2, parallelism__attention_dp=True)
    assert find_manifest(version).problems(made) == []


SAMPLES: dict[str, Value] = {
    "bool": True, "int": 8, "int>0": 8, "int>=0": 8, "float": 0.5, "str": "word", "any": "anything",
    "list[float]": (0.5,), "list[int]": (8, 16), "list[int>0]": (8,), "list[str]": ("a", "b"),
}  # fmt: skip


def sample(argument: Argument) -> Value:
    """One value that an argument takes."""
    first = argument.types[0]
    word = argument.words[-1] if argument.words else ""
    if first == "dict":
        return "word"
    return word if first == "literal" else (word,) if first == "list[literal]" else SAMPLES[first]


def test_every_argument_can_be_a_knob_and_appears_at_its_path() -> None:
    assert len(KNOBS) > 300
    for name, argument in KNOBS.items():
        knob = f"{name}.inner" if argument.types[0] == "dict" else name
        value = "NGram" if knob == "speculative_config.decoding_type" else sample(argument)
        shown = "{draft_model}" if knob == "speculative_config.speculative_model" else value
        made = dict(leaves(args({knob: value})))
        assert made[knob] == (list(shown) if isinstance(shown, tuple) else shown)


def test_everything_that_is_set_reaches_the_file() -> None:
    made = args(
        {
            "cuda_graph_config.max_batch_size": 512, "cuda_graph_config.enable_padding": True,
            "moe_config.backend": "TRITON",
            "attention_dp_config.timeout_iters": 60,
        },
        parallelism__tp=8, parallelism__pp=2, parallelism__cp=2, parallelism__ep=2, parallelism__moe_tp=4,
        parallelism__attention_dp=True, batching__max_batch_size=720, batching__max_num_tokens=16384,
        batching__kv_cache_fraction=0.85, batching__chunked_prefill=True, precision__kv_cache="fp8",
    )  # fmt: skip
    assert made == {
        "tensor_parallel_size": 8,
        "pipeline_parallel_size": 2,
        "context_parallel_size": 2,
        "moe_expert_parallel_size": 2,
        "moe_tensor_parallel_size": 4,
        "enable_attention_dp": True,
        "max_batch_size": 720,
        "max_num_tokens": 16384,
        "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.85, "enable_block_reuse": False},
        "enable_chunked_prefill": True,
        "max_seq_len": 2048,
        "stream_interval": 1,
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": 512},
        "telemetry_config": {"disabled": True},
        "attention_dp_config": {"timeout_iters": 60},
        "moe_config": {"backend": "TRITON"},
    }


def test_what_is_not_set_is_left_to_tensorrt_llm() -> None:
    assert args() == {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "kv_cache_config": {"dtype": "auto", "enable_block_reuse": False},
        "max_seq_len": 2048,
        "stream_interval": 1,
        "telemetry_config": {"disabled": True},
    }


def test_blocks_are_reused_only_where_prompts_share_a_prefix_unless_a_knob_says_otherwise() -> None:
    shared = dataclasses.replace(STUDY, workload=dataclasses.replace(STUDY.workload, shared_prefix_tokens=256))
    assert args(study=shared)["kv_cache_config"]["enable_block_reuse"] is True
    knob: dict[str, Value] = {"kv_cache_config.enable_block_reuse": False, "max_seq_len": 2304, "stream_interval": 20}
    made = args(knob, shared)
    assert (made["kv_cache_config"]["enable_block_reuse"], made["max_seq_len"], made["stream_interval"]) == (
        False, 2304, 20,
    )  # fmt: skip


def test_cuda_graphs_reach_to_the_batch_size_unless_sizes_are_given() -> None:
    padded: dict[str, Value] = {"cuda_graph_config.enable_padding": True}
    made = args(padded, batching__max_batch_size=64)["cuda_graph_config"]
    assert made == {"enable_padding": True, "max_batch_size": 64}
    sizes = args(padded | {"cuda_graph_config.batch_sizes": (1, 8)}, batching__max_batch_size=64)["cuda_graph_config"]
    assert sizes == {"enable_padding": True, "batch_sizes": [1, 8]}
    assert "cuda_graph_config" not in args(batching__max_batch_size=64)


def test_cuda_graphs_can_be_switched_off() -> None:
    made = args({"cuda_graph_config": False}, batching__max_batch_size=64)
    assert made["cuda_graph_config"] is None
    assert find_manifest(NEWEST).problems(made) == []


def test_chunked_prefill_can_be_switched_off() -> None:
    assert args(batching__chunked_prefill=False)["enable_chunked_prefill"] is False


def test_earlier_names_of_knobs_still_hold() -> None:
    made = args({"moe_backend": "TRITON", "cuda_graph_max_batch_size": 32})
    assert made["moe_config"] == {"backend": "TRITON"}
    assert made["cuda_graph_config"]["max_batch_size"] == 32


def test_variables_of_the_environment_are_not_in_the_file() -> None:
    assert args({"env.TRTLLM_ENABLE_PDL": "1"}) == args()


def test_random_weights_are_tensorrt_llms_own() -> None:
    assert args(study=dataclasses.replace(STUDY, weights="random"))["load_format"] == "dummy"


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ("1.1.0", {"enable_iter_perf_stats"}),
        ("1.2.0", {"enable_iter_perf_stats", "return_perf_metrics"}),
        ("1.3.0rc9", {"enable_iter_perf_stats", "return_perf_metrics", "enable_energy_metrics"}),
    ],
)
def test_its_own_metrics_are_on_where_asked_for_and_known(version: str, has: set[str]) -> None:
    plain, instrumented = args(study=at(version)), args(study=at(version, instrumented=True))
    assert instrumented.keys() - plain.keys() == has


@pytest.mark.parametrize(("version", "is_off"), [("1.2.0", False), ("1.3.0rc21", True), (None, True)])
def test_telemetry_is_off_where_the_key_is_known(version: str | None, is_off: bool) -> None:
    assert ("telemetry_config" in args(study=at(version))) == is_off


@pytest.mark.parametrize(
    ("version", "speculative_config"),
    [
        ("1.2.0", {"decoding_type": "MTP", "num_nextn_predict_layers": 3}),
        ("1.3.0rc14", {"decoding_type": "MTP", "max_draft_len": 3}),
    ],
)
def test_a_key_is_called_as_the_version_calls_it(version: str, speculative_config: dict[str, Value]) -> None:
    knobs: dict[str, Value] = {"speculative_config.decoding_type": "MTP", "speculative_config.max_draft_len": 3}
    assert args(knobs, at(version))["speculative_config"] == speculative_config


def test_a_draft_model_is_a_placeholder() -> None:
    knobs: dict[str, Value] = {"speculative_config.decoding_type": "Eagle3", "speculative_config.max_draft_len": 3}
    drafts = dataclasses.replace(STUDY, model=dataclasses.replace(STUDY.model, draft_models={"Eagle3": "org/eagle"}))
    assert draft_model(config(knobs), drafts) == "org/eagle"
    assert args(knobs, drafts)["speculative_config"]["speculative_model"] == "{draft_model}"
    own = {**knobs, "speculative_config.speculative_model": "/models/mine"}
    assert draft_model(config(own), drafts) == "/models/mine"
    assert "/models/mine" not in str(args(own, drafts))
    old = args(own, dataclasses.replace(drafts, engine=at("1.1.0").engine))
    assert old["speculative_config"]["speculative_model_dir"] == "{draft_model}"
    assert draft_model(config({"speculative_config.decoding_type": "MTP"}), drafts) is None


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"moe_config.backnd": "TRTLLM"},
            r"knobs\.moe_config\.backnd: .*did you mean 'moe_config\.backend'.*allow_unknown",
        ),
        ({"moe_config.backend": "triton"}, r"knobs\.moe_config\.backend=triton: allowed: AUTO, .*TRITON"),
        ({"moe_backend": "ABACUS"}, r"engine\.knobs\.moe_backend=ABACUS: allowed: AUTO, "),
        ({"cuda_graph_max_batch_size": 1.5}, r"knobs\.cuda_graph_max_batch_size=1\.5: allowed: a whole number"),
        ({"max_batch_size": 8}, r"knobs\.max_batch_size: is no knob here; set batching\.max_batch_size"),
        ({"kv_cache_config.dtype": "fp8"}, r"kv_cache_config\.dtype: is no knob here; set precision\.kv_cache"),
        ({"env_overrides.A": "1"}, r"env_overrides.A: is no knob here; set engine\.knobs\.env\.NAME"),
        ({"moe_backend": "TRITON", "moe_config.backend": "TRITON"}, "by an earlier name, which is set too"),
        (
            {"cuda_graph_config": False, "cuda_graph_config.max_batch_size": 8},
            "=false: and cuda_graph_config.max_b.* too",
        ),
        ({"cuda_graph_config": True}, "cuda_graph_config=true: allowed: a group of keys or null"),
        (
            {"speculative_config.decoding_type": "Eagle3"},
            r"=Eagle3: needs a draft model, and model\.draft_models of gpt-oss-120b has none.*set engine\.knobs\.spec",
        ),
        (
            {"speculative_config.decoding_type": "MTP", "speculative_config.speculative_model": "a/b"},
            "=a/b: MTP needs no draft model; leave it out",
        ),
    ],
)
def test_what_it_cannot_be_told_is_one_clear_message(knobs: dict[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        args(knobs, WITHOUT_DRAFTS)


def test_an_unknown_key_is_passed_on_if_asked_for() -> None:
    knobs: dict[str, Value] = {"moe_config.newer": 3, "newest": True, "moe_config.backend": "LATER"}
    made = args(knobs, at(None, allow_unknown=True))
    assert (made["moe_config"], made["newest"]) == ({"newer": 3, "backend": "LATER"}, True)
    with pytest.raises(ConfigError, match=r"moe_config\.backend=X: and moe_config itself is set too"):
        args({"moe_config": 1, "moe_config.backend": "X"}, at(None, allow_unknown=True))


def test_a_kv_cache_type_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision\.kv_cache=u8: engine=trtllm takes auto, bf16, fp8, nvfp4"):
        args(precision__kv_cache="u8")
