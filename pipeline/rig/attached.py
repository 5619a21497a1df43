"""The rig around a server that someone else runs: nothing is started or stopped; load, meter, verdict are the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.engine.attached import AttachedServer
from pipeline.engine.protocol import Engine
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError, EngineError
from pipeline.rig.protocol import Report, Start, TrialError
from pipeline.rig.served import OpenMeter, rows_to_come
from pipeline.rig.session import ServedSession
from pipeline.store import Store
from pipeline.study import Study
from pipeline.verdict import plan_evidence
from pipeline.vocabulary import TrialStatus


class AttachedRig:
    """Load and meter around `engine.url`; satisfies the Rig protocol."""

    def __init__(self, study: Study, engine: Engine, open_meter: OpenMeter, store: Store) -> None:
        """Find the server, and the meter's GPUs.

        Raises:
            ConfigError: If there is no url, or the GPUs are not the study's.
            EngineError: If nothing answers there.
            MeterError: If there is nothing to meter.
        """
        if study.engine.url is None:
            raise ConfigError("url=: name the server to measure, e.g. tpw measure url=http://127.0.0.1:8000")
        with AttachedServer(study.engine.url) as server:
            self._served_model = server.served_model(study.engine.served_model)
            self.engine_version = server.version()
            self._is_seen = server.pids() is not None
        self._url = study.engine.url
        self.study = study
        self._engine = engine
        self._open_meter = open_meter
        self._store = store
        self._meter_info = open_meter(len(study.engine.gpus)).info
        self.first_gpu = self._meter_info.devices[0] if study.hardware.kind == "gpu" else None

    def describe(self) -> list[str]:
        """What will be measured, and with what."""
        meter, rows = rows_to_come(self._meter_info, self.study.plan)
        return [
            f"server: {self._url}, model {self._served_model}, started by someone else; its configuration is as you "
            "declare it",
            meter,
            *(() if self._is_seen else ("its processes are not seen from here: that it uses these devices, you say",)),
            rows,
        ]

    def refusal(self, config: EngineConfig) -> str | None:  # noqa: ARG002  # whatever runs there, runs
        """Nothing is refused: the config is what the user declares of a server that runs."""
        return None

    def doubts(self, config: EngineConfig) -> Sequence[str]:  # noqa: ARG002  # whatever runs there, runs
        """None."""
        return ()

    @contextmanager
    def start(self, config: EngineConfig, trial_id: str, report: Report) -> Iterator[ServedSession]:
        """Start the meter and make sure that the server generates.

        Raises:
            TrialError: If it does not.
        """
        study = self.study
        with self._open_meter(len(study.engine.gpus)) as meter, AttachedServer(self._url) as server:
            report("asking the server for a token")
            try:
                server.check_generates(self._served_model)
            except EngineError as error:
                raise TrialError(TrialStatus.LOAD_FAILED, str(error), error.log_tail) from error
            start = Start(
                rendered_hash=config.config_hash,
                evidence=plan_evidence(study.plan, meter.info.evidence),
                engine_version=self.engine_version,
                served_model=self._served_model,
            )
            yield ServedSession(study, self._store, config, trial_id, self._engine, server, meter, start)
