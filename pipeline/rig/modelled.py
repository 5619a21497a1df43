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
from pipeline.roofline.calibration import Calibration
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import Prediction, predict_loads
from pipeline.store import new_id
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint


class ModelledRig:
    """Predicts; satisfies the Rig protocol."""

    def __init__(self, study: Study, engine: Engine) -> None:
        """Remember the study and the engine that is modelled.

        Raises:
            ConfigError: If there is no model of this hardware, or the calibration cannot be read.
        """
        if study.hardware.kind != "gpu":
            raise ConfigError(
                f"rig=modelled: there is no model of hardware={study.hardware.name}; name a GPU, e.g. hardware=b200"
            )
        self.study = study
        self._engine = engine
        self._calibration = calibration_of(study)
        self.engine_version: str | None = None
        self.first_gpu: str | None = None

    def refusal(self, config: EngineConfig) -> str | None:
        """Why the engine could not be given a config, or None."""
        return refusal(self._engine, config, self.study)

    def doubts(self, config: EngineConfig) -> Sequence[str]:
        """What the engine's rules only warn of."""
        return self._engine.doubts(config, self.study)

    def describe(self) -> list[str]:
        """What the rows will be, and how far off."""
        calibration, model = self._calibration, self.study.model.name
        what = f"roofline {calibration.id} of {self.study.hardware.name}"
        lines = [f"rig: modelled by {what}; nothing is started or measured"]
        if calibration.provenance is not None:
            errors = calibration.error_of(model)
            known = "error unknown"
            if errors is not None:
                median, p90 = (100 * value for value in (errors.j_per_token.median, errors.j_per_token.p90))
                known = f"J/token off by {median:.0f} % in the median, {p90:.0f} % in one case of ten"
            fitted = "" if model in calibration.provenance.models else "not "
            lines.append(f"model: {fitted}fitted to {model}; {known}, all with {calibration.provenance.engine}")
        return lines

    @contextmanager
    def start(self, config: EngineConfig, trial_id: str, report: Report) -> Iterator["ModelledSession"]:
        """Check that the config fits.

        Raises:
            TrialError: If the roofline says that it does not.
        """
        report("predicting")
        yield ModelledSession(self.study, config, trial_id, self._calibration)


class ModelledSession:
    """One config; satisfies the Session protocol. All loads are predicted at once."""

    def __init__(self, study: Study, config: EngineConfig, trial_id: str, calibration: Calibration) -> None:
        """Predict.

        Raises:
            TrialError: If the config does not fit.
        """
        self.start = Start(rendered_hash=config.config_hash, evidence=Evidence.MODELLED)
        self._study = study
        self._config = config
        self._trial_id = trial_id
        self._calibration = calibration
        self._predictions: dict[OperatingPoint, Prediction] = {}
        self._predict(study.workload.ladder)

    def _predict(self, points: Sequence[OperatingPoint]) -> None:
        study = self._study
        found = predict_loads(study.model, study.hardware, study.workload, self._config, points, self._calibration)
        if isinstance(found, str):
            raise TrialError(TrialStatus.OUT_OF_MEMORY, found)
        self._predictions |= zip(points, found, strict=True)

    def measure(self, point: OperatingPoint, report: Report) -> Generator[Row, None, None]:
        """The prediction as a row; invalid where more is asked for than the engine can do."""
        report(f"predicting, {point}")
        if point not in self._predictions:
            self._predict([point])
        found = self._predictions[point]
        errors = self._calibration.error_of(self._study.model.name)
        yield Row(
            **identity(self._study, self._config, point, self._trial_id),
            row_id=new_id(),
            rendered_hash=self.start.rendered_hash,
            status=RowStatus.OK if found.ttft_s is not None else RowStatus.INVALID,
            reasons=() if found.ttft_s is not None else (Reason.QUEUE_LIMITED,),
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
            calibration_id=self._calibration.id,
            output_tokens_per_s_rel_error=errors.tokens_per_s.p90 if errors else None,
            power_w_rel_error=errors.power_w.p90 if errors else None,
            output_tokens_per_joule_rel_error=errors.j_per_token.p90 if errors else None,
        )
