"""Rows, trials, studies, requests and readings with everything that a test does not care about filled in."""

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pipeline.config import load_study
from pipeline.engine_config import EngineConfig, Value
from pipeline.load.protocol import RequestRecord
from pipeline.meter.protocol import DeviceReading, EnergyTick, PowerSample, StateSample
from pipeline.record import Row, Trial
from pipeline.rig.protocol import Report, Start
from pipeline.search.proposal import Proposal
from pipeline.store import new_id
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint, Slo

SECOND_NS = 1_000_000_000

MODELLED = ("model=gpt-oss-120b", "rig=modelled", "hardware=b200", "engine=trtllm", "precision=auto",
            "parallelism=auto", "batching=auto", "workload=chat_1k_1k", "study=test")  # fmt: skip
"""Overrides of a study that needs no hardware."""


@cache
def make_study(*overrides: str) -> Study:
    """A study as the command line would compose it."""
    return load_study(overrides)


def with_axes(study: Study, **values: tuple[Value | None, ...] | Value | None) -> Study:
    """A study with some axes replaced, `group__name=(a, b)` standing for `group.name`, and its other axes single."""
    axes = {key: options[:1] for key, options in study.axes.items()}
    for key, value in values.items():
        axes[key.replace("__", ".")] = value if isinstance(value, tuple) else (value,)
    return dataclasses.replace(study, axes=axes)


def with_search(study: Study, **values: Any) -> Study:
    """A study with some search settings replaced."""
    return dataclasses.replace(study, search=dataclasses.replace(study.search, **values))


def make_slo(ttft_p99_s: float | None = None, tpot_p99_s: float | None = None, **more: float | None) -> Slo:
    """An SLO."""
    return Slo(name="test", source="test", ttft_p99_s=ttft_p99_s, tpot_p99_s=tpot_p99_s, **more)


def make_row(**overrides: Any) -> Row:
    """A valid row; any column can be set."""
    columns: dict[str, Any] = {
        "row_id": new_id(), "trial_id": "trial", "study_id": "test", "case_id": "case", "config_hash": "config",
        "rendered_hash": "rendered", "config_json": "{}", "status": RowStatus.OK, "evidence": Evidence.MEASURED,
        "throughput_evidence": Evidence.MEASURED, "energy_evidence": Evidence.MEASURED, "boundary": Boundary.GPU,
        "started_utc": "2026-01-01T00:00:00.000+00:00", "model": "model", "weights": "checkpoint", "hardware": "h100",
        "num_gpus": 1, "engine": "trtllm", "tool_version": "0", "workload": "workload", "plan": "quick",
        "isl_tokens": 1024, "osl_tokens": 1024, "concurrency": 1, "output_tokens_per_joule": 1.0, "ttft_p99_s": 0.1,
        "tpot_p99_s": 0.01,
    }  # fmt: skip
    return Row(**columns | overrides)


def make_trial(**overrides: Any) -> Trial:
    """A trial that went well; any column can be set."""
    columns: dict[str, Any] = {
        "trial_id": new_id(), "study_id": "test", "number": 0, "status": TrialStatus.OK, "config_hash": "config",
        "config_json": "{}", "proposed_by": "test", "engine": "trtllm", "num_rows": 0, "slo": "none",
        "started_utc": "2026-01-01T00:00:00.000+00:00", "total_s": 1.0, "tool_version": "0", "study_json": "{}",
    }  # fmt: skip
    return Trial(**columns | overrides)


def make_request(
    sent_s: float, events: Sequence[tuple[float, int]] = (), *, ended: bool = True, error: str | None = None
) -> RequestRecord:
    """A request sent at `sent_s` with (time in s, cumulative tokens) events; it ends with its last event or runs on."""
    times = [round(t_s * SECOND_NS) for t_s, _ in events]
    return RequestRecord(
        index=0,
        isl_tokens=100,
        osl_tokens=events[-1][1] if events else 10,
        sent_ns=round(sent_s * SECOND_NS),
        event_t_ns=times,
        event_tokens=[tokens for _, tokens in events],
        end_ns=times[-1] if ended and times and error is None else None,
        error=error,
    )


def steady_device(power_w: float, from_s: float, to_s: float, *, period_s: float = 0.1) -> DeviceReading:
    """A device at constant power, ticking and sampled every `period_s`."""
    count = round((to_s - from_s) / period_s) + 1
    times_ns = [round((from_s + n * period_s) * SECOND_NS) for n in range(count)]
    return DeviceReading(
        ticks=[EnergyTick(t, 1000 + power_w * t / SECOND_NS) for t in times_ns],
        samples=[PowerSample(t_ns=t, power_w=power_w) for t in times_ns],
        states=[
            StateSample(
                t_ns=t, temperature_c=50.0, sm_clock_mhz=1500.0, thermal_ns=0, brake_ns=0, power_cap_ns=t // 10,
                power_limit_w=700.0,
            )
            for t in times_ns
        ],
    )  # fmt: skip


class StubRig:
    """A rig whose tokens per joule, or failure, follow from the config and the load by a function of the test."""

    def __init__(self, study: Study, answer: Any) -> None:
        """`answer(config, concurrency)` returns row columns or raises; concurrency 0 is the start."""
        self.study = study
        self._answer = answer
        self.started: list[EngineConfig] = []
        self.measured: list[tuple[str, int]] = []
        self.num_stopped = 0
        self.refused: frozenset[str] = frozenset()
        self.engine_version: str | None = None
        self.first_gpu: str | None = None

    def refusal(self, config: EngineConfig) -> str | None:
        """Refuse the configs whose hashes are in `refused`."""
        return "the engine refuses this one" if config.config_hash in self.refused else None

    def doubts(self, config: EngineConfig) -> tuple[str, ...]:
        """None."""
        return ()

    def describe(self) -> list[str]:
        """What this is."""
        return ["a stub"]

    @contextmanager
    def start(self, config: EngineConfig, trial_id: str, report: Report) -> Iterator["StubSession"]:
        """Start nothing."""
        self.started.append(config)
        self._answer(config, 0)
        try:
            yield StubSession(self, config, trial_id)
        finally:
            self.num_stopped += 1

    def row(self, config: EngineConfig, trial_id: str, concurrency: int) -> Row:
        """What the test's function says of this config and load."""
        columns = self._answer(config, concurrency)
        self.measured.append((config.config_hash, concurrency))
        return make_row(
            study_id=self.study.id, trial_id=trial_id, config_hash=config.config_hash, concurrency=concurrency,
            evidence=Evidence.SIMULATED, started_utc=datetime.now(UTC).isoformat(), **columns,
        )  # fmt: skip


class StubSession:
    """One config of a StubRig."""

    def __init__(self, rig: StubRig, config: EngineConfig, trial_id: str) -> None:
        """Remember who asks."""
        self.start = Start(rendered_hash=config.config_hash, evidence=Evidence.SIMULATED)
        self._rig, self._config, self._trial_id = rig, config, trial_id

    def measure(self, point: OperatingPoint, report: Report) -> Generator[Row, None, None]:
        """A row of the stub."""
        assert point.concurrency is not None
        yield self._rig.row(self._config, self._trial_id, point.concurrency)


class Recorder:
    """Progress that remembers, and calls `on_row` or `on_end` if a test wants to break in."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.rows: list[Row] = []
        self.began: list[tuple[int, int, Proposal]] = []
        self.ended: list[Trial] = []
        self.interrupt_at_row: int | None = None

    def phase(self, text: str) -> None:
        """Remember."""
        self.phases.append(text)

    def row(self, row: Row) -> None:
        """Remember, and press Ctrl-C where the test asked for it.

        Raises:
            KeyboardInterrupt: At that row.
        """
        self.rows.append(row)
        if len(self.rows) == self.interrupt_at_row:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        """Remember."""
        self.notes.append(text)

    def trial_began(self, number: int, num_done: int, proposal: Proposal) -> None:
        """Remember."""
        self.began.append((number, num_done, proposal))

    def trial_ended(self, trial: Trial) -> None:
        """Remember."""
        self.ended.append(trial)


INVALID = {"status": RowStatus.INVALID, "reasons": (Reason.NO_TOKENS,), "output_tokens_per_joule": None}
"""Columns of a row that may not be scored."""
