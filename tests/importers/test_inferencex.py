"""Points of InferenceX: units, boundaries, deployments of several nodes, and points that cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.importers import inferencex
from pipeline.importers.foreign_file import read_file
from pipeline.importers.reported import Reported
from pipeline.vocabulary import Boundary
from tests.importers.samples import DATA, GONE, changed

POWER, BARE = DATA / "inferencex_agg_power.json", DATA / "inferencex_agg.json"


def point(path: Path) -> Reported:
    """The one point of a file.

    Raises:
        ConfigError: If it is rejected.
    """
    read = inferencex.read(read_file(path))
    if read.rejected:
        raise ConfigError(read.rejected[0])
    return read.reported[0]


def test_a_point_with_power_is_of_gpu_boards() -> None:
    found = point(POWER)
    assert (found.engine, found.engine_version, found.hardware) == ("trtllm", "1.3.0rc14", "h100")
    assert (found.model, found.model_choice, found.weights) == ("tiny", "gpt-oss-120b", "fp4")
    assert (found.concurrency, found.isl_tokens, found.osl_tokens, found.num_gpus) == (8, 1024, 1024, 2)
    assert (found.boundary, found.power_w, found.gpu_energy_j) == (Boundary.GPU, 822.176, 3348.167)
    assert found.latencies_s == pytest.approx({
        "ttft_p50_s": 0.116164, "ttft_p99_s": 0.253325, "tpot_p50_s": 0.00693857, "tpot_p99_s": 0.00877378,
        "e2e_p50_s": 0.392286, "e2e_p99_s": 0.5008,
    }, rel=1e-5)  # fmt: skip


def test_what_it_divided_comes_out_as_its_own_client_counted() -> None:
    found, client = point(POWER), json.loads((DATA / "inferencex_benchmark_serving.json").read_text())
    assert found.output_tokens == client["total_output_tokens"]
    assert found.input_tokens == client["total_input_tokens"]
    assert found.num_completed == client["completed"]
    assert found.duration_s == pytest.approx(client["duration"], rel=1e-4)
    assert found.output_tokens_per_s == pytest.approx(client["output_throughput"])
    total = client["total_token_throughput"]
    assert found.output_tokens_per_s + (found.input_tokens_per_s or 0) == pytest.approx(total)


@pytest.mark.parametrize(
    "change",
    [
        {"power_valid": 0},
        {"power_valid": GONE},
        {"power_metric_schema_version": 1},
        {"power_metric_schema_version": GONE, "power_valid": GONE},
    ],
)
def test_power_that_nothing_validated_is_left_out_for_the_facility(tmp_path: Path, change: dict[str, Any]) -> None:
    found = point(changed(POWER, tmp_path, change))
    assert (found.boundary, found.power_w, found.gpu_energy_j) == (Boundary.FACILITY, None, None)
    assert "power block: not validated, left out" in found.notes


def test_a_point_without_power_is_of_the_facility_and_nothing_was_left_out(tmp_path: Path) -> None:
    found = point(changed(BARE, tmp_path, {"power_valid": GONE, "power_metric_schema_version": GONE}))
    assert found.boundary is Boundary.FACILITY
    assert not [note for note in found.notes if note.startswith("power")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"median_tpot": 6.9386}, "units in doubt: 1 / median_tpot and median_intvty"),  # milliseconds
        ({"median_tpot": 6.9386, "median_intvty": GONE}, "units in doubt: 830.976 output tokens/s of 8 users"),
        ({"median_ttft": 116.16}, "units in doubt: the median TTFT of 116.16 s is longer"),
        ({"isl": GONE, "scenario_type": "agentic-coding"}, "agentic-coding: its requests have no nominal lengths"),
        ({"conc": 0}, "conc=0: a row needs a number above 0"),
        ({"conc": "8"}, "conc='8': is no number"),
        ({"hw": GONE}, "is no point of InferenceX: it has no hw"),
        ({"output_tput_per_gpu": None}, "output_tput_per_gpu=None: a row needs"),
        ({"output_tput_per_gpu": 1000}, "2000 output tokens/s are more than all of tput_per_gpu x 2 GPUs"),
        ({"input_tput_per_gpu": 1112.14}, "tput_per_gpu less output_tput_per_gpu, and input_tput_per_gpu"),
        ({"avg_power_w": 822.176}, "avg_power_w x 2 GPUs and avg_total_gpu_power_w: 1644.35 and 822.176"),
        ({"tp": GONE}, "tp=None: a row needs"),
        ({"prefill_hw": "h200", "decode_hw": "h100"}, "prefill on h200 and decode on h100"),
        ({"is_multinode": True}, "num_prefill_gpu and num_decode_gpu are not there"),
    ],
)
def test_a_point_in_doubt_is_rejected_with_its_reason(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        point(changed(POWER, tmp_path, change))
    assert said in str(refused.value)


def test_a_list_keeps_its_good_points(tmp_path: Path) -> None:
    whole = json.loads(POWER.read_text())
    path = tmp_path / "agg_all.json"
    path.write_text(json.dumps([whole, {**whole, "conc": None}, 7, {**whole, "conc": 16}]))
    read = inferencex.read(read_file(path))
    assert [each.concurrency for each in read.reported] == [8, 16]
    assert [text.split(": ")[0] for text in read.rejected] == [f"{path}[1]", f"{path}[2]"]
    assert read.reported[0].digest == point(POWER).digest  # wherever a point is filed, it is one


SPLIT = {
    "is_multinode": True, "disagg": True, "framework": "dynamo-trt", "prefill_tp": 4, "prefill_ep": 4,
    "prefill_dp_attention": "true", "prefill_num_workers": 1, "decode_tp": 8, "decode_ep": 8,
    "decode_dp_attention": "true", "decode_num_workers": 2, "num_prefill_gpu": 4, "num_decode_gpu": 16,
    "output_tput_per_gpu": 50.0, "input_tput_per_gpu": 300.0, "tput_per_gpu": 100.0,
}  # fmt: skip


def test_a_disaggregated_point_counts_tokens_over_the_gpus_of_their_role(tmp_path: Path) -> None:
    found = point(changed(BARE, tmp_path, SPLIT))
    assert (found.num_gpus, found.engine, found.engine_version) == (20, "trtllm", None)
    assert (found.output_tokens_per_s, found.input_tokens_per_s) == (800, 1200)
    axes = {key: value for key, value in found.axes.items() if value is not None}
    assert (axes["parallelism.tp"], axes["parallelism.ep"], axes["parallelism.attention_dp"]) == (8, 8, True)
    assert axes["engine.knobs.inferencex.prefill_tp"] == 4
    assert axes["engine.knobs.inferencex.framework"] == "dynamo-trt"


def test_several_nodes_without_roles_are_as_their_only_engines(tmp_path: Path) -> None:
    alone = {"decode_tp": 0, "decode_ep": 0, "decode_num_workers": 0, "num_prefill_gpu": 16, "num_decode_gpu": 0}
    rates = {"output_tput_per_gpu": 50.0, "input_tput_per_gpu": 75.0, "tput_per_gpu": 125.0, "prefill_pp": 2}
    found = point(changed(BARE, tmp_path, SPLIT | alone | rates))
    assert (found.num_gpus, found.output_tokens_per_s, found.input_tokens_per_s) == (16, 800, 1200)
    axes = found.axes
    assert (axes["parallelism.tp"], axes["parallelism.pp"], axes["parallelism.ep"]) == (4, 2, 4)


BEFORE_DECEMBER_2025 = {"is_multinode": GONE, "disagg": True, "tp": 20, "mtp": "on", "spec_decoding": GONE}
"""As utils/process_result.py wrote it from a2f2a544c (17 November) to 93e1b3ca1 (5 December)."""


def test_a_disaggregated_point_of_november_2025_has_roles_too(tmp_path: Path) -> None:
    of_roles = {key: value for key, value in SPLIT.items() if key.endswith(("_gpu", "framework"))}
    found = point(changed(BARE, tmp_path, BEFORE_DECEMBER_2025 | of_roles))
    assert (found.num_gpus, found.output_tokens_per_s, found.input_tokens_per_s) == (20, 800, 1200)
    assert not found.has_parallelism  # of its engines, which is asked for
    assert found.axes["engine.knobs.speculative_config.decoding_type"] == "mtp"


def test_one_that_does_not_say_its_roles_is_in_doubt(tmp_path: Path) -> None:
    rates = {key: value for key, value in SPLIT.items() if key.endswith("put_per_gpu")}
    with pytest.raises(ConfigError, match="units in doubt"):
        point(changed(BARE, tmp_path, BEFORE_DECEMBER_2025 | rates))


@pytest.mark.parametrize(
    ("framework", "image", "expected"),
    [
        ("trt", "nvcr.io#nvidia/tensorrt-llm/release:1.3.0rc22.post1", ("trtllm", "1.3.0rc22.post1")),
        ("vllm", "vllm/vllm-openai:v0.20.1-ubuntu2404", ("vllm", "0.20.1")),
        ("sglang", "lmsysorg/sglang:v0.5.14-cu130@sha256:5027", ("sglang", "0.5.14")),
        ("vllm", "vllm/vllm-openai:nightly-dev-75c2eef", ("vllm", None)),
        ("dynamo-sglang", "nvcr.io/nvidia/ai-dynamo/runtime:0.8.1", ("sglang", None)),
        ("llmd-vllm", "", ("llmd-vllm", None)),
    ],
)
def test_the_engine_and_its_version(tmp_path: Path, framework: str, image: str, expected: tuple[str, str]) -> None:
    found = point(changed(BARE, tmp_path, {"framework": framework, "image": image}))
    assert (found.engine, found.engine_version) == (expected if framework != "llmd-vllm" else ("vllm", None))
