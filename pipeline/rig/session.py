"""One running engine: keep it under load until it is steady, read energy and tokens over one window, store both."""

import time

from pipeline.engine.process import EngineProcess
from pipeline.engine.protocol import Rendered
from pipeline.errors import EngineError
from pipeline.load.client import ClosedLoop
from pipeline.load.protocol import Load, LoadSnapshot
from pipeline.meter.protocol import Meter
from pipeline.record import Evidence, Row, TrialStatus, weaker
from pipeline.rig.protocol import Report, Start, TrialError
from pipeline.rig.rows import identity, measured, utc
from pipeline.roofline.bound import max_output_tokens_per_s
from pipeline.store import Store, new_id
from pipeline.study import EngineConfig, OperatingPoint, Plan, Study
from pipeline.trace import PACKED_COLUMNS, Trace, cut, from_table, to_table
from pipeline.verdict import plan_evidence
from pipeline.window import is_steady

POLL_S = 0.05

PAUSE_BETWEEN_POINTS_S = 0.3
"""For the server to drop the requests that the last point cancelled."""

MAX_SETTLE_S = 3.0
"""How long readings may go on after the window, for the slow ones to reach past its end."""

NUM_STEADY_BLOCKS = 5
"""Blocks without trend or stall before the window opens."""

MIN_FAILURES = 20
"""Failed requests, without a single token, after which a load point is given up."""


class ServedSession:
    """One running engine; satisfies the Session protocol."""

    def __init__(
        self,
        study: Study,
        store: Store,
        config: EngineConfig,
        trial_id: str,
        process: EngineProcess,
        meter: Meter,
        rendered: Rendered,
        start: Start,
    ) -> None:
        """Remember the running parts."""
        self.start = start
        self._study = study
        self._store = store
        self._config = config
        self._trial_id = trial_id
        self._process = process
        self._meter = meter
        self._rendered = rendered

    def measure(self, point: OperatingPoint, report: Report) -> Row:
        """Put the engine under load, let it settle, read one window, store the evidence.

        Raises:
            TrialError: If the engine dies, hangs, or fails every request, or the meter goes silent.
        """
        study = self._study
        began_ns = time.monotonic_ns()
        load = ClosedLoop(
            self._process.url, study.model.name, study.workload, study.model.vocab_size, point.concurrency
        )
        with load:
            report(f"warming up, concurrency {point.concurrency}")
            warmup_was_steady = self._warm_up(load, study.plan)
            report(f"measuring, concurrency {point.concurrency}")
            before, open_ns = load.snapshot(), time.monotonic_ns()
            self._wait(load, study.plan, study.plan.window_s)
            close_ns = self._close(load, study.plan, open_ns)
            after = load.snapshot()
            self._settle(load, study.plan, close_ns)
            trace = Trace(
                open_ns=open_ns,
                close_ns=close_ns,
                concurrency=point.concurrency,
                requests=load.records(),
                devices=self._meter.reading(),
            )
        time.sleep(PAUSE_BETWEEN_POINTS_S)
        client_cpu_s = after.client_cpu_s - before.client_cpu_s
        return self._row(
            point, trace, warmup_was_steady=warmup_was_steady, client_cpu_s=client_cpu_s, began_ns=began_ns
        )

    def _row(
        self,
        point: OperatingPoint,
        trace: Trace,
        *,
        warmup_was_steady: bool,
        client_cpu_s: float,
        began_ns: int,
    ) -> Row:
        """The row, computed from the trace as stored, so that anyone can compute it again."""
        study, info, row_id = self._study, self._meter.info, new_id()
        table = to_table(cut(trace), row_id)
        trace_file, trace_sha256 = self._store.append_trace(table, study.id, row_id, PACKED_COLUMNS)
        faults = self._meter.faults()
        bound = max_output_tokens_per_s(study.model, study.hardware, self._config, point)
        columns = measured(
            from_table(table), study.plan, info.boundary, faults=faults, warmup_was_steady=warmup_was_steady,
            bound_tokens_per_s=bound, client_cpu_s=client_cpu_s,
        )  # fmt: skip
        throughput_evidence = plan_evidence(study.plan, Evidence.MEASURED)
        energy_evidence = plan_evidence(study.plan, info.evidence)
        return Row(
            **identity(study, self._config, point, self._trial_id),
            **columns,
            row_id=row_id,
            rendered_hash=self.start.rendered_hash,
            effective_hash=self.start.effective_hash,
            throughput_evidence=throughput_evidence,
            energy_evidence=energy_evidence,
            evidence=weaker(throughput_evidence, energy_evidence),
            started_utc=utc(trace.open_ns, time.monotonic_ns()),
            weights_init=self._rendered.weights_init,
            gpu_name=info.device_name,
            gpu_uuids=info.devices if study.hardware.kind == "gpu" else (),
            driver_version=info.driver_version,
            engine_version=self.start.engine_version,
            warmup_s=(trace.open_ns - began_ns) * 1e-9,
            trace_file=trace_file,
            trace_sha256=trace_sha256,
        )

    def _warm_up(self, load: Load, plan: Plan) -> bool:
        """Wait until throughput is steady; False if it was not before the plan's cap."""
        self._wait(load, plan, plan.warmup_s)
        deadline = time.monotonic() + plan.warmup_max_s - plan.warmup_s
        rates: list[float] = []
        tokens = load.snapshot().output_tokens
        while time.monotonic() < deadline:
            began = time.monotonic()
            self._wait(load, plan, plan.block_s)
            now_tokens = load.snapshot().output_tokens
            rates.append((now_tokens - tokens) / (time.monotonic() - began))
            tokens = now_tokens
            if len(rates) >= NUM_STEADY_BLOCKS and is_steady(rates[-NUM_STEADY_BLOCKS:], plan.steady_tolerance):
                return True
        return False

    def _close(self, load: Load, plan: Plan, open_ns: int) -> int:
        """Wait, still under load, until every device has ticked after the window's length; returns the closing time.

        Raises:
            TrialError: If a device goes silent for `plan.hang_s`, or the load fails.
        """
        due_ns = open_ns + round(plan.window_s * 1e9)
        deadline = time.monotonic() + plan.hang_s
        while time.monotonic() < deadline:
            readings = self._meter.reading().values()
            if readings and all(r.ticks and r.ticks[-1].t_ns >= due_ns for r in readings):
                return time.monotonic_ns()
            self._wait(load, plan, POLL_S)
            if self._meter.faults():
                return time.monotonic_ns()
        raise TrialError(TrialStatus.METER_FAILED, f"the meter gave no reading for {plan.hang_s:g} s")

    def _settle(self, load: Load, plan: Plan, close_ns: int) -> None:
        """Let readings go on until the slow ones (throttle counters) reach past the window's end too."""
        deadline = time.monotonic() + MAX_SETTLE_S
        while time.monotonic() < deadline:
            self._wait(load, plan, POLL_S)
            slow = [
                points for r in self._meter.reading().values() for points in (r.throttle_ns, r.power_cap_ns) if points
            ]
            if all(points[-1][0] >= close_ns for points in slow):
                return

    def _wait(self, load: Load, plan: Plan, duration_s: float) -> None:
        """Let the load run, and notice at once when it cannot.

        Raises:
            TrialError: If the engine died, nothing arrives for `plan.hang_s`, or every request fails.
        """
        deadline = time.monotonic() + duration_s
        while True:
            self._check(load.snapshot(), plan)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(POLL_S, left_s))

    def _check(self, state: LoadSnapshot, plan: Plan) -> None:
        try:
            self._process.check_alive()
        except EngineError as error:
            raise TrialError(TrialStatus.LOAD_FAILED, f"{error} under load", error.log_tail) from error
        if state.num_failed >= MIN_FAILURES and state.output_tokens == 0:
            message = f"every request failed, last: {state.last_error}"
            raise TrialError(TrialStatus.LOAD_FAILED, message, self._process.log_tail())
        if time.monotonic_ns() - state.last_event_ns > plan.hang_s * 1e9:
            message = f"no token for {plan.hang_s:g} s, last failure: {state.last_error or 'none'}"
            raise TrialError(TrialStatus.HUNG, message, self._process.log_tail())
