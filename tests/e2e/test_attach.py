"""The embedded engine, started by someone else, dies or stops under load: a trial that says so, no row, no hang."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.engine.process import EngineProcess
from pipeline.engine.protocol import Rendered
from pipeline.repeat import only_config
from pipeline.rig.catalog import open_rig
from pipeline.store import Store
from pipeline.trial import run_trial
from pipeline.vocabulary import TrialStatus
from tests.builders import Recorder, make_study
from tests.engine.embedded_engine import ENGINE_PYTHON, write_small_model
from tests.engine.running import READY_S, engine_process

HANG_S = 1.5


def embedded(folder: Path) -> EngineProcess:
    """The embedded engine with a small model of tiny-llama's vocabulary; it has not started yet."""
    done = write_small_model(folder / "small.gguf", vocab=make_study().model.vocab_size)
    assert done.returncode == 0, done.stderr
    argv = (str(ENGINE_PYTHON), "{embedded}/server.py", "--model", str(folder / "small.gguf"), "--model-name", "small",
            "--host", "{host}", "--port", "{port}", "--scheduler", '{"cache_size": 1}')  # fmt: skip
    return engine_process(Rendered(argv=argv), folder / "run")


class UnderLoad(Recorder):
    """Progress that does something a moment after the window opened."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self.timer = threading.Timer(0.5, action)

    def phase(self, text: str) -> None:
        super().phase(text)
        if text.startswith("measuring"):
            self.timer.start()


@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (signal.SIGKILL, TrialStatus.LOAD_FAILED, "no server there"),
        (signal.SIGSTOP, TrialStatus.HUNG, f"no token for {HANG_S} s"),
    ],
    ids=["dies", "stops"],
)
def test_a_server_that_goes_under_load(tmp_path: Path, number: int, status: TrialStatus, says: str) -> None:
    with embedded(tmp_path) as engine:
        engine.wait_ready({"model": "small", "prompt": [5], "max_tokens": 1}, READY_S)
        study = make_study(
            "study=gone", "engine=attached", f"engine.url='{engine.url}'", "parallelism=single", "batching=default",
            "precision.weights=bf16", "precision.kv_cache=auto", "workload.concurrency=[2]", "plan.window_s=20",
            f"plan.hang_s={HANG_S}", f"results_dir={tmp_path}/results",
        )  # fmt: skip
        store, rig = Store(tmp_path / "results"), open_rig(study)

        def signal_all(signal_number: int) -> None:
            for pid in engine.pids():
                os.kill(pid, signal_number)

        progress = UnderLoad(lambda: signal_all(number))
        try:
            trial = run_trial(
                study, rig, store, only_config(study), number=0, proposed_by="test", earlier_rows=(),
                progress=progress,
            )  # fmt: skip
        finally:
            progress.timer.cancel()
            signal_all(signal.SIGCONT)
    assert (trial.status, trial.num_rows, trial.score) == (status, 0, None)
    assert len(trial.reasons) == 1
    assert says in trial.reasons[0]
    assert engine.url in trial.reasons[0] or status is TrialStatus.HUNG
    assert store.rows("gone") == []
    assert store.trials("gone") == [trial]
