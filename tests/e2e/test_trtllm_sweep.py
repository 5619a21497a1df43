"""Whole sweeps of TensorRT-LLM against the stand-in `trtllm-serve` on fake GPUs: with faults, killed, two at once."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.bundle import write_bundle
from pipeline.engine.autotuner_cache import sha256
from pipeline.record import Row, Trial
from pipeline.resume import study_of
from pipeline.rig.verify import verify
from pipeline.store import Store
from pipeline.study import Study
from pipeline.trace_file import from_table
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus
from tests.builders import make_study
from tests.e2e.test_sweep import REPO, engine_processes, wait_until
from tests.engine.trtllm.stand_in.behaviour import Behaviour, Fault
from tests.engine.trtllm.stand_in.environment import checkpoint, stand_in_environment
from tests.engine.trtllm.stand_in.gpus import NUM_GPUS, POWER_DIR
from tests.engine.trtllm.stand_in.power import IDLE_W, gpu_uuid

VERSION = "1.3.0rc29"

COMMON = (
    "model=gpt-oss-120b", "hardware=h100", "engine=trtllm", "precision=fp4", "precision.kv_cache=auto",
    "parallelism=single", "batching=default", "batching.max_num_tokens=256", "engine.knobs.moe_config.backend=TRITON",
    "engine.knobs.num_postprocess_workers=null",
    "engine.knobs.stream_interval=null", "engine.knobs.attention_dp_config.enable_balance=null",
    "engine.ready_timeout_s=4", "workload=tiny", "workload.osl_tokens=16", "plan=demo", "plan.warmup_s=0.2",
    "plan.warmup_max_s=0.6", "plan.window_s=0.6", "plan.check_s=0.1", "plan.hang_s=5", "search.finals_share=0",
)  # fmt: skip
"""A study of one config but for what a test spans."""

FAULTS = {
    Fault.OUT_OF_MEMORY: TrialStatus.OUT_OF_MEMORY, Fault.HANG_AT_START: TrialStatus.START_TIMEOUT,
    Fault.CRASH: TrialStatus.LOAD_FAILED, Fault.DEAF_CHILD: TrialStatus.OK,
}  # fmt: skip
BATCH_SIZES = {8: Fault.DEAF_CHILD, 32: Fault.OUT_OF_MEMORY, 64: Fault.HANG_AT_START, 128: Fault.CRASH}
"""Batch size -> what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A folder with an environment of the stand-in, a checkpoint and two fake GPUs."""

    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    def tpw(self, *overrides: str, name: str, gpus: str | None = None, command: str = "sweep") -> subprocess.Popen[str]:
        """Start a sweep, or another command, of a study, seeing some of the GPUs."""
        argv = [
            sys.executable, "-m", "tests.engine.trtllm.stand_in.tpw", command, *self.overrides(name), *overrides,
        ]  # fmt: skip
        env = os.environ | {"COLUMNS": "200", POWER_DIR: str(self.folder / "power"), NUM_GPUS: "2"}
        env |= {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
        return subprocess.Popen(argv, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def overrides(self, name: str) -> tuple[str, ...]:
        """What composes a study here."""
        return (
            *COMMON, f"study={name}", f"engine.python={self.folder}/env/bin/python", f"model.path={self.folder}/gpt",
            f"results_dir={self.folder}/results", f"engines_dir={self.folder}/engines", "hardware.num_gpus=2",
        )  # fmt: skip

    def assert_follow_from_traces(self, study: Study, *reasons: Reason) -> None:
        """Rows are what their evidence says, and say what they are; `reasons` are why they may not be scored."""
        for row in self.store.rows(study.id):
            assert verify(row, from_table(self.store.read_trace(row)), study).differences == ()
            assert (row.evidence, row.boundary, row.weights) == (Evidence.SIMULATED, Boundary.GPU, "checkpoint")
            assert (row.reasons, row.engine_version) == (reasons, VERSION)
            assert (row.status is RowStatus.INVALID) == bool(reasons)
            assert Reason.ENGINE_UNTESTED not in row.warnings
            assert row.output_tokens is not None
            assert row.gpu_energy_j is not None
            assert row.power_w is not None
            assert IDLE_W < row.power_w < 700


def finish(sweep: subprocess.Popen[str]) -> str:
    """Wait for a sweep that must go well; what it printed."""
    output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, output
    return output


def make_machine(folder: Path, behaviour: Behaviour) -> Machine:
    stand_in_environment(folder / "env", VERSION, behaviour)
    hf_config = make_study("model=gpt-oss-120b", "rig=modelled", "engine=trtllm", "hardware=h100").model.hf_config
    assert hf_config is not None
    checkpoint(folder / "gpt", hf_config)
    return Machine(folder=folder)


# --- one sweep with faults, killed and resumed

LADDER = "workload.concurrency=[1,4]"
SPAN = f"batching.max_batch_size={list(BATCH_SIZES)}"


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What is left of a sweep that was killed with SIGKILL, and of the same command after it."""

    machine: Machine
    before: frozenset[str]
    trials: list[Trial]
    rows: list[Row]
    printed: str


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    folder = tmp_path_factory.mktemp("faults")
    faults = {fault: {"max_batch_size": size} for size, fault in BATCH_SIZES.items()}
    machine = make_machine(folder, Behaviour(power_dir=str(folder / "power"), faults=faults))
    first = machine.tpw(LADDER, SPAN, name="faults")
    try:
        wait_until(lambda: len(machine.store.rows("faults")) >= 1 or first.poll() is not None)
        assert first.poll() is None, first.communicate()[0]
        assert engine_processes(folder)
    finally:
        first.kill()
        first.communicate()
    before = frozenset(row.row_id for row in machine.store.rows("faults"))
    wait_until(lambda: not engine_processes(folder), timeout_s=30)
    printed = finish(machine.tpw(LADDER, SPAN, name="faults"))
    yield Swept(
        machine=machine, before=before, trials=machine.store.trials("faults"), rows=machine.store.rows("faults"),
        printed=printed,
    )  # fmt: skip
    assert not engine_processes(folder)


def batch_size(trial: Trial | Row) -> int | None:
    size = json.loads(trial.config_json).get("batching.max_batch_size")
    assert size is None or isinstance(size, int)
    return size


def test_each_fault_is_a_trial_that_says_so_and_the_sweep_goes_on(swept: Swept) -> None:
    expected: dict[int | None, TrialStatus] = {None: TrialStatus.OK}
    expected |= {size: FAULTS[fault] for size, fault in BATCH_SIZES.items()}
    ended = [trial for trial in swept.trials if trial.status is not TrialStatus.INTERRUPTED]
    assert {batch_size(trial): trial.status for trial in ended} == expected
    assert len(ended) == len(expected)
    for trial in ended:
        if trial.status is TrialStatus.OK:
            assert trial.score is not None
            assert trial.effective_json is not None
            assert json.loads(trial.effective_json)["max_batch_size"] == str(batch_size(trial) or 2048)
        else:
            assert trial.reasons
            assert trial.score is None
            assert trial.status in swept.printed
    tails = {trial.status: "\n".join(trial.log_tail) for trial in ended}
    assert "insufficient GPU memory" in tails[TrialStatus.OUT_OF_MEMORY]
    assert "lower batching.kv_cache_fraction" in swept.printed
    assert "illegal memory access" in tails[TrialStatus.LOAD_FAILED]


def test_a_killed_sweep_leaves_no_server_and_loses_no_window(swept: Swept) -> None:
    assert swept.before
    assert swept.before <= {row.row_id for row in swept.rows}
    assert Counter(trial.status for trial in swept.trials)[TrialStatus.INTERRUPTED] == 1
    assert [trial.number for trial in swept.trials] == list(range(len(swept.trials)))
    assert set(Counter((row.config_hash, row.concurrency) for row in swept.rows).values()) == {1}


def test_its_rows_are_simulated_and_follow_from_their_traces(swept: Swept) -> None:
    swept.machine.assert_follow_from_traces(make_study(*swept.machine.overrides("faults"), LADDER, SPAN))
    assert {row.gpu_uuids for row in swept.rows} == {(gpu_uuid(0),)}
    by_load = {(batch_size(row), row.concurrency): row for row in swept.rows}
    for size in (None, 8):
        one, four = by_load[size, 1], by_load[size, 4]
        assert (one.output_tokens_per_s or 0) < (four.output_tokens_per_s or 0)
        assert (one.output_tokens_per_joule or 0) < (four.output_tokens_per_joule or 0)


def test_a_start_of_the_same_engine_finds_its_tuned_kernels(swept: Swept) -> None:
    caches = list((swept.machine.folder / "engines").glob("*/autotuner_cache.json"))
    assert len(caches) == sum(trial.status in {TrialStatus.OK, TrialStatus.LOAD_FAILED} for trial in swept.trials)
    logs = [path.read_text() for cache in caches for path in sorted(cache.parent.rglob("engine.log"))]
    (loaded,) = [text for text in logs if "Loading cache from" in text]  # that of the resumed trial
    assert str(caches[0].parents[1]) in loaded
    starts = [json.loads(path.read_text()) for path in (swept.machine.folder / "engines").rglob("start.json")]
    by_trial = {start["trial_id"]: start for start in starts}
    warm = [row for row in swept.rows if row.autotuner_cache == "warm"]
    assert len({row.trial_id for row in warm}) == 1
    assert {row.autotuner_cache for row in swept.rows} == {"cold", "warm"}
    for trial in (trial for trial in swept.trials if trial.status is TrialStatus.OK):
        (kept,) = (swept.machine.folder / "engines").glob(f"*/starts/{trial.trial_id}/autotuner_cache.json")
        assert by_trial[trial.trial_id]["autotuner_cache_sha256"] == {kept.name: sha256(kept)}


def test_a_bundle_is_started_again_with_the_cache_that_was_measured(swept: Swept, tmp_path: Path) -> None:
    """A stand-in's rows are never shipped: that they are measured ones is pretended here."""
    trial = next(t for t in swept.trials if t.status is TrialStatus.OK and batch_size(t) == 8)
    rows = [replace(row, evidence=Evidence.MEASURED) for row in swept.rows if row.trial_id == trial.trial_id]
    folder = write_bundle(
        tmp_path / "bundle", study=study_of(trial), trial=trial, rows=rows, decision={"schema_version": 1},
    )  # fmt: skip
    assert (folder / "autotuner_cache.json").is_file()
    assert "cold: it chose its kernels itself, and left `autotuner_cache.json`" in (folder / "README.md").read_text()
    argv = [sys.executable, "-m", "tests.engine.trtllm.stand_in.tpw", "verify", str(folder), "--live"]
    argv += ["--results", f"{tmp_path}/results", "--engines", f"{tmp_path}/engines"]
    env = os.environ | {"COLUMNS": "200", POWER_DIR: str(swept.machine.folder / "power"), NUM_GPUS: "2"}
    done = subprocess.run(argv, cwd=REPO, env=env, capture_output=True, text=True, check=False)
    store = Store(tmp_path / "results")
    (study,) = store.studies()
    (row,) = store.rows(study)
    assert (row.rendered_hash, row.autotuner_cache) == (trial.rendered_hash, "warm"), done.stdout
    assert "promised" in done.stdout
    (log,) = (tmp_path / "engines").rglob("engine.log")
    assert "Loading cache from" in log.read_text()
    assert not engine_processes(tmp_path)


# --- two at once


def test_two_runs_at_once_one_instrumented_do_not_disturb_one_another(tmp_path: Path) -> None:
    machine = make_machine(tmp_path, Behaviour(power_dir=str(tmp_path / "power")))
    common = ("workload.concurrency=[2]", "search.budget_trials=1")
    spans = {0: common, 1: (*common, "engine.instrumented=true")}
    commands = {0: "sweep", 1: "measure"}
    sweeps = {
        number: machine.tpw(*span, name=f"gpu-{number}", gpus=str(number), command=commands[number])
        for number, span in spans.items()
    }
    try:
        for sweep in sweeps.values():
            finish(sweep)
    finally:
        for sweep in sweeps.values():
            sweep.send_signal(signal.SIGKILL)
            sweep.communicate()
    for number, reasons in {0: (), 1: (Reason.INSTRUMENTED,)}.items():
        name = f"gpu-{number}"
        machine.assert_follow_from_traces(make_study(*machine.overrides(name), *spans[number]), *reasons)
        (trial,), (row,) = machine.store.trials(name), machine.store.rows(name)
        assert trial.status is TrialStatus.OK
        assert row.gpu_uuids == (gpu_uuid(number),)
        if number == 0:
            assert row.engine_energy_j is None
        else:  # its own joules and tokens agree with ours
            assert row.engine_energy_disagreement == pytest.approx(0, abs=0.1)
            assert row.finished_token_disagreement == pytest.approx(0, abs=0.2)
            assert row.engine_ttft_mean_s is not None
    assert not engine_processes(tmp_path)


# --- what the user can mend

MENDABLE = {
    "too old": (2, "0.19.0", "1.0.0"),
    "no tokenizer": (2, "no tokenizer", "give a downloaded checkpoint's folder"),
    "MPI missing": (0, "start_failed", "MPI is missing"),
    "too large": (0, "out_of_memory", "raise parallelism.tp"),
}
"""What is wrong -> exit status, and parts of what is printed: the problem and the fix. Status 0 is a failed trial."""


@pytest.fixture(scope="module")
def mendable(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """All of them at once, as they mostly wait for one another's imports."""
    machines = {name: make_machine(tmp_path_factory.mktemp("mend"), Behaviour()) for name in MENDABLE}
    for metadata in (machines["too old"].folder / "env").rglob("METADATA"):
        metadata.write_text(metadata.read_text().replace(VERSION, "0.19.0"))
    for file in (machines["no tokenizer"].folder / "gpt").glob("tokenizer*"):
        file.unlink()
    for name, told in {
        "MPI missing": Behaviour(faults={Fault.DIE_AT_START: {}}), "too large": Behaviour(weight_bytes=2**40),
    }.items():  # fmt: skip
        told.write(machines[name].folder / "env")
    once = ("workload.concurrency=[1]", "search.budget_trials=1")
    begun = {name: machines[name].tpw(*once, name="mend") for name in MENDABLE}
    outputs = {name: process.communicate(timeout=120)[0] for name, process in begun.items()}
    return {name: (begun[name].returncode, output) for name, output in outputs.items()}


@pytest.mark.parametrize("name", MENDABLE)
def test_what_the_user_can_mend_is_said_with_the_fix(mendable: dict[str, tuple[int, str]], name: str) -> None:
    (status, output), (expected, *parts) = mendable[name], MENDABLE[name]
    assert status == expected, output
    assert [part for part in parts if part not in output] == [], output
    assert "Traceback" not in output
    assert (output.splitlines()[-1].startswith("tpw: error: ")) == (status != 0)
