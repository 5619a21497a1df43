"""A bundle that is what was measured, and every way in which it is not."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.bundle import write_bundle
from pipeline.bundle.live import compared
from pipeline.bundle.verify import read_facts, verify_bundle
from pipeline.store import Store
from tests.builders import make_row
from tests.bundle.recorded import RESULTS, engine_folder, made_up, recorded, trtllm_study
from tests.cli.command import tpw


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b", **recorded(), allow_random_weights=True)


def test_a_bundle_as_written_is_what_was_measured(bundle: Path) -> None:
    said = tpw("verify", bundle, "--results", RESULTS)
    assert (said.status, said.err) == (0, "")
    assert "follows from the files; all 4 rows have it" in said.out
    assert "4 rows are equal to those in" in said.out


@pytest.mark.parametrize("decision", sorted(RESULTS.parent.glob("engines/production/*/decision.json")))
def test_every_bundle_that_is_kept_here_is_what_was_measured(decision: Path) -> None:
    assert verify_bundle(decision.parent, Store(RESULTS)).differences == ()


def test_rows_that_are_elsewhere_are_said_not_to_be_compared(bundle: Path, tmp_path: Path) -> None:
    found = verify_bundle(bundle, Store(tmp_path / "no-results"))
    assert found.differences == ()
    assert "are not in" in found.not_compared[0]


def test_what_a_start_writes_is_no_part_of_the_bundle(bundle: Path) -> None:
    (bundle / "state").mkdir()
    (bundle / "state" / "autotuner_cache.json").write_text("more kernels")
    assert tpw("verify", bundle, "--results", RESULTS).status == 0


def edit_decision(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        decision = json.loads((folder / "decision.json").read_text())
        decision["bundle"] |= changes
        (folder / "decision.json").write_text(json.dumps(decision))

    return edit


def edit_row(folder: Path) -> None:
    decision = json.loads((folder / "decision.json").read_text())
    decision["bundle"]["rows"][0]["output_tokens_per_joule"] = 99.0
    (folder / "decision.json").write_text(json.dumps(decision))


def edit_headline(folder: Path) -> None:
    decision = json.loads((folder / "decision.json").read_text())
    decision["bundle"]["headline"]["output_tokens_per_joule"] = 99.0
    (folder / "decision.json").write_text(json.dumps(decision))


def edit_rendered(folder: Path) -> None:
    path = folder / "rendered.json"
    path.write_text(path.read_text().replace("8192", "4096"))


def edit_manifest(folder: Path) -> None:
    path = folder / "compose.yaml"
    path.write_text(path.read_text().replace("restart:", "restrat:"))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda folder: (folder / "run.sh").write_text("exec true"), "run.sh: SHA-256 is"),
        (lambda folder: (folder / "run.sh").write_text("exec true"), "run.sh: does not start the command line"),
        (lambda folder: (folder / "run.sh").unlink(), "run.sh: is missing"),
        (edit_headline, "headline: output_tokens_per_joule is 99.0 in decision.json, the rows give"),
        (lambda folder: (folder / "own.sh").write_text(""), "own.sh: is no part of the bundle"),
        (edit_rendered, "rendered.json: hashes to"),
        (edit_row, "output_tokens_per_joule is 99.0 in decision.json"),
        (edit_manifest, "compose.yaml: breaks its schema"),
        (edit_decision(rendered_hash="0123"), "decision.json says 0123"),
        (lambda folder: (folder / "model_config.json").write_text("{}"), "model_config.json: is not the file of"),
    ],
)
def test_every_difference_is_named_and_fails(bundle: Path, edit: Callable[[Path], None], says: str) -> None:
    edit(bundle)
    said = tpw("verify", bundle, "--results", RESULTS)
    assert said.status == 1
    assert says in said.out


def test_a_changed_cache_is_named(tmp_path: Path) -> None:
    study = trtllm_study(tmp_path)
    engine_folder(study)
    folder = write_bundle(tmp_path / "b", **made_up(study))
    assert verify_bundle(folder, Store(tmp_path)).differences == ()
    (folder / "autotuner_cache.json").write_text("{}")
    assert any("the measured start left" in line for line in verify_bundle(folder, Store(tmp_path)).differences)


def test_what_is_no_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    tpw("verify", tmp_path / "empty").assert_refused(2, "is no decision of a bundle", "engines/production")
    tpw("verify", "--live").assert_refused(2, "--live: starts a production bundle")
    tpw("verify", bundle, "h200").assert_refused(2, "not both at once")
    (tmp_path / "empty" / "decision.json").write_text('{"bundle": {"schema_version": 1}}')
    tpw("verify", tmp_path / "empty").assert_refused(2, "is no decision of a bundle (KeyError('name'))")
    edit_decision(schema_version=99)(bundle)
    tpw("verify", bundle).assert_refused(2, "bundle of version 99", "update it")
    shutil.copytree(bundle, tmp_path / "c")
    (tmp_path / "c" / "rendered.json").unlink()
    edit_decision(schema_version=1)(tmp_path / "c")
    tpw("verify", tmp_path / "c").assert_refused(2, "rendered.json", "cannot be read")


# --- what a new start says


def test_a_new_start_agrees_where_the_ratio_may_be_one(bundle: Path) -> None:
    head = read_facts(bundle)["headline"]
    promised = head["output_tokens_per_joule"]

    def found(factor: float, rel: float | None = 0.01, **changes: Any) -> tuple[str, ...]:
        row = make_row(output_tokens_per_joule=promised * factor, output_tokens_per_joule_rel_ci95=rel)
        return compared(head | changes, row, "study", []).differences

    reach = head["again_rel"]
    assert found(1) == found(1 + 0.9 * reach) == ()
    assert "leaves out 1" in found(1 + 2 * reach)[0]
    assert "leaves out 1" in found(1 / (1 + 2 * reach))[0]
    assert found(1 + 2 * reach, rel=3 * reach) == ()  # of one start both windows' intervals count
    assert "leaves out 1" in found(1 + 2 * reach, rel=3 * reach, num_starts=3)[0]  # of several, starts say it all
    assert found(1, rel=None) == ("there is no interval to compare by",)


def test_other_gpus_are_said(bundle: Path) -> None:
    facts = read_facts(bundle)
    row = make_row(output_tokens_per_joule=2.8, gpu_uuids=("GPU-other",))
    assert "other GPUs" in compared(facts["headline"], row, "study", facts["gpu_uuids"]).notes[-1]
    same = dataclasses.replace(row, gpu_uuids=tuple(facts["gpu_uuids"]))
    assert len(compared(facts["headline"], same, "study", facts["gpu_uuids"]).notes) == 1
