"""Which tool a file is of, and that no file whatsoever is more than rejected."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.importers.composed import compose_study
from pipeline.importers.records import records
from pipeline.importers.tools import IMPORTERS, read_foreign
from tests.importers.samples import DATA

TOOL_OF = {
    "trtllm_bench_streaming_energy.json": "trtllm-bench",
    "inferencex_agg_power.json": "inferencex",
    "inferencex_agg.json": "inferencex",
    "inferencex_benchmark_serving.json": "inferencex-benchmark-serving",
    "vllm_bench_serve.json": "vllm-bench-serve",
    "vllm_bench_serve_detailed.json": "vllm-bench-serve",
    "vllm_bench_serve_rate.json": "vllm-bench-serve",
    "load_client.json": "benchmark-serving",
    "aiperf_profile_export_aiperf.json": "aiperf",
    "aiperf_profile_export_aiperf.csv": "aiperf",
    "aiperf_profile_export.jsonl": "aiperf",
    "mlenergy_openai__gpt-oss-120b__gpqa.json": "mlenergy",
}


@pytest.mark.parametrize("name", TOOL_OF)
def test_a_file_tells_its_tool(name: str) -> None:
    assert {each.tool for each in read_foreign(DATA / name, None).reported} == {TOOL_OF[name]}


@pytest.mark.parametrize("name", TOOL_OF)
@pytest.mark.parametrize("tool", IMPORTERS)
def test_a_tool_that_was_named_reads_its_own_files_alone(name: str, tool: str) -> None:
    is_own = TOOL_OF[name] == tool or (
        tool.endswith(("serving", "serve")) and TOOL_OF[name].endswith(("serving", "serve"))
    )
    if is_own:
        assert read_foreign(DATA / name, tool).reported
    elif tool == "inferencex":
        assert not read_foreign(DATA / name, tool).reported
    else:
        with pytest.raises(ConfigError):
            read_foreign(DATA / name, tool)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("other.json", b'{"a": 1}', "is of no tool known here; known: trtllm-bench, inferencex"),
        ("other.json", b"[]", "is of no tool known here"),
        ("other.json", b"{", "is no JSON"),
        ("other.json", b"[" * 100_000, "is nested too deeply"),
        ("other.jsonl", b'{"a": 1}\n{', "is no JSON"),
        ("other.csv", b"a,b\n1,2\n", "is of no tool known here"),
        ("other.csv", b"\xff\xfe", "is no JSON"),
    ],
)
def test_a_file_of_no_tool_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_foreign(path, None)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sidecar_says_where_the_figures_are(tmp_path: Path) -> None:
    summary = tmp_path / "profile_export_aiperf_aggregate.json"
    summary.write_text(json.dumps({"metadata": {"aggregation_type": "confidence"}, "metrics": {}}))
    with pytest.raises(ConfigError, match="give each run's profile_export_aiperf"):
        read_foreign(summary, None)
    with pytest.raises(ConfigError, match="the figures are in its agg_"):
        read_foreign(DATA / "inferencex_power_validation.json", None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = {name: json.loads((DATA / name).read_text()) for name in TOOL_OF if name.endswith(".json")}
GIVEN = ["model=gpt-oss-120b", "hardware=h100", "precision.weights=fp4"]


@settings(max_examples=20)
@given(data=st.data(), name=st.sampled_from(sorted(OBJECTS)), value=ANYTHING)
def test_whatever_stands_there_becomes_a_row_or_is_rejected(
    tmp_path_factory: Any, data: st.DataObject, name: str, value: Any
) -> None:
    content = json.loads(json.dumps(OBJECTS[name]))
    within = content
    for _ in range(data.draw(st.integers(0, 2))):
        inner = [each for each in (within.values() if isinstance(within, dict) else within) if each]
        inner = [each for each in inner if isinstance(each, dict | list)]
        within = data.draw(st.sampled_from(inner)) if inner else within
    within[data.draw(st.sampled_from(sorted(within) if isinstance(within, dict) else range(len(within))))] = value
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    try:
        read = read_foreign(path, None)
    except ConfigError:
        return
    for each in read.reported:
        words = [*GIVEN, *(["engine=vllm"] if each.engine is None else []),
                 *([] if each.has_parallelism else ["parallelism.tp=1"])]  # fmt: skip
        try:
            study, config = compose_study(each, words)
            _, row = records(each, study, config, 0, None if each.concurrency else 8)
        except ConfigError:
            continue
        assert all(math.isfinite(v) for v in row.to_dict().values() if isinstance(v, float))
        assert row.output_tokens_per_joule is None or row.output_tokens_per_joule > 0
