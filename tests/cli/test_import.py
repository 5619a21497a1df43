"""`tpw import`: reports become rows of their own kind, once, or are refused in one line."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.config import load_study
from pipeline.errors import ConfigError
from pipeline.importers.composed import compose_study
from pipeline.importers.trtllm_bench import read_report
from pipeline.record import Row, Trial
from pipeline.resume import check_same
from pipeline.store import Store
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint
from tests.builders import StubRig, make_row, make_trial
from tests.cli.command import Said, tpw

DATA = Path(__file__).parents[1] / "importers" / "data"
FULL, OLD = DATA / "trtllm_bench_streaming_energy.json", DATA / "trtllm_bench_1_2.json"
STUDY = "imported-trtllm-bench"


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def imported(report: Path, *words: str) -> Said:
    return tpw("import", "trtllm-bench", report, *words)


STORE = Store(Path("results"))


def the_row(study: str = STUDY) -> Row:
    (row,) = STORE.rows(study)
    return row


def the_trial() -> Trial:
    (trial,) = STORE.trials(STUDY)
    return trial


def with_values(**sections: Mapping[str, object]) -> Path:
    """The full report with values of some sections changed."""
    content = json.loads(FULL.read_text())
    for name, values in sections.items():
        content[name] = {**(content.get(name) or {}), **values}
    report = Path("changed.json")
    report.write_text(json.dumps(content))
    return report


def test_a_report_with_joules_is_a_row_of_its_own_origin() -> None:
    said = imported(FULL)
    assert (said.status, said.err) == (0, "")
    row = the_row()
    assert row.row_id in said.out
    assert (row.origin, row.evidence, row.boundary) == ("imported", Evidence.MEASURED, Boundary.GPU)
    assert (row.status, row.reasons) == (RowStatus.OK, ())
    assert row.warnings == (Reason.IMPORTED_WINDOW, Reason.INTERVAL_UNKNOWN)
    assert (row.model, row.weights, row.hardware, row.num_gpus) == ("llama-3.3-70b", "checkpoint", "h100", 2)
    assert (row.engine, row.engine_version, row.plan) == ("trtllm", "1.3.0rc14", "trtllm-bench")
    assert json.loads(row.config_json) == {
        "precision.weights": "fp8", "precision.kv_cache": "fp8", "parallelism.tp": 2, "batching.max_batch_size": 512,
        "batching.max_num_tokens": 8192, "batching.kv_cache_fraction": 0.9,
    }  # fmt: skip
    assert (row.output_tokens, row.gpu_energy_j, row.window_s) == (320_000, 250_000, 200)
    assert row.output_tokens_per_joule == pytest.approx(1.28)
    assert row.power_w == pytest.approx(1250)
    assert row.output_tokens_per_s == pytest.approx(1600)
    assert row.output_tokens_per_s_per_user == pytest.approx(1 / 0.037)
    assert (row.ttft_p99_s, row.tpot_p99_s) == pytest.approx((3.9, 0.039))
    assert (row.concurrency, row.occupancy, row.trace_file) == (61, None, None)
    trial = the_trial()
    assert (trial.status, trial.proposed_by, trial.num_rows) == (TrialStatus.OK, "imported", 1)
    assert (trial.trial_id, trial.score) == (row.trial_id, row.output_tokens_per_joule)


def test_a_report_without_joules_is_kept_and_never_scored() -> None:
    assert imported(OLD, "hardware=b200", "concurrency=640").status == 0
    row = the_row()
    assert (row.status, row.reasons) == (RowStatus.INVALID, (Reason.NO_ENERGY,))
    assert (row.output_tokens_per_joule, row.gpu_energy_j, row.power_w, row.ttft_p99_s) == (None,) * 4
    assert row.output_tokens_per_s == pytest.approx(32_584)
    assert row.concurrency == 640
    assert row.occupancy == pytest.approx(612.5 / 640)
    config = json.loads(row.config_json)
    assert (config["precision.weights"], config["parallelism.ep"]) == ("fp4", 8)
    assert config["engine.knobs.speculative_config.decoding_type"] == "Eagle3"
    assert the_trial().score is None


@pytest.mark.parametrize(
    ("energy", "reason"),
    [
        ({"total_energy_j": 0.0, "output_tps_per_w": None}, Reason.NO_ENERGY),
        ({"total_energy_j": float("nan")}, Reason.NO_ENERGY),
        ({"output_tps_per_w": 1.32}, Reason.READING_DISAGREEMENT),
    ],
)
def test_joules_that_cannot_be_are_a_reason(energy: dict[str, object], reason: Reason) -> None:
    assert imported(with_values(energy=energy)).status == 0
    row = the_row()
    assert (row.status, row.reasons) == (RowStatus.INVALID, (reason,))


def test_joules_without_a_token_are_no_crash() -> None:
    few = {"avg_output_length": 0.001, "num_requests": 10}
    assert imported(with_values(request_info=few)).status == 0
    row = the_row()
    assert (row.status, row.output_tokens) == (RowStatus.INVALID, 0)
    assert Reason.NO_TOKENS in row.reasons


def test_random_weights_are_the_users_word_and_never_scored() -> None:
    assert imported(FULL, "weights=random").status == 0
    row = the_row()
    assert (row.weights, row.reasons) == ("random", (Reason.DUMMY_WEIGHTS,))
    assert "dummy" in str(row.weights_init)


def test_joules_of_more_nodes_than_the_tool_reads_are_an_estimate() -> None:
    world = {"tp_size": 8, "pp_size": 2, "world_size": 16}
    assert imported(with_values(world_info=world)).status == 0
    row = the_row()
    assert (row.num_gpus, row.energy_evidence, row.evidence) == (16, Evidence.ESTIMATED, Evidence.ESTIMATED)
    assert row.throughput_evidence is Evidence.MEASURED


def test_what_the_report_does_not_say_the_user_does() -> None:
    words = ("precision.kv_cache=auto", "parallelism.attention_dp=true", "engine.knobs.moe_config.backend=TRTLLM",
             "slo=interactive", "study=mine")  # fmt: skip
    assert imported(FULL, *words).status == 0
    config = json.loads(the_row("mine").config_json)
    assert config["precision.kv_cache"] == "auto"
    assert config["parallelism.attention_dp"] is True
    assert config["engine.knobs.moe_config.backend"] == "TRTLLM"
    assert not [key for key in config if key.startswith("engine.knobs.") and "moe_config" not in key]
    assert the_row("mine").slo == "interactive"


def test_a_choice_of_a_group_stands_where_it_is_one_value_and_leaves_the_rest_to_the_report() -> None:
    assert imported(FULL, "precision=auto", "parallelism=auto", "study=auto").status == 0
    imported(with_values(engine={"version": "2"}), "precision=bf16", "study=bf16")
    auto, bf16 = (json.loads(the_row(study).config_json) for study in ("auto", "bf16"))
    assert (auto["precision.weights"], auto["precision.kv_cache"], auto["parallelism.tp"]) == ("fp8", "fp8", 2)
    assert bf16["precision.weights"] == "bf16"


def test_a_second_import_of_the_same_report_adds_nothing() -> None:
    imported(FULL)
    row = the_row()
    copy = Path("copy.json")
    copy.write_bytes(FULL.read_bytes())
    for words in ((), ("study=another",)):
        said = imported(copy, *words)
        assert said.status == 0
        assert f"is row {row.row_id} of study {STUDY} already; nothing added" in said.out
    assert STORE.studies() == [STUDY]
    assert the_row() == row


def test_an_import_that_was_killed_halfway_is_finished() -> None:
    imported(FULL)
    trial = the_trial()
    (STORE.study_dir(STUDY) / f"trial-{trial.trial_id}.parquet").unlink()
    assert imported(FULL).status == 0
    assert the_trial() == trial
    assert the_row().trial_id == trial.trial_id


def test_imported_rows_do_not_join_rows_measured_here() -> None:
    STORE.append(make_trial(study_id="mine"))
    imported(FULL, "study=mine").assert_refused(2, "study=mine", "never join")
    STORE.append(make_row(study_id="killed"))
    imported(FULL, "study=killed").assert_refused(2, "study=killed", "never join")
    assert [row.origin for name in STORE.studies() for row in STORE.rows(name)] == ["own"]


def test_a_sweep_does_not_go_on_in_a_study_of_imports() -> None:
    imported(FULL)
    study, _ = compose_study(read_report(FULL), [])
    rig = StubRig(study, None)
    rig.engine_version = the_row().engine_version
    check_same(study, rig, STORE)  # nothing else of it differs
    with pytest.raises(ConfigError, match=r"plan\.name=quick: .* choose another name"):
        check_same(dataclasses.replace(study, plan=load_study(["plan=quick"]).plan), rig, STORE)


def test_an_imported_case_joins_other_imports_and_none_of_ours() -> None:
    imported(FULL)
    study, config = compose_study(read_report(FULL), [])
    own = study.case_id(config, OperatingPoint(concurrency=the_row().concurrency))
    imported(with_values(engine={"version": "1.4.0"}))
    first, second = STORE.rows(STUDY)
    assert first.case_id == second.case_id != own
    assert first.config_hash == config.config_hash


def test_imports_are_shown_apart_from_each_other_and_say_what_they_are() -> None:
    imported(FULL)
    other = with_values(
        engine={"model": "meta-llama/Llama-3.1-8B-Instruct", "quantization": None, "kv_cache_dtype": None},
    )
    imported(other)
    said = tpw("show", STUDY)
    assert said.status == 0, said.err
    flat = " ".join(said.out.split())
    assert flat.count("origin=imported") == 2
    assert "llama-3.3-70b on 2 x NVIDIA H100" in flat
    assert "llama-3.1-8b on 2 x NVIDIA H100" in flat
    assert "imported_window" in flat


def test_rows_of_different_origin_are_never_one_table() -> None:
    imported(FULL)
    row = the_row()
    STORE.append(dataclasses.replace(row, row_id="own1", origin="own"))  # by hand, around every refusal
    flat = " ".join(tpw("show", STUDY).out.split())
    assert (flat.count("origin=imported"), flat.count("origin=own")) == (1, 1)


def test_results_may_lie_elsewhere() -> None:
    assert imported(FULL, "results_dir=there").status == 0
    assert Store(Path("there")).studies() == [STUDY]


def test_there_is_nothing_to_verify_in_an_import() -> None:
    imported(FULL)
    assert "1 are modelled or imported and have none" in tpw("verify").out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("concurrency=0",), ("concurrency=0",)),
        (("concurrency=lots",), ("concurrency=lots",)),
        (("workload=rag_8k_1k",), ("workload=", "the report says it")),
        (("plan=quick",), ("plan=", "allowed: model, hardware")),
        (("modle=gpt-oss-120b",), ("modle=",)),
        (("model=nothing",), ("model=nothing", "allowed")),
        (("hardware=b200",), ("hardware=b200", "NVIDIA H100 80GB HBM3")),
        (("parallelism.tp=[1,2]",), ("parallelism.tp=[1, 2]", "one value")),
        (("study=a/b",), ("study='a/b'",)),
    ],
)
def test_what_the_user_says_wrong_is_refused_and_nothing_is_written(
    words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    imported(FULL, *words).assert_refused(2, *parts)
    assert not STORE.results_dir.exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"engine": {"model": "/models/mine"}}, ("model '/models/mine'", "model=", "gpt-oss-120b")),
        ({"machine": {"name": "NVIDIA A100"}}, ("GPU 'NVIDIA A100'", "hardware=", "h100")),
        ({"machine": {"name": None}}, ("does not say the GPU", "hardware=")),
        ({"engine": {"quantization": "W8A16"}}, ("engine.quantization=W8A16", "precision.weights=")),
        ({"world_info": {"kv_cache_percentage": 90}}, ("kv_cache_fraction", "90")),
        ({"request_info": {"avg_num_concurrent_requests": None}}, ("requests were in flight", "concurrency=N")),
    ],
)  # fmt: skip
def test_what_a_report_does_not_say_is_asked_for(change: dict[str, dict[str, object]], parts: tuple[str, ...]) -> None:
    imported(with_values(**change)).assert_refused(2, *parts)


def test_a_tool_that_is_unknown_is_refused() -> None:
    tpw("import", "trtllm-bensh", FULL).assert_refused(2, "trtllm-bensh", "did you mean 'trtllm-bench'")
    imported(DATA / "load_client.json").assert_refused(2, "load client's result")
