import csv
import itertools
from importlib import resources

import pytest

from pipeline.engine.trtllm.manifest import Argument, every_argument, find_manifest
from pipeline.engine.trtllm.versions import LISTED, NEWEST, order

TYPED = {"1.3.0rc21": 260, "1.3.0rc24": 289, "1.3.0rc27": 300, "1.3.0rc29": 308}
"""How many arguments each release's own list has (docs/source/developer-guide/telemetry.md)."""

IN_ITS_LIST_BUT_FREE_FORM_HERE = {
    "1.3.0rc29": {"sparse_attention_config.target_sparsity", "sparse_attention_config.threshold_scale_factor"}
}
"""Numbers or mappings: the earlier lists leave them out, so that their versions are not known."""

FREE_FORM = {"str", "dict", "any", "list[str]"}


def typed(version: str) -> set[str]:
    arguments = find_manifest(version).arguments
    return {
        path
        for path, argument in arguments.items()
        if not argument.is_group and not {name for name in argument.types if name in FREE_FORM}
    }


@pytest.mark.parametrize("version", LISTED)
def test_a_listed_release_has_as_many_typed_arguments_as_its_own_list(version: str) -> None:
    assert len(typed(version) | IN_ITS_LIST_BUT_FREE_FORM_HERE.get(version, set())) == TYPED[version]


def test_the_table_is_sound() -> None:
    text = (resources.files("pipeline.engine.trtllm") / "data" / "llm_args.tsv").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines, delimiter="\t"))
    assert "Apache-2.0" in text.split("path\t")[0]
    for row in rows:
        assert None not in row.values()
        assert not (row["since"] and row["until"]) or order(row["since"]) < order(row["until"])
        assert ("literal" in row["type"]) == bool(row["words"])
    for one, later in itertools.pairwise(rows):  # no version has two rows of one argument
        assert one["path"] <= later["path"]
        if one["path"] == later["path"]:
            assert order(one["until"]) <= order(later["since"])


@pytest.mark.parametrize("version", ["1.0.0", *LISTED, "9.0"])
def test_every_argument_lies_in_a_group(version: str) -> None:
    manifest = find_manifest(version)
    for path in manifest.arguments:
        group = path.rpartition(".")[0]
        assert not group or manifest.arguments[group].is_group


def test_no_version_is_the_newest() -> None:
    assert find_manifest(None).arguments == find_manifest(NEWEST).arguments


@pytest.mark.parametrize(
    ("version", "path", "is_there"),
    [
        ("1.3.0rc8", "enable_energy_metrics", False),
        ("1.3.0rc9", "enable_energy_metrics", True),
        ("1.2.0", "telemetry_config.disabled", False),
        ("1.3.0rc21", "telemetry_config.disabled", True),
        ("1.3.0rc23", "kv_cache_config.block_reuse_config.policy", False),
        ("1.3.0rc23", "kv_cache_config.block_reuse_policy", True),
        ("1.3.0rc24", "kv_cache_config.block_reuse_config.policy", True),
        ("1.3.0rc24", "kv_cache_config.block_reuse_policy", False),
        ("1.3.0rc24", "speculative_config.eagle3_one_model", True),
        ("1.3.0rc27", "speculative_config.eagle3_one_model", False),
        ("1.4.0", "speculative_config.skip_ctx_buffer_budget_check", True),
    ],
)
def test_a_version_has_what_its_time_had(version: str, path: str, is_there: bool) -> None:
    assert (path in find_manifest(version)) == is_there


@pytest.mark.parametrize(
    ("version", "backend", "is_allowed"),
    [
        ("1.1.0", "AUTO", False),
        ("1.2.0", "AUTO", True),
        ("1.3.0rc24", "WIDEEP", True),
        ("1.3.0rc27", "WIDEEP", False),
        ("1.3.0rc21", "MEGAMOE_CUTEDSL", False),
        ("1.3.0rc24", "MEGAMOE_CUTEDSL", True),
        ("1.3.0rc29", "CUTEDSL_FC12", True),
        ("1.3.0rc29", "triton", False),
    ],
)
def test_moe_backends_came_and_went(version: str, backend: str, is_allowed: bool) -> None:
    assert (find_manifest(version).problem("moe_config.backend", backend) is None) == is_allowed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("max_batch_size", 64),
        ("max_batch_size", None),
        ("stream_interval", 1),
        ("enable_autotuner", False),
        ("batch_wait_timeout_ms", 5),
        ("batch_wait_timeout_ms", 0.5),
        ("kv_cache_config.free_gpu_memory_fraction", 0.9),
        ("cuda_graph_config.batch_sizes", (1, 2, 4)),
        ("cuda_graph_config.batch_sizes", [1, 2, 4]),
        ("cuda_graph_config", None),
        ("cuda_graph_config.num_tokens", [1, 8]),
        ("nvfp4_gemm_config.allowed_backends", ["cutlass", "cutedsl"]),
        ("speculative_config.eagle_choices", [[0], [0, 1]]),
        ("speculative_config.max_draft_len", 0),
        ("speculative_config.speculative_model", "org/draft"),
        ("speculative_config.draft_len_schedule", {4: 4, 8: 2}),
        ("speculative_config.draft_len_schedule.4", 4),
        ("kv_cache_config.use_kv_cache_manager_v2", True),
        ("kv_cache_config.use_kv_cache_manager_v2", "auto"),
        ("kv_cache_config.kv_events_config.publisher", "null"),
        ("sparse_attention_config.topr", 0.5),
        ("sparse_attention_config.threshold_scale_factor", 1000.0),
        ("moe_config.load_balancer", "balance.yaml"),
        ("moe_config.load_balancer.num_slots", 288),
        ("model_kwargs.num_hidden_layers", 4),
        ("env_overrides", {"TRTLLM_ENABLE_PDL": "1"}),
        ("kv_cache_config", {"dtype": "fp8"}),
    ],
)
def test_what_tensorrt_llm_takes_is_no_problem(path: str, value: object) -> None:
    assert find_manifest("1.3.0rc27").problem(path, value) is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("max_batch_size", True, "max_batch_size=true: allowed: a whole number or null"),
        ("max_batch_size", 64.0, "max_batch_size=64.0: allowed: a whole number or null"),
        ("max_batch_size", "64", "max_batch_size=64: allowed: a whole number or null"),
        ("stream_interval", None, "stream_interval=null: allowed: a whole number"),
        ("enable_autotuner", 1, "enable_autotuner=1: allowed: true or false"),
        ("batch_wait_timeout_ms", True, "batch_wait_timeout_ms=true: allowed: a number"),
        ("attn_backend", "flash", "attn_backend=flash: allowed: VANILLA, TRTLLM, FLASHINFER"),
        ("attn_backend", 3, "attn_backend=3: allowed: VANILLA, TRTLLM, FLASHINFER"),
        ("cuda_graph_config.batch_sizes", 4, "allowed: a list, each item a whole number or null"),
        ("cuda_graph_config.batch_sizes", [1, "2"], 'cuda_graph_config.batch_sizes=[1, "2"]: allowed: a list'),
        ("cuda_graph_config.num_tokens", [0], "allowed: a list, each item a whole number from 1 on"),
        ("cuda_graph_config", 1, "cuda_graph_config=1: allowed: a group of keys or null"),
        ("kv_cache_config", None, "kv_cache_config=null: allowed: a group of keys"),
        ("speculative_config.max_concurrency", 0, "concurrency=0: allowed: a whole number from 1 on or"),
        ("speculative_config.max_draft_len", -1, "draft_len=-1: allowed: a whole number from 0 on or"),
        ("nvfp4_gemm_config.allowed_backends", ["x"], "allowed: a list, each item cutlass, cublaslt, cuted"),
        ("model_kwargs", 1, "model_kwargs=1: allowed: a mapping or null"),
        (
            "kv_cache_free_gpu_memory_fraction", 0.9,
            "kv_cache_free_gpu_memory_fraction: TensorRT-LLM 1.3.0rc27 has no such key (did you mean "
            "'kv_cache_config.free_gpu_memory_fraction'?)",
        ),
        ("moe_config.backnd", "TRTLLM", "has no such key (did you mean 'moe_config.backend'?)"),
        ("max_batch_size.inner", 1, "max_batch_size.inner: TensorRT-LLM 1.3.0rc27 has no such key"),
        ("qqqqq", 1, "qqqqq: TensorRT-LLM 1.3.0rc27 has no such key"),
    ],
)  # fmt: skip
def test_what_it_does_not_take_is_one_line_with_what_it_does(path: str, value: object, message: str) -> None:
    problem = find_manifest("1.3.0rc27").problem(path, value)
    assert problem is not None
    assert message in problem
    assert "\n" not in problem


def test_a_file_is_checked_key_by_key() -> None:
    args = {
        "tensor_parallel_size": 2,
        "moe_config": {"backend": "TRTLLM", "load_balancer": {"num_slots": 288, "anything": [1]}},
        "kv_cache_config": {"dtype": "fp7", "kv_events_config": {"hwm": "x"}},
        "odd": {"deep": 1},
        "cuda_graph_config": None,
        "env_overrides": {"A": "1"},
    }
    problems = find_manifest("1.3.0rc27").problems(args)
    assert [problem.split(":")[0] for problem in problems] == [
        "kv_cache_config.dtype=fp7", "kv_cache_config.kv_events_config.hwm=x", "odd",
    ]  # fmt: skip


def test_every_release_together_has_what_any_had() -> None:
    every = every_argument()
    for version in ("1.0.0", *LISTED):
        assert find_manifest(version).arguments.keys() <= every.arguments.keys()


def test_an_argument_says_what_it_takes() -> None:
    assert str(Argument(types=("bool", "literal"), words=("auto",))) == "true or false or auto"
    assert not Argument(types=("literal",), words=("A",)).takes("a")
