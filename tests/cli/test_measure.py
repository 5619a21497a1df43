"""`tpw measure`: the same row of an engine that is started as of one that runs, and one line for every mistake."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.measure import attached
from pipeline.engine.process import free_port
from pipeline.meter.visible_gpus import Gpu
from pipeline.record import Row
from pipeline.store import Store
from pipeline.vocabulary import Boundary, Evidence, RowStatus, TrialStatus
from tests.cli.command import tpw
from tests.e2e.test_attach import embedded
from tests.engine.http_server import serving
from tests.engine.running import READY_S

REPO = Path(__file__).parents[2]
ONE_CONFIG = ("precision.weights=bf16", "precision.kv_cache=auto", "parallelism=single", "batching=default")
SHORT = (
    "workload.concurrency=[2]", "workload.osl_tokens=16", "plan.window_s=1", "plan.warmup_s=0.1",
    "plan.warmup_max_s=0.4", "plan.min_request_durations=0",
)  # fmt: skip
NO_SERVER = f"http://127.0.0.1:{free_port('127.0.0.1')}"

ONLY_STARTED = {"weights_init", "effective_hash"}
"""Columns that only who starts an engine knows."""

BY_CHANCE = {
    "reasons", "warnings", "warmup_unsettled", "output_tokens_per_joule_rel_ci95", "num_blocks",
    "block_autocorrelation", "output_tokens_per_s_per_user", "ttft_p99_high_s", "tpot_p99_high_s",
}  # fmt: skip
"""Columns that a second under load may or may not fill."""


def start(*args: str, folder: Path, command: str = "measure") -> subprocess.Popen[str]:
    """Begin a short measurement of one config at one load, as study `test` of this folder."""
    argv = [sys.executable, "-m", "pipeline.cli.main", command, *args, *ONE_CONFIG, *SHORT, "study=test",
            f"results_dir={folder}", f"engines_dir={folder}/engines"]  # fmt: skip
    env = os.environ | {"COLUMNS": "160"}
    return subprocess.Popen(argv, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def only_row(measuring: subprocess.Popen[str], folder: Path) -> Row:
    out, err = measuring.communicate(timeout=90)
    assert (measuring.returncode, err) == (0, ""), out + err
    store = Store(folder)
    (trial,) = store.trials("test")
    assert (trial.status, trial.num_rows) == (TrialStatus.OK, 1)
    (row,) = store.rows("test")
    return row


def known(row: Row) -> set[str]:
    return {name for name, value in dataclasses.asdict(row).items() if value not in {None, ()}}


def test_a_server_that_runs_is_measured_like_one_that_is_started(tmp_path: Path) -> None:
    with embedded(tmp_path) as engine:
        engine.wait_ready({"model": "small", "prompt": [5], "max_tokens": 1}, READY_S)
        measuring = start(f"url={engine.url}/v1", "hardware=cpu", folder=tmp_path / "attached")
        # Meanwhile: it is compared what their rows hold, not their numbers.
        other = start("engine.knobs.num_threads=2", folder=tmp_path / "started")
        row, started = only_row(measuring, tmp_path / "attached"), only_row(other, tmp_path / "started")
        engine.check_alive()  # it was left alone
    assert (row.engine, row.status, row.evidence, row.boundary) == (
        "attached", RowStatus.OK, Evidence.ESTIMATED, Boundary.CPU,
    )  # fmt: skip
    assert row.output_tokens_per_joule
    assert row.engine_version == started.engine_version
    assert row.token_disagreement is not None
    assert (known(started) ^ known(row)) - BY_CHANCE <= ONLY_STARTED
    assert tpw("verify", "--results", tmp_path / "attached").status == 0


@pytest.mark.parametrize(
    ("words", "status", "parts"),
    [
        (("gpus=0",), 2, ("gpus=: only with url=", "CUDA_VISIBLE_DEVICES")),
        ((f"url={NO_SERVER}",), 2, ("gpus=: name the GPUs", "hardware=cpu")),
        ((f"url={NO_SERVER}", "gpus=[]", "precision=fp8"), 2, ("gpus=: name the GPUs",)),
        ((f"url={NO_SERVER}", "gpus=0"), 2, ("precision=: a server does not tell", "precision=fp8")),
        ((f"url={NO_SERVER}", "hardware=cpu"), 2, ("precision.weights=", "one configuration is measured")),
        (("batching=default",), 2, ("precision.weights=[fp32,bf16]", "num_threads=[1,2]", "give one value each")),
        (("url=", "hardware=cpu", *ONE_CONFIG), 2, ("url=: not the address", "http://HOST:PORT")),
        ((f"url={NO_SERVER}/v2", "hardware=cpu", *ONE_CONFIG), 2, (f"url={NO_SERVER}/v2: not the address",)),
        ((f"url={NO_SERVER}", "hardware=cpu", *ONE_CONFIG), 1, (f"url={NO_SERVER}: no server there",)),
        (("engine=attached", *ONE_CONFIG), 2, ("url=: name the server",)),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], status: int, parts: tuple[str, ...]) -> None:
    tpw("measure", *words, f"results_dir={tmp_path}").assert_refused(status, *parts)
    assert Store(tmp_path).studies() == []


@pytest.mark.parametrize(
    ("models", "words", "status", "part"),
    [
        (["base", "adapter"], (), 2, "serves several models (base, adapter); name the one to measure"),
        (["base"], ("engine.served_model=other",), 2, "serves no model named other; it serves base"),
        (["base"], ("gpus=0",), 2, "gpus=0 names GPUs, hardware=cpu has none"),
        ([], (), 1, "lists no model"),
    ],
)
def test_a_server_that_does_not_fit_is_one_line(
    tmp_path: Path, models: list[str], words: tuple[str, ...], status: int, part: str
) -> None:
    with serving({"/v1/models": json.dumps({"data": [{"id": name} for name in models]})}) as url:
        said = tpw("measure", f"url={url}", "hardware=cpu", *ONE_CONFIG, *words, f"results_dir={tmp_path}")
    said.assert_refused(status, part)


def test_a_server_that_does_not_complete_is_a_trial_that_says_why(tmp_path: Path) -> None:
    with serving({"/v1/models": json.dumps({"data": [{"id": "base"}]}), "/v1/completions": 500}) as url:
        measuring = start(f"url={url}", "hardware=cpu", folder=tmp_path)
        out, err = measuring.communicate(timeout=60)
    assert (measuring.returncode, err) == (1, "")
    (trial,) = Store(tmp_path).trials("test")
    assert (trial.status, trial.num_rows) == (TrialStatus.LOAD_FAILED, 0)
    assert "/v1/completions answers HTTP 500" in trial.reasons[0]
    assert "load_failed" in out


@pytest.mark.parametrize("gpus", ["0,3", "[0, 3]", "GPU-1,GPU-2"])
def test_gpus_are_named_by_index_or_uuid_and_name_their_hardware(monkeypatch: pytest.MonkeyPatch, gpus: str) -> None:
    here = Gpu(uuid="GPU-1", name="NVIDIA H100 80GB HBM3", index=0, memory_bytes=None)
    monkeypatch.setattr("pipeline.cli.measure.visible_gpus", lambda: (here,))
    study = attached([f"url={NO_SERVER}", f"gpus={gpus}", "precision=fp8", "model=llama-3.1-8b"]).study
    assert study.engine.gpus == tuple(gpu.strip() for gpu in gpus.strip("[]").split(","))
    assert study.axes["parallelism.tp"] == (2,)
    assert (study.hardware.name, study.engine.url, study.plan.name) == ("h100", NO_SERVER, "quick")
