"""The rig with a real server: meter and engine are started here; session.py measures on what runs."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.engine.catalog import refusal
from pipeline.engine.process import EngineProcess
from pipeline.engine.protocol import Engine
from pipeline.errors import ConfigError, EngineError
from pipeline.meter.energy import common_window
from pipeline.meter.protocol import Meter, MeterInfo
from pipeline.rig.protocol import Report, Start, TrialError
from pipeline.rig.session import ServedSession
from pipeline.store import Store
from pipeline.study import EngineConfig, Plan, Study
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
        self.study = study
        self.store = store
        self.engine_version = availability.version
        self._engine = engine
        self._open_meter = open_meter
        self._meter_info = open_meter(1).info
        self.first_gpu = self._meter_info.devices[0] if study.hardware.kind == "gpu" else None
        self._weights_problem: dict[str, str | None] = {}

    def describe(self) -> list[str]:
        """What will be measured, and with what."""
        return [
            f"engine: {self._engine.name} {self.engine_version or '(version unknown)'}, weights={self.study.weights}",
            *rows_to_come(self._meter_info, self.study.plan),
        ]

    def refusal(self, config: EngineConfig) -> str | None:
        """Why the engine cannot be given a config, or its weights are not here; or None."""
        return refusal(self._engine, config, self.study) or self._missing_weights(config)

    def _missing_weights(self, config: EngineConfig) -> str | None:
        """Why there are no weights of a config's format, or None; asked once per format."""
        weights = config.precision.weights
        if weights not in self._weights_problem:
            try:
                self._engine.places(config, self.study)
                self._weights_problem[weights] = None
            except ConfigError as error:
                self._weights_problem[weights] = str(error)
        return self._weights_problem[weights]

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
        folder = Path(study.engines_dir) / rendered.rendered_hash / trial_id
        with self._open_meter(config.parallelism.num_gpus) as meter:
            report("starting engine")
            began_ns = time.monotonic_ns()
            with EngineProcess(rendered, folder, settings, places, meter.info.pin) as process:
                _wait_ready(engine, process, study)
                ready_ns = time.monotonic_ns()
                energy = common_window(meter.reading(), began_ns, ready_ns)
                log_lines = process.log_lines()
                start = Start(
                    rendered_hash=rendered.rendered_hash,
                    evidence=plan_evidence(study.plan, meter.info.evidence),
                    argv=rendered.argv,
                    effective=engine.effective_config(log_lines),
                    engine_version=self.engine_version,
                    start_s=(ready_ns - began_ns) * 1e-9,
                    start_energy_j=energy.energy_j if energy else None,
                    weights_init=rendered.weights_init,
                    kernel_caches=engine.kernel_caches(os.environ | rendered.env),
                    num_constant_weights=engine.constant_weights(log_lines),
                )
                yield ServedSession(study, self.store, config, trial_id, engine, process, meter, start)
                report("stopping engine")


def _wait_ready(engine: Engine, process: EngineProcess, study: Study) -> None:
    """Wait for the first generation.

    Raises:
        TrialError: If the engine dies or takes too long.
    """
    timeout_s = study.engine.ready_timeout_s
    try:
        process.wait_ready(engine.ready_request(study), timeout_s)
    except EngineError as error:
        raise TrialError(engine.failure(process.log_lines()), str(error), error.log_tail) from error
    except TimeoutError as error:
        message = f"no generation within engine.ready_timeout_s={timeout_s:g}: {error}"
        raise TrialError(TrialStatus.START_TIMEOUT, message, process.log_tail()) from error
