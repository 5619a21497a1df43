"""What goes wrong with a server, a meter or a clock under a real session: a reason or a status, no hang, no zero.

Everything is real (session, load client, meter recording, store) but the server, which misbehaves on demand, and NVML.
All cases run first, a few at a time, as they mostly wait.
"""

import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pynvml
import pytest

from pipeline.engine.attached import AttachedServer
from pipeline.engine.attached_engine import AttachedEngine
from pipeline.engine.observed import CounterSample
from pipeline.engine_config import EngineConfig
from pipeline.meter.nvml import NvmlMeter
from pipeline.record import Row, Trial
from pipeline.repeat import only_config
from pipeline.rig.protocol import Report, Start
from pipeline.rig.session import ServedSession
from pipeline.rig.verify import verify
from pipeline.store import Store
from pipeline.study import Study
from pipeline.trace_file import from_table
from pipeline.trial import run_trial
from pipeline.vocabulary import Evidence, Reason, RowStatus, TrialStatus
from tests.builders import Recorder, make_study
from tests.load.sse_server import Fault, Script, SseServer
from tests.meter.fake_nvml import (
    AVERAGE,
    HARDWARE_THERMAL,
    INSTANT,
    POWER_BRAKE,
    POWER_CAP,
    SOFTWARE_THERMAL,
    FakeGpu,
    FakeNvml,
)

CONCURRENCY, OSL_TOKENS, HANG_S = 4, 16, 1.5

STUDY = (
    "study=faults", "model=llama-3.1-8b", "hardware=h100", "engine=attached", "precision=fp8", "parallelism=single",
    "batching=default", "precision.kv_cache=auto", "workload=tiny", "workload.isl_tokens=8",
    f"workload.osl_tokens={OSL_TOKENS}", "workload.length_ratio_min=1", f"workload.concurrency=[{CONCURRENCY}]",
    "plan=quick", "plan.warmup_s=0.2", "plan.warmup_max_s=1", "plan.window_s=1.2", "plan.block_s=0.3",
    "plan.min_request_durations=0", "plan.check_s=0", "plan.steady_tolerance=0.5", f"plan.hang_s={HANG_S}",
    "plan.max_reading_disagreement=0.05",  # a tick seen 20 ms late is 2 % of such a window
)  # fmt: skip

STREAM = Script(interval_s=0.02)
"""50 tokens/s per request, which takes a third of a second."""

EMPTY = b'data: {"choices": [], "usage": {"completion_tokens": 0}}\n\ndata: [DONE]\n\n'

BUSY_MACHINE = {Reason.CLIENT_BOUND, Reason.HOST_BOUND, Reason.NOT_STEADY}
"""What the machine that runs the tests may add to any window."""

AFTER_OPENING_S = 0.4
"""When a fault of the window comes: it is a third over."""

NO_ENERGY = ("output_tokens_per_joule", "total_tokens_per_joule", "gpu_energy_j", "power_w")
NO_STATE = (
    "power_limit_w", "gpu_temperature_mean_c", "memory_temperature_mean_c", "sm_clock_mean_mhz",
    "memory_clock_mean_mhz", "gpu_busy_mean", "throttle_s", "brake_s", "power_cap_s",
)  # fmt: skip
SAYS_NOTHING = FakeGpu(
    power_limit_w=None, temperature_c=None, memory_temperature_c=None, sm_clock_mhz=None, memory_clock_mhz=None,
    busy_percent=None, compute_pids=None,
    field_status=dict.fromkeys(
        (INSTANT, AVERAGE, SOFTWARE_THERMAL, HARDWARE_THERMAL, POWER_BRAKE, POWER_CAP), pynvml.NVML_ERROR_NOT_SUPPORTED
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The stand-ins of one case."""

    server: SseServer
    gpu: FakeGpu
    nvml: FakeNvml


@dataclass(frozen=True, kw_only=True)
class Case:
    """What goes wrong, from the start or within the window, and what must come of it."""

    script: Script = STREAM
    gpu: FakeGpu = field(default_factory=FakeGpu)
    in_window: Callable[[Scene], object] = lambda scene: None
    overrides: tuple[str, ...] = ()
    reasons: frozenset[Reason] = frozenset()
    nulls: tuple[str, ...] = ()
    status: TrialStatus = TrialStatus.OK
    says: str = ""


def _then(script: Script) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.server.script = script

    return change


def _set(**attributes: object) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        for name, value in attributes.items():
            setattr(scene.gpu, name, value)

    return change


SERVER = {
    # Nobody is ever answered: no row, and the trial says why.
    "refuses all, 429": Case(script=Script(status=429), status=TrialStatus.LOAD_FAILED, says="HTTP 429: .*no room"),
    "refuses all, 500": Case(script=Script(status=500), status=TrialStatus.LOAD_FAILED, says="HTTP 500: .*no room"),
    "malformed from the start": Case(
        script=Script(fault=Fault.GARBAGE_EVENT, fault_after_chunks=0), status=TrialStatus.LOAD_FAILED, says="malformed"
    ),
    "drops from the start": Case(
        script=Script(fault=Fault.DROP, fault_after_chunks=0), status=TrialStatus.LOAD_FAILED, says="after 0 tokens"
    ),
    "empty answers": Case(
        script=Script(fault=Fault.NO_STREAM, error_body=EMPTY), status=TrialStatus.LOAD_FAILED, says=" 0 received"
    ),
    "never answers": Case(script=Script(hold=True), status=TrialStatus.HUNG, says="no token for 1.5 s"),
    "falls silent half-way": Case(
        script=dataclasses.replace(STREAM, fault=Fault.SILENCE, fault_after_chunks=OSL_TOKENS // 2),
        status=TrialStatus.HUNG, says="no token for 1.5 s, last failure: none",
    ),
    "falls silent in the window": Case(
        in_window=_then(Script(hold=True)), overrides=("plan.window_s=3",), status=TrialStatus.HUNG, says="no token"
    ),
    # Some are answered, or all in part: a row, and it is invalid.
    "refuses in the window, 429": Case(in_window=_then(Script(status=429)), reasons=frozenset({Reason.ERROR_RATE})),
    "refuses in the window, 500": Case(in_window=_then(Script(status=500)), reasons=frozenset({Reason.ERROR_RATE})),
    "malformed half-way": Case(
        script=dataclasses.replace(STREAM, fault=Fault.GARBAGE_EVENT, fault_after_chunks=OSL_TOKENS // 2),
        reasons=frozenset({Reason.ERROR_RATE}),
    ),
    "drops half-way": Case(
        script=dataclasses.replace(STREAM, fault=Fault.DROP, fault_after_chunks=OSL_TOKENS // 2),
        reasons=frozenset({Reason.ERROR_RATE}),
    ),
    "ends early": Case(
        script=dataclasses.replace(STREAM, fault=Fault.NO_DONE), reasons=frozenset({Reason.ERROR_RATE})
    ),
    "a token too few": Case(
        script=dataclasses.replace(STREAM, surplus_tokens=-1), reasons=frozenset({Reason.ERROR_RATE})
    ),
    "no usage at all": Case(script=dataclasses.replace(STREAM, usage="none"), reasons=frozenset({Reason.ERROR_RATE})),
}  # fmt: skip

METER = {
    "nothing": Case(),
    "GPU lost": Case(
        in_window=_set(lost_at_s=0.0), reasons=frozenset({Reason.NO_ENERGY, Reason.SAMPLE_GAP}),
        nulls=(*NO_ENERGY, "gpu_energy_integral_j", "throttle_s", "brake_s", "power_cap_s"),
    ),
    "counter goes back": Case(
        in_window=_set(reset_at_s=0.0),
        reasons=frozenset({Reason.COUNTER_RESET, Reason.NO_ENERGY, Reason.SAMPLE_GAP}), nulls=NO_ENERGY,
    ),
    "one GPU of two": Case(overrides=("parallelism.tp=2",), reasons=frozenset({Reason.GPU_COUNT_MISMATCH})),
    "limit lowered": Case(in_window=_set(power_limit_w=600.0), reasons=frozenset({Reason.LIMIT_CHANGED})),
    "heat": Case(in_window=_set(held_share={SOFTWARE_THERMAL: 0.3}), reasons=frozenset({Reason.THROTTLED_THERMAL})),
    "brake": Case(in_window=_set(held_share={POWER_BRAKE: 0.3}), reasons=frozenset({Reason.POWER_BRAKE})),
    "another's process": Case(
        gpu=FakeGpu(compute_pids=(os.getpid(),)), in_window=_set(compute_pids=(os.getpid(), 1)),
        reasons=frozenset({Reason.FOREIGN_PROCESS}),
    ),
    "power no longer answered": Case(
        in_window=_set(field_status={INSTANT: pynvml.NVML_ERROR_NOT_SUPPORTED}),
        reasons=frozenset({Reason.SAMPLE_GAP}), nulls=("gpu_energy_integral_j",),
    ),
    "readings disagree": Case(gpu=FakeGpu(counter_gain=1.1), reasons=frozenset({Reason.READING_DISAGREEMENT})),
    "nothing but its energy": Case(
        gpu=SAYS_NOTHING, reasons=frozenset({Reason.SAMPLE_GAP}), nulls=("gpu_energy_integral_j", *NO_STATE)
    ),
    "an idle GPU in place of the engine's": Case(
        gpu=FakeGpu(busy_percent=0), reasons=frozenset({Reason.GPU_UNUSED})
    ),
}  # fmt: skip

COUNTED = {
    "a token per chunk": Case(),
    "four tokens per chunk": Case(
        script=dataclasses.replace(STREAM, tokens_per_chunk=4), overrides=("workload.osl_tokens=64",)
    ),
    "usage at the end only": Case(script=dataclasses.replace(STREAM, usage="final")),
    "four tokens per chunk, usage at the end only": Case(
        script=dataclasses.replace(STREAM, tokens_per_chunk=4, usage="final"),
        overrides=("workload.osl_tokens=64",),
        reasons=frozenset({Reason.TOKENS_UNCOUNTED}),
    ),
}

CASES = SERVER | METER | COUNTED


class Uncounted(AttachedEngine):
    """The server of these tests has no counters."""

    def counters(self, url: str) -> CounterSample | None:
        return None


class StandInRig:
    """A rig around a scene; satisfies the Rig protocol."""

    engine_version: str | None = None
    first_gpu: str | None = None

    def __init__(self, study: Study, store: Store, scene: Scene) -> None:
        self.study, self._store, self._scene = study, store, scene

    def describe(self) -> list[str]:
        return []

    def refusal(self, config: EngineConfig) -> str | None:
        return None

    def doubts(self, config: EngineConfig) -> tuple[str, ...]:
        return ()

    @contextmanager
    def start(self, config: EngineConfig, trial_id: str, report: Report) -> Iterator[ServedSession]:
        scene = self._scene
        with NvmlMeter([scene.gpu.uuid], scene.nvml) as meter, AttachedServer(scene.server.url) as server:
            start = Start(rendered_hash="", evidence=meter.info.evidence)
            yield ServedSession(self.study, self._store, config, trial_id, Uncounted(), server, meter, start)


class Breaking(Recorder):
    """Progress that lets something go wrong a moment after the window opened."""

    def __init__(self, fault: Callable[[], object]) -> None:
        super().__init__()
        self.timer = threading.Timer(AFTER_OPENING_S, fault)

    def phase(self, text: str) -> None:
        super().phase(text)
        if text.startswith("measuring"):
            self.timer.start()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was stored."""

    study: Study
    store: Store
    trial: Trial
    rows: list[Row]


def run_case(case: Case, study: Study, folder: Path) -> Outcome:
    """Measure the study's one load and keep what came of it."""
    store, gpu = Store(folder), dataclasses.replace(case.gpu, _ticks_mj=[0.0], _lock=threading.Lock())
    with SseServer(case.script) as server:
        scene = Scene(server=server, gpu=gpu, nvml=FakeNvml(gpu))
        progress = Breaking(lambda: case.in_window(scene))
        trial = run_trial(
            study, StandInRig(study, store, scene), store, only_config(study), number=0, proposed_by="test",
            earlier_rows=(), progress=progress,
        )  # fmt: skip
        progress.timer.cancel()
    return Outcome(study=study, store=store, trial=trial, rows=store.rows(study.id))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    with ThreadPoolExecutor(8) as pool:
        running = {
            name: pool.submit(run_case, case, make_study(*STUDY, *case.overrides), tmp_path_factory.mktemp("results"))
            for name, case in CASES.items()
        }
        return {name: future.result(60) for name, future in running.items()}


def assert_row_follows(outcome: Outcome, row: Row) -> None:
    """What holds of every row: it follows from its trace, and what is not known is null and not 0."""
    assert verify(row, from_table(outcome.store.read_trace(row)), outcome.study).differences == ()
    assert row.evidence is Evidence.SIMULATED
    assert (row.status is RowStatus.INVALID) == bool(row.reasons)
    for name in (*NO_ENERGY, "gpu_energy_integral_j", "ttft_p50_s", "tpot_p50_s"):
        assert getattr(row, name) != 0, name


@pytest.mark.parametrize("name", [name for name, case in SERVER.items() if case.status is not TrialStatus.OK])
def test_a_server_that_answers_nobody_is_a_trial_that_says_so(outcomes: dict[str, Outcome], name: str) -> None:
    case, outcome = SERVER[name], outcomes[name]
    assert (outcome.trial.status, outcome.rows, outcome.trial.score) == (case.status, [], None)
    (said,) = outcome.trial.reasons
    assert re.fullmatch(f".*{case.says}.*", said)


@pytest.mark.parametrize("name", [name for name, case in SERVER.items() if case.status is TrialStatus.OK])
def test_a_server_that_answers_badly_gives_an_invalid_row(outcomes: dict[str, Outcome], name: str) -> None:
    case, outcome = SERVER[name], outcomes[name]
    assert (outcome.trial.status, outcome.trial.score) == (TrialStatus.OK, None)
    (row,) = outcome.rows
    assert_row_follows(outcome, row)
    assert case.reasons <= set(row.reasons)
    assert row.num_failed


@pytest.mark.parametrize("name", METER)
def test_a_meter_that_fails_is_told_by_exactly_its_reason(outcomes: dict[str, Outcome], name: str) -> None:
    case, outcome = METER[name], outcomes[name]
    assert outcome.trial.status is TrialStatus.OK, outcome.trial.reasons
    (row,) = outcome.rows
    assert_row_follows(outcome, row)
    assert set(row.reasons) - BUSY_MACHINE == case.reasons
    known = {*NO_ENERGY, "gpu_energy_integral_j", *NO_STATE} - set(case.nulls)
    assert [column for column in case.nulls if getattr(row, column) is not None] == []
    assert [column for column in known if getattr(row, column) is None] == []
    assert row.output_tokens  # the load is told all the same


@pytest.mark.parametrize("name", COUNTED)
def test_tokens_are_counted_by_usage_and_not_by_chunks(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    (row,) = outcome.rows
    assert_row_follows(outcome, row)
    assert set(row.reasons) - BUSY_MACHINE == COUNTED[name].reasons
    osl_tokens = outcome.study.workload.osl_tokens
    assert row.osl_mean_tokens == osl_tokens
    assert row.num_completed
    assert row.output_tokens == pytest.approx(osl_tokens * row.num_completed, abs=osl_tokens * CONCURRENCY)
    assert row.output_tokens is not None
    assert row.gpu_energy_j is not None
    assert row.output_tokens_per_joule == pytest.approx(row.output_tokens / row.gpu_energy_j)


def test_a_clock_step_moves_nothing_but_the_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step_s = -3600.0

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Stepped":
            return super().now(tz) + timedelta(seconds=step_s)

    def step(scene: Scene) -> None:
        real_s, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real_s() + step_s)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + round(step_s * 1e9))
        monkeypatch.setattr("pipeline.rig.rows.datetime", Stepped)
        scene.nvml.wall_step_s = step_s

    outcome = run_case(Case(in_window=step), make_study(*STUDY), tmp_path)
    (row,) = outcome.rows
    assert_row_follows(outcome, row)
    assert set(row.reasons) <= BUSY_MACHINE
    assert row.window_s is not None
    assert 1 < row.window_s < 2.5
    assert row.gpu_energy_j == pytest.approx(300 * row.window_s, rel=0.05)
    assert row.gpu_energy_integral_j == pytest.approx(300 * row.window_s, rel=0.05)
    ahead = datetime.fromisoformat(row.started_utc) - datetime.fromisoformat(outcome.trial.started_utc)
    assert ahead.total_seconds() == pytest.approx(step_s, abs=60)
