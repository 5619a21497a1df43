"""Writing a bundle: it ships the measured bytes, or nothing."""

import dataclasses
import json
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.bundle import write_bundle
from pipeline.bundle.kubernetes import MAX_CONFIG_MAP_BYTES
from pipeline.engine.protocol import Rendered
from pipeline.errors import ConfigError
from pipeline.quality.record import Finding, QualityResult, Verdict
from pipeline.vocabulary import Evidence
from tests.builders import INVALID, make_slo
from tests.bundle.recorded import DECISION, STUDIES, engine_folder, made_up, recorded, trtllm_study
from tests.engine.trtllm.hand_run import assert_is_bash

CHECK_SUMS = ("/usr/bin/env", "sha256sum", "-c", "--quiet", "SHA256SUMS")


def shown(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "decision.json").read_text())["bundle"]
    return facts


@pytest.mark.parametrize("study_id", STUDIES)
def test_every_recorded_start_renders_to_the_measured_bytes(tmp_path: Path, study_id: str) -> None:
    given = recorded(study_id)
    folder = write_bundle(tmp_path / "b", **given, allow_random_weights=True)
    rendered = json.loads((folder / "rendered.json").read_text())
    again = Rendered(files=rendered["files"], argv=tuple(rendered["argv"]), env=rendered["env"])
    assert {again.rendered_hash, shown(folder)["rendered_hash"]} == {row.rendered_hash for row in given["rows"]}
    assert_is_bash(folder / "run.sh")


def test_a_bundle_says_what_it_is(tmp_path: Path) -> None:
    given = recorded()
    folder = write_bundle(tmp_path / "qwen", **given, allow_random_weights=True)
    decision, page = json.loads((folder / "decision.json").read_text()), (folder / "README.md").read_text()
    assert {key: decision[key] for key in DECISION} == DECISION
    facts = decision["bundle"]
    best = max(given["rows"], key=lambda row: row.output_tokens_per_joule)
    head = facts["headline"]
    assert (head["row_ids"], head["num_starts"]) == ([best.row_id], 1)
    assert head["output_tokens_per_joule"] == pytest.approx(best.output_tokens_per_joule)
    assert head["low"] < best.output_tokens_per_joule < head["high"]
    assert facts["power_limit_w"] == best.power_limit_w
    assert facts["versions"]["engine_version"] == "0.24.0"
    for said in ("weights=random", "no claim about the trained model", "No quality check was made", "not run",
                 "start-to-start variation not included", facts["rendered_hash"], "700 W"):  # fmt: skip
        assert said in page
    assert "--served-model-name qwen3-32b" in (folder / "run.sh").read_text()
    done = subprocess.run(CHECK_SUMS, cwd=folder, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_page_says_every_bound_every_doubt_and_where_it_lies(tmp_path: Path) -> None:
    decision = DECISION | {
        "criterion": "the best load", "winner": {"output_tokens_per_joule": 1.5}, "is_firm": False,
        "doubts": ["screening only: nobody started it again"],
    }  # fmt: skip
    slo = make_slo(ttft_p50_s=2.0, e2e_p99_s=100.0)
    folder = tmp_path / "in a folder"
    write_bundle(folder, **recorded() | {"decision": decision}, slo=slo, allow_random_weights=True)
    page = (folder / "README.md").read_text()
    assert "SLO test: e2e_p99_s=100, ttft_p50_s=2;" in page
    assert "**Chosen for now**, not firmly, by the best load: 1.5 tok/J at its best load, " in page
    assert "loads; mind:\n\n- screening only: nobody started it again\n" in page
    assert f"tpw verify '{folder}' --live" in page


@pytest.mark.parametrize(("name", "is_refused"), [("HF_TOKEN", True), ("TOKENIZERS_PARALLELISM", False)])
def test_no_secret_is_shipped(tmp_path: Path, name: str, is_refused: bool) -> None:
    asked = trtllm_study(tmp_path, f"engine.env.{name}=x")
    given = made_up(asked)
    engine_folder(asked)
    with pytest.raises(ConfigError, match="HF_TOKEN: is named like a secret") if is_refused else nullcontext():
        write_bundle(tmp_path / "b", **given)
    assert (tmp_path / "b").exists() != is_refused


def test_an_interpreter_is_found_from_anywhere(tmp_path: Path) -> None:
    given = recorded()
    for python, said in (("venv/bin/python", f"{Path.cwd()}/venv/bin/python"), ("python3.12", "python3.12")):
        given["study"] = dataclasses.replace(
            given["study"], engine=dataclasses.replace(given["study"].engine, python=python)
        )
        folder = write_bundle(tmp_path / "b", **given, allow_random_weights=True)
        assert f"PYTHON=${{PYTHON:-{said}}}" in (folder / "run.sh").read_text()


def test_a_bundle_is_written_the_same_again_and_only_over_itself(tmp_path: Path) -> None:
    given, folder = recorded(), tmp_path / "b"
    before = (write_bundle(folder, **given, allow_random_weights=True) / "SHA256SUMS").read_text()
    (folder / "stale.txt").write_text("of an earlier version")
    assert (write_bundle(folder, **given, allow_random_weights=True) / "SHA256SUMS").read_text() == before
    assert not (folder / "stale.txt").exists()
    with pytest.raises(ConfigError, match=f"is the bundle of trial {given['trial'].trial_id}; choose another name"):
        write_bundle(folder, **recorded("h200-llama-3.1-8b-rag"), allow_random_weights=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        write_bundle(tmp_path / "mine", **given, allow_random_weights=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_random_weights_are_shipped_only_when_told_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights=random.*--allow-random-weights"):
        write_bundle(tmp_path / "b", **recorded())
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (INVALID, "has no valid row"),
        ({"trial_id": "another"}, "has no valid row"),
        ({"rendered_hash": "0123"}, "rendered_hash=0123"),
        ({"config_hash": "4567"}, "config_hash=4567"),
        ({"evidence": Evidence.MODELLED}, "nothing was started and measured"),
        ({"evidence": Evidence.SIMULATED}, "nothing was started and measured"),
        ({"origin": "imported"}, "nothing was started and measured"),
    ],
)
def test_what_was_not_measured_so_is_not_shipped(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    given = recorded()
    given["rows"] = [dataclasses.replace(given["rows"][0], **columns)]
    with pytest.raises(ConfigError, match=says):
        write_bundle(tmp_path / "b", **given, allow_random_weights=True)


@pytest.mark.parametrize(("key", "value"), [("gpu_name", "NVIDIA B200"), ("engine_version", "0.25"), ("num_gpus", 2)])
def test_rows_of_two_kinds_make_no_number(tmp_path: Path, key: str, value: object) -> None:
    given = recorded()
    given["rows"] = [*given["rows"], dataclasses.replace(given["rows"][0], row_id="other", **{key: value})]
    with pytest.raises(ConfigError, match=f"row other: {key}={value}.*one number cannot rest on both"):
        write_bundle(tmp_path / "b", **given, allow_random_weights=True)


def test_what_this_version_renders_otherwise_is_not_shipped(tmp_path: Path) -> None:
    given = recorded()
    env = dataclasses.replace(given["study"].engine, env={"A": "1"})  # as a version with another default would
    given["study"] = dataclasses.replace(given["study"], engine=env)
    with pytest.raises(ConfigError, match="which nobody has measured; use that version, or measure"):
        write_bundle(tmp_path / "b", **given, allow_random_weights=True)


def test_a_decision_without_version_and_an_slo_that_nothing_meets_are_refused(tmp_path: Path) -> None:
    given = recorded()
    with pytest.raises(ConfigError, match="has no schema_version"):
        write_bundle(tmp_path / "b", **given | {"decision": {}}, allow_random_weights=True)
    slo = dataclasses.replace(given["study"].slo, name="strict", ttft_p99_s=1e-6)
    with pytest.raises(ConfigError, match="slo=strict: no row of this config meets it"):
        write_bundle(tmp_path / "b", **given, slo=slo, allow_random_weights=True)


# --- the autotuner's cache, which only TensorRT-LLM keeps


def test_the_cache_that_the_measured_start_left_is_shipped_with_its_hash(tmp_path: Path) -> None:
    study = trtllm_study(tmp_path)
    engine_folder(study)
    folder = write_bundle(tmp_path / "b", **made_up(study, autotuner_cache="cold"))
    facts, page = shown(folder), (folder / "README.md").read_text()
    (cache,) = facts["autotuner_cache"]
    assert (folder / cache["file"]).read_text() == '{"kernels": [1, 2]}'
    assert facts["measured_start"]["autotuner_cache"] == "cold"
    assert (
        f"cold: it chose its kernels itself, and left `autotuner_cache.json` (SHA-256 {cache['sha256'][:16]})" in page
    )
    assert facts["model"]["checkpoint_hash"] == "0123456789abcdef"
    script, manifests = (
        (folder / "run.sh").read_text(),
        list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text())),
    )
    assert 'cp -RLf "${HERE}/autotuner_cache.json" "${STATE}/"' in script
    assert 'TLLM_AUTOTUNER_CACHE_PATH="${HERE}/autotuner_cache.json"' in script
    assert manifests[0]["data"]["autotuner_cache.json"] == '{"kernels": [1, 2]}'
    (pod,) = manifests[1]["spec"]["template"]["spec"]["containers"]
    assert (pod["image"], pod["args"]) == ("nvcr.io/x@sha256:" + "0" * 64, ["bash", "/bundle/run.sh"])
    assert "command" not in pod  # NVIDIA's entry point sets the driver's libraries up


def test_a_cache_that_is_missing_or_changed_is_refused(tmp_path: Path) -> None:
    study = trtllm_study(tmp_path)
    with pytest.raises(ConfigError, match="holds no folder of trial made-up-trial"):
        write_bundle(tmp_path / "b", **made_up(study))
    start = engine_folder(study)
    (start / "autotuner_cache.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not the cache that the start of trial made-up-trial left"):
        write_bundle(tmp_path / "b", **made_up(study))
    (start / "start.json").write_text("{}")
    with pytest.raises(ConfigError, match="did not keep the autotuner's cache of each start"):
        write_bundle(tmp_path / "b", **made_up(study))
    (start / "start.json").write_text('{"autotuner_cache_sha256": {"autotuner_cache.json": "0"}}')
    (start / "autotuner_cache.json").unlink()
    with pytest.raises(ConfigError, match="is not the cache"):
        write_bundle(tmp_path / "b", **made_up(study))


def test_a_cache_too_large_for_a_config_map_leaves_kubernetes_out(tmp_path: Path) -> None:
    study = trtllm_study(tmp_path)
    engine_folder(study, "x" * MAX_CONFIG_MAP_BYTES)
    folder = write_bundle(tmp_path / "b", **made_up(study))
    assert not (folder / "kubernetes.yaml").exists()
    assert "No `kubernetes.yaml`: the autotuner's cache is larger" in (folder / "README.md").read_text()


def test_run_sh_starts_what_was_measured_and_never_writes_to_the_bundle(tmp_path: Path) -> None:
    study = trtllm_study(tmp_path)
    engine_folder(study)
    folder = write_bundle(tmp_path / "b", **made_up(study))
    fake = tmp_path / "bin" / "trtllm-serve"
    fake.parent.mkdir()
    fake.write_text('#!/usr/bin/env bash\necho "$@"; echo tuned > "${TLLM_AUTOTUNER_CACHE_PATH}"\n')
    fake.chmod(0o755)
    env = {"PATH": f"{fake.parent}:/usr/bin:/bin", "MODEL": "/models/gpt", "STATE": str(tmp_path / "state")}
    done = subprocess.run([folder / "run.sh"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[:5] == ["/models/gpt", "--host", "127.0.0.1", "--port", "8000"]
    assert (tmp_path / "state" / "autotuner_cache.json").read_text() == "tuned\n"
    subprocess.run(CHECK_SUMS, cwd=folder, check=True)
    again = subprocess.run([folder / "run.sh"], env=env | {"MODEL": ""}, capture_output=True, text=True, check=False)
    assert (again.returncode, "hf download" in again.stderr) == (1, True)


# --- its quality


def test_a_quality_check_of_these_bytes_is_shown_and_one_of_others_refused(tmp_path: Path) -> None:
    given = recorded()
    finding = Finding(
        quality_id="q1", started_utc="2026-11-29T00:00:00+00:00", tool_version="0", check="data_free",
        metric="greedy_token_agreement", value=0.99, low=0.98, high=0.995, threshold=0.95, candidate="x",
        reference="bf16",
        candidate_rendered_hash=given["trial"].rendered_hash, candidate_engine="vllm 0.24.0", notes=("as said",),
        model="qwen3-32b", weights="random", verdict=Verdict.FAIL,
    )  # fmt: skip
    result = QualityResult(findings=(finding,))
    folder = write_bundle(tmp_path / "b", **given, quality=result, allow_random_weights=True)
    page = (folder / "README.md").read_text()
    assert "| data_free | greedy_token_agreement | 0.99 | 0.98 to 0.995 | 0.95 | fail |" in page
    assert "**fail**: check q1" in page
    assert "- as said" in page
    assert "No quality check" not in page
    other = QualityResult(findings=(dataclasses.replace(finding, candidate_rendered_hash="other"),))
    with pytest.raises(ConfigError, match="quality=q1: was made of rendered_hash=other"):
        write_bundle(tmp_path / "b", **given, quality=other, allow_random_weights=True)
    other = QualityResult(findings=(dataclasses.replace(finding, weights="checkpoint"),))
    with pytest.raises(ConfigError, match="quality=q1: was made of weights=checkpoint, this is random"):
        write_bundle(tmp_path / "b", **given, quality=other, allow_random_weights=True)
    other = QualityResult(findings=(dataclasses.replace(finding, candidate_engine="vllm 0.25.0"),))
    with pytest.raises(ConfigError, match=r"quality=q1: was made of engine=vllm 0.25.0, this is vllm 0.24.0"):
        write_bundle(tmp_path / "b", **given, quality=other, allow_random_weights=True)
