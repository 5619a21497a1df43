"""One running engine: keep it under load until it has settled, read energy and tokens over windows, store both."""

import dataclasses
import time
from bisect import bisect_right
from collections.abc import Generator
from operator import attrgetter

import numpy as np

from pipeline.engine.observed import CounterSample
from pipeline.engine.protocol import Engine
from pipeline.engine.server import Server
from pipeline.engine.watch import EngineWatch
from pipeline.engine_config import EngineConfig
from pipeline.errors import EngineError
from pipeline.load.client import LoadClient
from pipeline.load.protocol import Load, LoadSnapshot
from pipeline.meter.energy import common_window, hottest_c
from pipeline.meter.protocol import Meter
from pipeline.record import Row
from pipeline.rig.host_id import host_id
from pipeline.rig.protocol import Report, Start, TrialError
from pipeline.rig.rows import identity, interval_over, measured, utc
from pipeline.rig.seen import engine_cpu_between_s, growth
from pipeline.roofline.bound import physical_limit
from pipeline.rules import longest_prompt_tokens
from pipeline.store import Store, new_id
from pipeline.study import Study
from pipeline.trace import Context, Trace, cut
from pipeline.trace_file import ENCODINGS, from_table, to_table
from pipeline.verdict import plan_evidence
from pipeline.vocabulary import Evidence, TrialStatus, weaker
from pipeline.warmup import NUM_STEADY_BLOCKS, WarmupBlock, WarmupState, unsettled
from pipeline.window_length import must_extend, window_length_s
from pipeline.workload import OperatingPoint

POLL_S = 0.05

PAUSE_BETWEEN_POINTS_S = 0.3
"""For the server to drop the requests that the last point cancelled."""

COUNTER_PERIOD_S = 0.5
"""Between readings of the engine's counters after the window."""

MAX_SETTLE_S = 3.0
"""How long readings may go on after the window, for the slow ones to reach past its end."""

MIN_COMPLETED = 20
"""Requests whose ends tell their rate within a quarter."""

MIN_FAILURES = 20
"""Failed requests, without a single token, after which a load point is given up."""


class ServedSession:
    """One running engine; satisfies the Session protocol. `url`: its address; `row_ids`: the rows so far."""

    def __init__(
        self,
        study: Study,
        store: Store,
        config: EngineConfig,
        trial_id: str,
        engine: Engine,
        server: Server,
        meter: Meter,
        start: Start,
    ) -> None:
        """Remember the running parts."""
        self.start = start
        self.url = server.url
        self.row_ids: list[str] = []
        self._study = study
        self._store = store
        self._config = config
        self._trial_id = trial_id
        self._engine = engine
        self._server = server
        self._meter = meter
        self._is_open_loop = study.workload.arrival != "closed"
        self._idle_ns = 0

    def measure(self, point: OperatingPoint, report: Report) -> Generator[Row, None, None]:
        """Put the engine under load, let it settle, read `plan.windows` windows, store the evidence of each.

        Raises:
            TrialError: If the engine dies, hangs, or fails every request, or the meter goes silent.
        """
        study, plan, began_ns = self._study, self._study.plan, time.monotonic_ns()
        limit = physical_limit(study.model, study.hardware, study.workload, self._config, point)
        load = LoadClient(
            self._server.url, self.start.served_model or study.model.name, study.workload, study.model.vocab_size,
            point, max_prompt_tokens=longest_prompt_tokens(self._config),
        )  # fmt: skip
        watch = EngineWatch(self._server, self._engine.compile_line, self.start.kernel_caches)
        with load, watch:
            report(f"warming up, {point}")
            blocks, lacking = self._warm_up(load, watch, point)
            window_s, is_long_enough = window_length_s(plan, self._request_duration_s(blocks, load, began_ns))
            for number in range(plan.windows):
                report(f"measuring, {point}" + (f", window {number + 1} of {plan.windows}" if plan.windows > 1 else ""))
                trace, is_extended = self._window(load, watch, point, window_s)
                context = Context(
                    plan=plan,
                    slo=study.slo,
                    boundary=self._meter.info.boundary,
                    num_gpus=self._config.parallelism.num_gpus if study.hardware.kind == "gpu" else 0,
                    meter_faults=self._meter.faults(),
                    warmup_unsettled=lacking,
                    is_window_long_enough=is_long_enough,
                    is_extended=is_extended,
                    bound_tokens_per_s=limit.output_tokens_per_s if limit else None,
                    bound_tokens_per_joule=limit.output_tokens_per_joule if limit else None,
                    **self.start.doubts(),
                )
                yield self._row(point, cut(trace), context, began_ns)
        time.sleep(PAUSE_BETWEEN_POINTS_S)

    def _row(self, point: OperatingPoint, trace: Trace, context: Context, began_ns: int) -> Row:
        """The row, computed from the trace as stored, so that anyone can compute it again."""
        study, info, row_id = self._study, self._meter.info, new_id()
        self.row_ids.append(row_id)
        table = to_table(dataclasses.replace(trace, context=context), row_id)
        trace_file, trace_sha256 = self._store.append_trace(table, study.id, row_id, ENCODINGS)
        throughput_evidence = plan_evidence(study.plan, Evidence.MEASURED)
        energy_evidence = plan_evidence(study.plan, info.evidence)
        return Row(
            **identity(study, self._config, point, self._trial_id),
            **measured(from_table(table), context),
            row_id=row_id,
            **self.start.columns(),
            throughput_evidence=throughput_evidence,
            energy_evidence=energy_evidence,
            evidence=weaker(throughput_evidence, energy_evidence),
            started_utc=utc(trace.open_ns, time.monotonic_ns()),
            gpu_name=info.device_name,
            gpu_uuids=info.devices if study.hardware.kind == "gpu" else (),
            host_id=host_id(),
            driver_version=info.driver_version,
            warmup_s=(trace.open_ns - began_ns) * 1e-9,
            trace_file=trace_file,
            trace_sha256=trace_sha256,
        )

    def _warm_up(
        self, load: Load, watch: EngineWatch, point: OperatingPoint
    ) -> tuple[list[WarmupBlock], tuple[str, ...]]:
        """Wait until nothing changes any more; its blocks, and what had not settled at the plan's cap."""
        plan, began = self._study.plan, time.monotonic()
        blocks: list[WarmupBlock] = []
        while True:
            blocks.append(self._block(load, watch, point))
            lacking = unsettled(WarmupState(blocks=blocks, temperatures_c=hottest_c(self._meter.reading())), plan)
            elapsed_s = time.monotonic() - began
            if elapsed_s >= plan.warmup_s and (not lacking or elapsed_s + plan.block_s > plan.warmup_max_s):
                return blocks, lacking

    def _block(self, load: Load, watch: EngineWatch, point: OperatingPoint) -> WarmupBlock:
        """One block of the warm-up."""
        began_ns, before = time.monotonic_ns(), load.snapshot()
        in_flight = self._wait(load, self._study.plan.block_s)
        elapsed_s = (time.monotonic_ns() - began_ns) * 1e-9
        seen = watch.samples()
        since = seen[max(0, bisect_right(seen, began_ns, key=attrgetter("t_ns")) - 1) :]
        first, last = since[0], since[-1]
        cpu_s = engine_cpu_between_s(first, last) if self._study.hardware.kind == "gpu" and len(since) > 1 else None
        return WarmupBlock(
            tokens_per_s=(load.snapshot().output_tokens - before.output_tokens) / elapsed_s,
            occupancy=None if point.concurrency is None else float(np.mean(in_flight)) / point.concurrency,
            num_new_kernels=growth(first.num_cached_kernels, last.num_cached_kernels),
            num_compile_lines=growth(first.num_compile_lines, last.num_compile_lines),
            engine_cores=None if cpu_s is None else cpu_s * 1e9 / (last.t_ns - first.t_ns),
        )

    def _request_duration_s(self, blocks: list[WarmupBlock], load: Load, began_ns: int) -> float | None:
        """Mean time that a request takes, by Little's law: those in flight / those that end per second.

        Few have ended by now where outputs are long: then by tokens, and the mean output length of the workload.
        """
        workload, state = self._study.workload, load.snapshot()
        if state.num_completed >= MIN_COMPLETED:
            return state.num_in_flight * (time.monotonic_ns() - began_ns) * 1e-9 / state.num_completed
        mean_osl_tokens = workload.osl_tokens * (1 + workload.length_ratio_min) / 2
        tokens_per_s = float(np.mean([block.tokens_per_s for block in blocks[-NUM_STEADY_BLOCKS:]]))
        return state.num_in_flight * mean_osl_tokens / tokens_per_s if tokens_per_s > 0 else None

    def _window(self, load: Load, watch: EngineWatch, point: OperatingPoint, window_s: float) -> tuple[Trace, bool]:
        """One window under a running load, doubled once where its interval is wide; and whether it was."""
        plan = self._study.plan
        counters = self._counters()
        open_ns = time.monotonic_ns()
        arrived: list[tuple[int, int]] = []
        self._wait(load, window_s, arrived)
        if is_extended := self._is_wide(arrived, open_ns):
            self._wait(load, window_s, arrived)
        close_ns = self._close(load, time.monotonic_ns())
        checked = time.monotonic() + plan.check_s
        counters += self._counters()
        while counters and time.monotonic() < checked:
            self._wait(load, min(COUNTER_PERIOD_S, max(0.0, checked - time.monotonic())))
            counters += self._counters()
        self._settle(load, max([close_ns, *(c.energy_t_ns or 0 for c in counters)]))
        return Trace(
            open_ns=open_ns,
            close_ns=close_ns,
            point=point,
            requests=load.records(),
            devices=self._meter.reading(),
            client=load.client_samples(),
            host=watch.samples(),
            counters=counters,
        ), is_extended

    def _is_wide(self, arrived: list[tuple[int, int]], open_ns: int) -> bool:
        """Whether the interval so far is wider than the plan wants, by tokens as they arrived and the meter's ticks."""
        devices = self._meter.reading()
        energy = common_window(devices, open_ns, time.monotonic_ns())
        if self._study.plan.max_rel_ci95 is None or energy is None or len(arrived) < 2:
            return False
        times_ns, totals = zip(*arrived, strict=True)

        def tokens(num_blocks: int) -> list[float]:
            edges_ns = np.linspace(energy.t0_ns, energy.t1_ns, num_blocks + 1)
            return [float(arrived) for arrived in np.diff(np.interp(edges_ns, times_ns, totals))]

        return must_extend(interval_over(devices, energy, tokens), self._study.plan)

    def _counters(self) -> list[CounterSample]:
        """One reading of the engine's own counters, if it has any."""
        found = self._engine.counters(self._server.url)
        return [] if found is None else [found]

    def _close(self, load: Load, due_ns: int) -> int:
        """Wait, still under load, until every device has ticked after the window's length; returns the closing time.

        Raises:
            TrialError: If a device goes silent for `plan.hang_s`, or the load fails.
        """
        hang_s = self._study.plan.hang_s
        deadline = time.monotonic() + hang_s
        while time.monotonic() < deadline:
            readings = self._meter.reading().values()
            if readings and all(r.ticks and r.ticks[-1].t_ns >= due_ns for r in readings):
                return time.monotonic_ns()
            self._wait(load, POLL_S)
            if self._meter.faults():
                return time.monotonic_ns()
        raise TrialError(TrialStatus.METER_FAILED, f"the meter gave no reading for {hang_s:g} s")

    def _settle(self, load: Load, until_ns: int) -> None:
        """Let readings go on until the slow ones (the state of a device) reach past the window's end too."""
        deadline = time.monotonic() + MAX_SETTLE_S
        while time.monotonic() < deadline:
            self._wait(load, POLL_S)
            readings = self._meter.reading().values()
            slow = [series[-1] for r in readings for series in (r.states, r.samples) if series]
            if all(reading.t_ns >= until_ns for reading in slow):
                return

    def _wait(self, load: Load, duration_s: float, arrived: list[tuple[int, int]] | None = None) -> list[int]:
        """Let the load run, and notice at once when it cannot; requests in flight at every poll.

        Args:
            load: The running load.
            duration_s: How long.
            arrived: (t_ns, output tokens since the start) of every poll are added here.

        Raises:
            TrialError: If the engine died, nothing arrives for `plan.hang_s`, or every request fails.
        """
        deadline = time.monotonic() + duration_s
        in_flight = []
        while True:
            state = load.snapshot()
            if self._is_open_loop and state.num_in_flight == 0:
                self._idle_ns = time.monotonic_ns()  # nobody asks: no token is no hang
            self._check(state)
            in_flight.append(state.num_in_flight)
            if arrived is not None:
                arrived.append((time.monotonic_ns(), state.output_tokens))
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return in_flight
            time.sleep(min(POLL_S, left_s))

    def _check(self, state: LoadSnapshot) -> None:
        hang_s = self._study.plan.hang_s
        try:
            self._server.check_alive()
        except EngineError as error:
            raise TrialError(TrialStatus.LOAD_FAILED, f"{error} under load", error.log_tail) from error
        if state.num_failed >= MIN_FAILURES and state.output_tokens == 0:
            message = f"every request failed, last: {state.last_error}"
            raise TrialError(TrialStatus.LOAD_FAILED, message, self._server.log_tail())
        if time.monotonic_ns() - max(state.last_event_ns, self._idle_ns) > hang_s * 1e9:
            message = f"no token for {hang_s:g} s, last failure: {state.last_error or 'none'}"
            raise TrialError(TrialStatus.HUNG, message, self._server.log_tail())
