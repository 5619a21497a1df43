"""The whole thing with the real embedded engine: sweep, kill it, resume it, stop it, and misuse it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.store import Store
from pipeline.vocabulary import Boundary, Evidence, RowStatus, TrialStatus

REPO = Path(__file__).parents[2]


def command(tmp_path: Path, *overrides: str, name: str = "sweep") -> list[str]:
    """The command line of a small sweep that keeps everything below tmp_path."""
    return [
        sys.executable, "-m", "pipeline.cli.main", name, "experiment=smoke", f"results_dir={tmp_path}/results",
        f"engines_dir={tmp_path}/engines", "study=e2e", "workload.concurrency=[1,4]", "plan.window_s=0.6", *overrides,
    ]  # fmt: skip


def run(argv: list[str], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "160"}  # the test runner's terminal library may have set a narrow one
    return subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=timeout_s, check=False, env=env)


def engine_processes(tmp_path: Path) -> list[psutil.Process]:
    """Processes of engines whose folder lies below tmp_path, whoever their parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            argv = process.cmdline()
            if any(str(tmp_path) in part for part in argv) and "pipeline.cli.main" not in argv:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def wait_until(condition: object, timeout_s: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sweep that was killed with SIGKILL inside its second trial, and run again with the same command."""
    tmp_path = tmp_path_factory.mktemp("e2e")
    store = Store(tmp_path / "results")
    first = subprocess.Popen(command(tmp_path), cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: len(store.rows("e2e")) >= 3 or first.poll() is not None)
        assert first.poll() is None, first.communicate()[0]
    finally:
        first.kill()
        first.communicate()
    before = {row.row_id for row in store.rows("e2e")}
    wait_until(lambda: not engine_processes(tmp_path), timeout_s=30)
    second = run(command(tmp_path))
    assert second.returncode == 0, second.stderr + second.stdout
    (tmp_path / "stdout").write_text(second.stdout)
    (tmp_path / "before").write_text("\n".join(sorted(before)))
    yield tmp_path
    assert not engine_processes(tmp_path)


def test_a_killed_sweep_loses_no_closed_window(killed_and_resumed: Path) -> None:
    rows = Store(killed_and_resumed / "results").rows("e2e")
    assert set((killed_and_resumed / "before").read_text().split()) <= {row.row_id for row in rows}


def test_resuming_repeats_no_finished_config_and_no_measured_load(killed_and_resumed: Path) -> None:
    store = Store(killed_and_resumed / "results")
    trials, rows = store.trials("e2e"), store.rows("e2e")
    finished = Counter(trial.config_hash for trial in trials if trial.status is TrialStatus.OK)
    assert len(finished) == 3
    assert set(finished.values()) == {1}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert sum(trial.status is TrialStatus.INTERRUPTED for trial in trials) == 1
    measured = Counter((row.config_hash, row.concurrency) for row in rows if row.status is RowStatus.OK)
    assert set(measured.values()) == {1}


def test_rows_say_what_they_are(killed_and_resumed: Path) -> None:
    for row in Store(killed_and_resumed / "results").rows("e2e"):
        assert row.evidence is Evidence.ESTIMATED
        assert row.boundary is Boundary.CPU
        assert row.weights == "random"
        assert row.weights_init is not None
        assert row.gpu_energy_j is None
        assert row.gpu_uuids == ()
        assert row.output_tokens is not None
        assert row.output_tokens > 0
        assert row.cpu_energy_j is not None
        assert row.output_tokens_per_joule == pytest.approx(row.output_tokens / row.cpu_energy_j)


def test_show_prints_the_table_from_rows_alone(killed_and_resumed: Path) -> None:
    argv = [sys.executable, "-m", "pipeline.cli.main", "show", "e2e", "--results", f"{killed_and_resumed}/results"]
    shown = run(argv)
    assert shown.returncode == 0, shown.stderr
    assert "estimated" in shown.stdout
    assert "tok/J" in shown.stdout
    assert shown.stdout.strip().splitlines()[-1].split("rows")[0].strip() in (killed_and_resumed / "stdout").read_text()


def test_a_finished_sweep_is_not_repeated(killed_and_resumed: Path) -> None:
    store = Store(killed_and_resumed / "results")
    before = len(store.trials("e2e"))
    again = run(command(killed_and_resumed))
    assert again.returncode == 0
    assert len(store.trials("e2e")) == before


def test_a_second_sweep_of_a_running_study_is_refused(killed_and_resumed: Path) -> None:
    with Store(killed_and_resumed / "results").lock("e2e"):
        refused = run(command(killed_and_resumed))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"is being run by process {os.getpid()}" in refused.stderr


def test_ctrl_c_keeps_rows_stops_the_engine_and_says_how_to_resume(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    sweep = subprocess.Popen(command(tmp_path), cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(store.rows("e2e")) >= 1 or sweep.poll() is not None)
    sweep.send_signal(signal.SIGINT)
    stdout, stderr = sweep.communicate(timeout=60)
    assert sweep.returncode == 130, stderr
    assert "The same command resumes" in stdout
    assert "Traceback" not in stderr
    assert not engine_processes(tmp_path)
    assert store.trials("e2e")[-1].status is TrialStatus.INTERRUPTED


def test_a_config_that_cannot_start_is_a_trial_and_the_sweep_goes_on(tmp_path: Path) -> None:
    overrides = [
        "precision.kv_cache=auto", "precision.weights=bf16", "batching.max_num_tokens=256",
        "engine.knobs.num_threads=2", "batching.chunked_prefill=true",
        "+engine.knobs.cache_size_gb=[1,1000000]", "workload.concurrency=[4]",
    ]  # fmt: skip
    swept = run(command(tmp_path, *overrides))
    assert swept.returncode == 0, swept.stderr
    statuses = {trial.status: trial for trial in Store(tmp_path / "results").trials("e2e")}
    assert set(statuses) == {TrialStatus.OK, TrialStatus.OUT_OF_MEMORY}
    assert statuses[TrialStatus.OUT_OF_MEMORY].log_tail
    assert statuses[TrialStatus.OUT_OF_MEMORY].reasons
    assert "out_of_memory" in swept.stdout


BAD_INPUT = {
    "model=gpt-oss-12b": (2, "gpt-oss-120b"),
    "hardware=h10": (2, "h100"),
    "precision=fp5": (2, "fp8"),
    "precision.weights=fp8": (2, "has no fp8 weights"),
    "parallelism.tp=3": (2, "tp=1"),
    "parallelism.tp=[]": (2, "at least one value"),
    "search.budget_trials=0": (2, "at least 1 trial"),
    "plan.window_s=soon": (2, "plan.window_s='soon'"),
    "engine.python=/nowhere/python": (1, "/nowhere/python"),
    "baseline=/nowhere.yaml": (2, "/nowhere.yaml"),
    "weights=checkpoint": (2, "model.path"),
}


@pytest.mark.parametrize(("override", "expected"), BAD_INPUT.items(), ids=list(BAD_INPUT))
def test_bad_input_is_one_clear_line(tmp_path: Path, override: str, expected: tuple[int, str]) -> None:
    argv = [part for part in command(tmp_path) if part.partition("=")[0] != override.partition("=")[0]]
    refused = run([*argv, override])
    assert (refused.returncode, refused.stderr.count("\n")) == (expected[0], 1), refused.stderr
    assert refused.stderr.startswith("tpw: error: ")
    assert expected[1] in refused.stderr


def test_a_busy_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run(command(tmp_path, f"engine.port={port}"))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert str(port) in refused.stderr


def test_results_that_cannot_be_written_stop_the_sweep_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused = run(command(tmp_path, f"results_dir={tmp_path}/file/results"))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "cannot be written" in refused.stderr


def test_a_corrupt_file_among_good_ones_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.check_writable("e2e")
    bad = store.study_dir("e2e") / "row-bad.parquet"
    bad.write_bytes(b"PAR1 not really")
    refused = run(command(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert str(bad) in refused.stderr
    assert bad.read_bytes() == b"PAR1 not really"
