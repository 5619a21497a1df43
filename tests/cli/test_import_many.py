"""`tpw import` of several tools' files at once: what each becomes, and what is said of the rest."""

import json
from pathlib import Path

import pytest

from pipeline.cli.import_ import TOOLS
from pipeline.importers.tools import IMPORTERS
from pipeline.store import Store
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus
from tests.builders import make_trial
from tests.cli.command import tpw
from tests.importers.samples import DATA, GONE, changed

STORE = Store(Path("results"))

SERVED = ("model=gpt-oss-20b", "hardware=h100", "engine=vllm", "parallelism.tp=1", "precision.weights=fp4")
"""What a client's result does not say."""


def test_the_tools_that_the_help_names_are_those_that_are_read() -> None:
    assert tuple(IMPORTERS) == TOOLS


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_points_with_and_without_power_are_rows_of_two_boundaries() -> None:
    said = tpw("import", DATA / "inferencex_agg*.json")
    assert (said.status, said.err) == (0, "")
    rows = {row.boundary: row for row in STORE.rows("imported-inferencex")}
    measured, provisioned = rows[Boundary.GPU], rows[Boundary.FACILITY]
    for row in rows.values():
        assert (row.status, row.reasons, row.origin) == (RowStatus.OK, (), "imported")
        assert (row.source_tool, row.model, row.hardware, row.num_gpus) == ("inferencex", "gpt-oss-120b", "h100", 2)
        assert (row.engine, row.engine_version, row.concurrency) == ("trtllm", "1.3.0rc14", 8)
        assert (row.isl_tokens, row.osl_tokens, row.isl_mean_tokens) == (1024, 1024, None)
        assert row.facility_power_w == 2 * 1730
        assert Reason.IMPORTED_WINDOW in row.warnings
    content = json.loads((DATA / "inferencex_agg_power.json").read_text())
    assert (measured.evidence, measured.energy_evidence) == (Evidence.MEASURED, Evidence.MEASURED)
    assert measured.output_tokens_per_joule == pytest.approx(1 / content["joules_per_output_token"], rel=1e-4)
    assert measured.total_tokens_per_joule == pytest.approx(1 / content["joules_per_total_token"], rel=1e-4)
    assert (provisioned.evidence, provisioned.throughput_evidence) == (Evidence.MODELLED, Evidence.MEASURED)
    assert (provisioned.gpu_energy_j, provisioned.power_w, provisioned.window_s) == (None, 3460, None)
    # What their dashboard calls tokens/s per MW, of all tokens.
    assert provisioned.total_tokens_per_joule == pytest.approx(content["tput_per_gpu"] / 1730)
    assert "not mapped, or only so:\n    2 x  model: tiny taken for gpt-oss-120b\n" in said.out
    shown = " ".join(tpw("show", "imported-inferencex").out.split())
    assert (shown.count("boundary=facility"), shown.count("boundary=gpu")) == (1, 1)


def test_a_point_filed_again_in_a_list_is_the_same_point(tmp_path: Path) -> None:
    assert tpw("import", "inferencex", DATA / "inferencex_agg_power.json").status == 0
    both = [json.loads((DATA / name).read_text()) for name in ("inferencex_agg_power.json", "inferencex_agg.json")]
    (tmp_path / "agg_all.json").write_text(json.dumps([*both, both[1], {"hw": "h100"}]))
    said = tpw("import", "agg_all.json")
    assert said.status == 0
    assert [f"agg_all.json[{n}]: is row" in said.out for n in range(3)] == [True, False, True]
    assert "rejected agg_all.json[3]: is no point of InferenceX: it has no conc, framework, precision" in said.out
    assert len(STORE.rows("imported-inferencex")) == len(STORE.trials("imported-inferencex")) == 2
    assert [trial.number for trial in STORE.trials("imported-inferencex")] == [0, 1]


def test_an_early_point_is_asked_for_its_lengths(tmp_path: Path) -> None:
    early = changed(DATA / "inferencex_agg.json", tmp_path, dict.fromkeys(("isl", "osl", "image"), GONE))
    tpw("import", early).assert_refused(2, "does not say how long its prompts are; say isl_tokens=N")
    assert tpw("import", early, "isl_tokens=8192", "osl_tokens=1024").status == 0
    (row,) = STORE.rows("imported-inferencex")
    assert (row.isl_tokens, row.osl_tokens, row.engine_version) == (8192, 1024, None)


def test_a_clients_result_needs_to_be_told_what_served() -> None:
    path = DATA / "inferencex_benchmark_serving.json"
    tpw("import", path).assert_refused(2, "model 'tiny'", "does not say the GPU", "engine=", "parallelism.tp=N")
    tpw("import", path, *SERVED[:4]).assert_refused(2, "no format: is none of our formats", "precision.weights=")
    assert tpw("import", path, *SERVED, "isl_tokens=1024", "osl_tokens=1024").status == 0
    (row,) = STORE.rows("imported-inferencex-benchmark-serving")
    assert (row.engine, row.engine_version, row.num_gpus, row.concurrency) == ("vllm", None, 1, 8)
    assert row.isl_tokens == 1024
    assert row.isl_mean_tokens == pytest.approx(4529 / 80)
    assert (row.status, row.reasons, row.output_tokens_per_joule) == (RowStatus.INVALID, (Reason.NO_ENERGY,), None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_prompts": 90}, Reason.ERROR_RATE),
        ({"energy": {"total_energy_j": 4000.0, "output_tps_per_w": 2.0}}, Reason.READING_DISAGREEMENT),
        ({"total_output_tokens": 0, "output_throughput": 0.0, "gpu_energy_j": 9.0}, Reason.NO_TOKENS),
    ],
)
def test_a_result_that_cannot_count_says_why(tmp_path: Path, change: dict[str, object], reason: Reason) -> None:
    path = changed(DATA / "inferencex_benchmark_serving.json", tmp_path, change)
    assert tpw("import", path, *SERVED, "osl_tokens=40").status == 0
    (row,) = STORE.rows("imported-inferencex-benchmark-serving")
    assert (row.status, reason in row.reasons) == (RowStatus.INVALID, True)


def test_the_three_exports_of_a_run_are_one_row() -> None:
    files = (DATA / "aiperf_profile_export_aiperf.csv", DATA / "aiperf_profile_export_aiperf.json")
    said = tpw("import", *files, *SERVED)
    assert (said.status, len(STORE.rows("imported-aiperf"))) == (0, 1)
    assert f"{files[0]}: is row" in said.out
    (row,) = STORE.rows("imported-aiperf")
    assert (row.concurrency, row.source_tool_version, row.tpot_p50_s) == (32, "0.13.0", None)
    assert row.occupancy == pytest.approx(19.215 / 32, rel=1e-3)


def test_energy_of_more_gpus_than_the_deployment_has_is_no_energy_of_it(tmp_path: Path) -> None:
    gpus = {f"gpu_{n}": {"gpu_name": "NVIDIA H100 80GB HBM3", "gpu_uuid": f"GPU-{n}"} for n in range(8)}
    path = changed(
        DATA / "aiperf_profile_export_aiperf.json",
        tmp_path,
        {
            "telemetry_data.endpoints": {"node:9401": {"gpus": gpus}},
            "nvidia_total_gpu_energy": {"unit": "J", "avg": 51_200.0},
        },
    )
    given = [word for word in SERVED if not word.startswith("hardware")]  # telemetry names it
    assert tpw("import", path, *given).status == 0
    assert tpw("import", path, *given[:2], "parallelism.tp=8", given[3], "study=all").status == 0  # known already
    (row,) = STORE.rows("imported-aiperf")
    assert (row.gpu_name, row.hardware) == ("NVIDIA H100 80GB HBM3", "h100")
    assert row.reasons == (Reason.GPU_COUNT_MISMATCH,)


def test_a_leaderboard_is_a_study_of_many_configurations() -> None:
    said = tpw("import", "mlenergy", DATA / "mlenergy_*.json")
    assert said.status == 0
    rows = STORE.rows("imported-mlenergy")
    assert {(row.model, row.workload, row.isl_tokens, row.status) for row in rows} == {
        ("gpt-oss-120b", "mlenergy_gpqa", 300, RowStatus.OK)
    }
    first = next(row for row in rows if row.hardware == "h100" and row.concurrency == 8)
    assert first.num_gpus == 1
    assert first.power_w == pytest.approx(550, abs=1)
    assert first.output_tokens_per_joule == pytest.approx(1 / 0.68408, rel=1e-3)
    assert (first.tpot_p50_s, first.output_tokens_per_s_per_user) == (None, None)
    assert first.itl_p50_s == pytest.approx(0.009857, rel=1e-3)


def test_good_files_are_kept_where_others_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    said = tpw("import", "broken.json", DATA / "inferencex_*.json")
    assert (said.status, said.err) == (0, "")
    assert len(STORE.rows("imported-inferencex")) == 2
    rejected = [line for line in said.out.splitlines() if line.startswith("rejected ")]
    assert [
        part for part in ("broken.json: is no JSON", "model 'tiny'", "is the sidecar") if part not in said.out
    ] == []
    assert len(rejected) == 3


def test_nothing_usable_is_an_error_with_every_reason(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("{")
    (tmp_path / "two.json").write_text("[]")
    said = tpw("import", "*.json")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "nothing could be imported: 2 files or entries rejected" in said.err
    assert said.out.count("rejected ") == 2
    assert not STORE.results_dir.exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("Missing argument", "FILE")),
        (("inferencex",), ("names no file",)),
        (("none.json",), ("none.json: there is no such file",)),
        (("infrencex", DATA / "inferencex_agg.json"), ("infrencex: unknown", "did you mean 'inferencex'")),
        ((DATA / "inferencex_agg.json", "concurrency=8"), ("concurrency=: the report says it",)),
        ((DATA / "inferencex_agg.json", "engine=vllm"), ("engine=: the report says it",)),
        ((DATA / "inferencex_agg.json", "osl_tokens=1"), ("osl_tokens=: the report says it",)),
        ((DATA / "inferencex_agg.json", "model=gpt-oss-20b"), ("is of 'gpt-oss-120b'; leave model= out",)),
        ((DATA / "inferencex_agg.json", "hardware=b200"), ("is of 'h100'; leave hardware= out",)),
        ((DATA / "inferencex_benchmark_serving.json", "isl_tokens=1k"), ("isl_tokens=1k: write a whole number",)),
        ((DATA / "inferencex_agg.json", "study=mine"), ("study=mine", "never join")),
    ],
)
def test_what_the_user_says_wrong_is_one_line(words: tuple[object, ...], parts: tuple[str, ...]) -> None:
    STORE.append(make_trial(study_id="mine"))
    tpw("import", *words).assert_refused(2, *parts)
    assert STORE.studies() == ["mine"]
