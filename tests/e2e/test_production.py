"""From a measured start to a bundle that is launched by hand, checked against another precision, and measured again."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bundle import write_bundle
from pipeline.bundle.live import measure_again
from pipeline.bundle.verify import read_facts, verify_bundle
from pipeline.engine.process import free_port
from pipeline.quality.gate import check
from pipeline.quality.settings import load_settings
from pipeline.quality.side import find_side
from pipeline.repeat import only_config
from pipeline.resume import study_of
from pipeline.rig.catalog import open_rig
from pipeline.store import Store
from pipeline.study import Study
from pipeline.trial import run_trial
from pipeline.vocabulary import Evidence, RowStatus
from tests.builders import Recorder, make_study
from tests.e2e.test_sweep import engine_processes, wait_until
from tests.engine.embedded_engine import ENGINE_PYTHON, ROOT

OVERRIDES = (
    "study=production", "precision.weights=fp32", "precision.kv_cache=u8", "batching=default",
    "engine.knobs.num_threads=1", "workload.concurrency=[4]", "plan.window_s=0.6", "plan.warmup_s=0.2",
    "plan.warmup_max_s=0.6", "plan.check_s=0.1", f"engine.python={ENGINE_PYTHON}",
)  # fmt: skip


def study_in(folder: Path) -> Study:
    return make_study(*OVERRIDES, f"results_dir={folder}/results", f"engines_dir={folder}/engines")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle of one measured start, in engines/production beside results."""
    root = tmp_path_factory.mktemp("production")
    study = study_in(root)
    store, rig = Store(root / "results"), open_rig(study)
    run_trial(study, rig, store, only_config(study), number=0, proposed_by="test", earlier_rows=(), progress=Recorder())
    (trial,) = store.trials(study.id)
    yield write_bundle(
        root / "engines" / "production" / "demo", study=study_of(trial), trial=trial, rows=store.rows(study.id),
        decision={"schema_version": 1}, allow_random_weights=True,
    )  # fmt: skip
    assert not engine_processes(root)


def test_a_bundle_started_by_hand_answers_and_tells_precisions_apart(bundle: Path, tmp_path: Path) -> None:
    """What run.sh starts is the reference: full precision of the KV cache beside its eight bits."""
    port, log = free_port("127.0.0.1"), tmp_path / "log"
    (tmp_path / "f32.yaml").write_text("precision: {weights: fp32, kv_cache: f32}\n")
    (tmp_path / "prompts").write_text("The capital of France is\nimport numpy as np\n1, 2, 4, 8,\nOnce upon a time\n")
    settings = replace(load_settings(()), prompts=str(tmp_path / "prompts"), max_tokens=16)
    store = Store(bundle.parents[2] / "results")
    with log.open("w") as out:
        server = subprocess.Popen([bundle / "run.sh"], cwd=ROOT, env=os.environ | {"SERVE_PORT": str(port)}, stdout=out)
    try:
        wait_until(lambda: "ready: " in log.read_text(), timeout_s=30)
        sides = [
            find_side(role, name, lambda: study_in(bundle.parents[2]), store)
            for role, name in (("candidate", str(tmp_path / "f32.yaml")), ("reference", f"http://127.0.0.1:{port}"))
        ]
        result = check(sides[0], sides[1], settings)
    finally:
        server.terminate()
        server.wait()
    found = {finding.metric: finding for finding in result.findings}
    assert found["greedy_token_agreement_of_reference_with_itself"].value == 1
    agreement, change = found["greedy_token_agreement"], found["mean_absolute_logprob_change_nats"].value
    assert agreement.value is not None
    assert 0.5 < agreement.value <= 1
    assert change is not None
    assert 0 < change < 0.5  # eight bits of KV cache move the log-probabilities, a little
    assert (agreement.model, agreement.weights) == ("tiny-llama", "random")
    assert result.verdict != "pass"  # what lists a thousandth of the probability cannot pass by it
    assert verify_bundle(bundle, store).differences == ()  # state/ is what it wrote


def test_a_bundle_is_measured_again_and_compared(bundle: Path) -> None:
    root, facts, progress = bundle.parents[2], read_facts(bundle), Recorder()
    found = measure_again(bundle, Store(root / "results"), root / "engines", progress)
    (row,) = Store(root / "results").rows(found.study_id)
    assert (row.rendered_hash, row.status, row.evidence) == (facts["rendered_hash"], RowStatus.OK, Evidence.ESTIMATED)
    assert (row.concurrency, found.measured) == (4, row.output_tokens_per_joule)
    assert found.promised == facts["headline"]["output_tokens_per_joule"]
    assert 0.2 < (found.measured or 0) / found.promised < 5
    assert found.differences == ("there is no interval to compare by",)  # of windows this short


def test_a_bundle_for_another_engine_version_is_not_measured(bundle: Path) -> None:
    root = bundle.parents[2]
    path = bundle / "decision.json"
    text = path.read_text()
    try:
        path.write_text(text.replace('"engine_version": "2026', '"engine_version": "2025'))
        found = measure_again(bundle, Store(root / "results"), root / "engines", Recorder())
    finally:
        path.write_text(text)
    assert found.measured is None
    assert "was measured" in found.differences[0]
