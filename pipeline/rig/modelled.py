"""The rig without hardware: every row is what the roofline predicts. Nothing is started, nothing is measured."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pipeline.engine.catalog import refusal
from pipeline.engine.protocol import Engine
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.record import Row
from pipeline.rig.protocol import Report, Start, TrialError
from pipeline.rig.rows import identity
from pipeline.roofline.calibration import SHIPPED
from pipeline.roofline.predict import Prediction, predict
from pipeline.store import new_id
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint


class ModelledRig:
    """Predicts; satisfies the Rig protocol."""

    def __init__(self, study: Study, engine: Engine) -> None:
        """Remember the study and the engine that is modelled.

        Raises:
            ConfigError: If there is no model of this hardware.
        """
        if study.hardware.kind != "gpu":
            raise ConfigError(
                f"rig=modelled: there is no model of hardware={study.hardware.name}; name a GPU, e.g. hardware=b200"
            )
        self.study = study
        self._engine = engine
        self.engine_version: str | None = None
        self.first_gpu: str | None = None

    def refusal(self, config: EngineConfig) -> str | None:
        """Why the engine could not be given a config, or None."""
        return refusal(self._engine, config, self.study)

    def doubts(self, config: EngineConfig) -> Sequence[str]:
        """What the engine's rules only warn of."""
        return self._engine.doubts(config, self.study)

    def describe(self) -> list[str]:
        """What the rows will be."""
        return [f"rig: modelled by roofline {SHIPPED.id} of {self.study.hardware.name}; nothing is started or measured"]

    @contextmanager
    def start(self, config: EngineConfig, trial_id: str, report: Report) -> Iterator["ModelledSession"]:
        """Check that the config fits at the lightest load.

        Raises:
            TrialError: If the roofline says that it does not.
        """
        report("predicting")
        session = ModelledSession(self.study, config, trial_id)
        session.predict(self.study.workload.ladder[0])
        yield session


class ModelledSession:
    """One config; satisfies the Session protocol."""

    def __init__(self, study: Study, config: EngineConfig, trial_id: str) -> None:
        """Remember what to predict."""
        self._study = study
        self._config = config
        self._trial_id = trial_id
        self.start = Start(rendered_hash=config.config_hash, evidence=Evidence.MODELLED)

    def predict(self, point: OperatingPoint) -> Prediction:
        """The roofline's answer.

        Raises:
            TrialError: If the config does not fit.
        """
        study = self._study
        found = predict(study.model, study.hardware, study.workload, self._config, point)
        if isinstance(found, str):
            raise TrialError(TrialStatus.OUT_OF_MEMORY, found)
        return found

    def measure(self, point: OperatingPoint, report: Report) -> Generator[Row, None, None]:
        """Predict one operating point."""
        report(f"predicting, {point}")
        found = self.predict(point)
        yield Row(
            **identity(self._study, self._config, point, self._trial_id),
            row_id=new_id(),
            rendered_hash=self.start.rendered_hash,
            status=RowStatus.OK,
            evidence=Evidence.MODELLED,
            throughput_evidence=Evidence.MODELLED,
            energy_evidence=Evidence.MODELLED,
            boundary=Boundary.GPU,
            started_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
            power_w=found.power_w,
            output_tokens_per_joule=found.output_tokens_per_joule,
            total_tokens_per_joule=found.total_tokens_per_s / found.power_w,
            output_tokens_per_s=found.output_tokens_per_s,
            output_tokens_per_s_per_user=1 / found.tpot_s,
            # The model knows no spread: every percentile is its one value.
            ttft_p50_s=found.ttft_s,
            tpot_p50_s=found.tpot_s,
            ttft_p99_s=found.ttft_s,
            tpot_p99_s=found.tpot_s,
            calibration_id=SHIPPED.id,
        )
