"""The rig with a real server: meter and engine are started here; session.py measures on what runs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.engine.autotuner_cache import cache_files, keep_cache, keeps_cache
from pipeline.engine.catalog import refusal
from pipeline.engine.folder import engine_id, write_definition, write_start
from pipeline.engine.process import OWN_PLACES, EngineProcess, writable
from pipeline.engine.protocol import Engine, Rendered
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.runtime.protocol import Runtime
from pipeline.engine.trtllm.multinode import why_not_here
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError, EngineError
from pipeline.meter.energy import common_window
from pipeline.meter.protocol import Meter, MeterInfo
from pipeline.rig.definition import definition, start_facts
from pipeline.rig.protocol import Report, Start, TrialError
from pipeline.rig.session import ServedSession
from pipeline.store import Store
from pipeline.study import Plan, Study
from pipeline.verdict import plan_evidence
from pipeline.vocabulary import TrialStatus

OpenMeter = Callable[[int], Meter]
"""Opens a meter over so many devices."""


def rows_to_come(info: MeterInfo, plan: Plan) -> list[str]:
    """What meters, and what its rows will be, a line each."""
    evidence = plan_evidence(plan, info.evidence)
    return [f"meter: {info.description}", f"rows: evidence={evidence}, boundary={info.boundary}, plan={plan.name}"]


class ServedRig:
    """Engine, load and meter; satisfies the Rig protocol."""

    def __init__(self, study: Study, engine: Engine, open_meter: OpenMeter, store: Store) -> None:
        """Ask the engine's runtime for its version, and the meter for its GPUs.

        Raises:
            ConfigError: If the GPUs are not the study's.
            EngineError: If the configured runtime does not have the engine.
            MeterError: If there is nothing to meter.
        """
        availability = engine.availability(study)
        if availability.why_not is not None:
            raise EngineError(f"engine={engine.name}: {availability.why_not}")
        asked, found = study.engine.version, availability.version
        if asked is not None and found is not None and asked != found:
            raise ConfigError(
                f"engine.version={asked}: the runtime has {found}; leave engine.version=null to render for that, or "
                "give the runtime (engine.python, engine.image) that has the other"
            )
        self.study = replace(study, engine=replace(study.engine, version=found or asked))
        self.store = store
        self.engine_version = availability.version
        self._engine = engine
        self._open_meter = open_meter
        self._meter_info = open_meter(1).info
        self.first_gpu = self._meter_info.devices[0] if study.hardware.kind == "gpu" else None
        self._weights_problem: dict[tuple[Value, ...], str | None] = {}
        self._is_smoke_test = engine.name == "trtllm" and study.weights == "random"
        self._is_version_tested = None if found is None else engine.tested_version(found)
        self.autotuner_cache: Mapping[str, bytes] = {}
        """Put into the engine's folder before each start, by file name: of a start that is to be repeated."""

    def describe(self) -> list[str]:
        """What will be measured, and with what."""
        untested = " (untested: what we know of it is of another version)" if self._is_version_tested is False else ""
        version = self.engine_version or "(version unknown)"
        meter, rows = rows_to_come(self._meter_info, self.study.plan)
        spans = [self.study.axes.get(f"parallelism.{name}", ()) for name in ("tp", "pp", "cp")]
        more = ", and the others of a configuration that spans several" if {*sum(spans, ())} - {None, 1} else ""
        smoke = ["weights=random: dummy weights, a smoke test; every row is invalid"] * self._is_smoke_test
        engine = f"engine: {self._engine.name} {version}{untested}, weights={self.study.weights}"
        return [engine, *smoke, meter + more, rows]

    def refusal(self, config: EngineConfig) -> str | None:
        """Why the engine cannot be given a config, or one machine has too few GPUs or no weights for it; or None."""
        return (
            refusal(self._engine, config, self.study)
            or why_not_here(config, self.study)
            or self._missing_weights(config)
        )

    def doubts(self, config: EngineConfig) -> Sequence[str]:
        """What the engine's rules only warn of."""
        return self._engine.doubts(config, self.study)

    def _missing_weights(self, config: EngineConfig) -> str | None:
        """Why there are no weights of a config's format, or of its draft model; or None; asked once for each."""
        key = (config.precision.weights, *(value for name, value in config.knobs.items() if "speculative" in name))
        if key not in self._weights_problem:
            try:
                self._engine.places(config, self.study)
                self._weights_problem[key] = None
            except ConfigError as error:
                self._weights_problem[key] = str(error)
        return self._weights_problem[key]

    @contextmanager
    def start(self, config: EngineConfig, trial_id: str, report: Report) -> Iterator[ServedSession]:
        """Start meter and engine, and wait until it generates.

        Raises:
            TrialError: If it does not start.
        """
        study, engine, settings = self.study, self._engine, self.study.engine
        rendered = engine.render(config, study)
        report("preparing weights")
        places = engine.places(config, study)
        runtime = find_runtime(settings)
        caches = engine.kernel_caches({**runtime.environ, **rendered.env})
        planned = Start(
            rendered_hash=rendered.rendered_hash,
            evidence=plan_evidence(study.plan, self._meter_info.evidence),
            argv=rendered.argv,
            engine_version=self.engine_version,
            weights_init=rendered.weights_init,
            kernel_caches=caches,
            is_version_tested=self._is_version_tested,
            is_instrumented=rendered.is_instrumented,
            is_dummy_weights=rendered.is_dummy_weights,
            warnings=rendered.warnings,
        )
        if (reason := engine.preflight(rendered, study, places)) is not None:
            raise TrialError(TrialStatus.START_FAILED, f"preflight, before any start: {reason}", start=planned)
        engine_dir = self._engine_dir(rendered, config, places, runtime)
        folder = engine_dir / "starts" / trial_id
        if keeps_cache(rendered):
            planned = replace(planned, autotuner_cache="warm" if cache_files(engine_dir) else "cold")
        with self._open_meter(config.parallelism.num_gpus) as meter:
            report("starting engine")
            began_ns = time.monotonic_ns()
            with EngineProcess(
                rendered,
                folder,
                settings,
                places,
                meter.info.pin,
                engine_dir=engine_dir,
                gpus=meter.info.devices if study.hardware.kind == "gpu" else (),
                caches=caches,
            ) as process:
                try:
                    _wait_ready(engine, process, study)
                except TrialError as error:
                    error.start = planned
                    _write_start(folder, start_facts(study, trial_id, meter, planned, str(error)), ())
                    raise
                ready_ns = time.monotonic_ns()
                energy = common_window(meter.reading(), began_ns, ready_ns)
                log_lines = process.log_lines()
                start = replace(
                    planned,
                    effective=engine.effective_config(log_lines),
                    start_s=(ready_ns - began_ns) * 1e-9,
                    start_energy_j=energy.energy_j if energy else None,
                    num_constant_weights=engine.constant_weights(log_lines),
                )
                session = ServedSession(study, self.store, config, trial_id, engine, process, meter, start)
                try:
                    yield session
                finally:
                    with writable(folder):
                        kept = {"autotuner_cache_sha256": keep_cache(engine_dir, folder)}
                    _write_start(folder, start_facts(study, trial_id, meter, start) | kept, session.row_ids)
                report("stopping engine")

    def _engine_dir(
        self, rendered: Rendered, config: EngineConfig, places: Mapping[str, str], runtime: Runtime
    ) -> Path:
        """The folder that all starts of this engine share, its definition in it."""
        study, info, image = self.study, self._meter_info, runtime.image_id()
        meta = definition(study, config, rendered, image, info, places)
        checkpoint = {**places, "checkpoint_hash": meta["model"]["checkpoint_hash"]}
        folder = Path(study.engines_dir) / engine_id(rendered, checkpoint, self.engine_version, image, info.device_name)
        with writable(folder):
            write_definition(
                folder, rendered, meta, values={**OWN_PLACES, "python": runtime.program("python"), **places}
            )
            for name, content in self.autotuner_cache.items():
                (folder / name).write_bytes(content)
        return folder


def _write_start(folder: Path, facts: Mapping[str, object], row_ids: Sequence[str]) -> None:
    with writable(folder):
        write_start(folder, facts, row_ids)


def _wait_ready(engine: Engine, process: EngineProcess, study: Study) -> None:
    """Wait for the first generation.

    Raises:
        TrialError: If the engine dies or takes too long.
    """
    timeout_s = study.engine.ready_timeout_s
    try:
        process.wait_ready(engine.ready_request(study), timeout_s)
    except EngineError as error:
        lines = process.log_lines()
        advice = engine.advice(lines)
        message = f"{error}: {advice}" if advice else str(error)
        raise TrialError(engine.failure(lines), message, error.log_tail) from error
    except TimeoutError as error:
        message = f"no generation within engine.ready_timeout_s={timeout_s:g}: {error}"
        raise TrialError(TrialStatus.START_TIMEOUT, message, process.log_tail()) from error
