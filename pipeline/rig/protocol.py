"""What a trial measures with. Rig hides the two ways to get rows: served (engine, load, meter), modelled (roofline)."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.engine_config import EngineConfig, content_hash
from pipeline.errors import PipelineError
from pipeline.record import Row
from pipeline.study import Study
from pipeline.vocabulary import Evidence, Reason, TrialStatus
from pipeline.workload import OperatingPoint

Report = Callable[[str], None]
"""Told each phase in a few words, for the display."""


class TrialError(PipelineError):
    """A config could not be started or measured: a result about that config, not a crash.

    Attributes:
        status: How the trial ends.
        log_tail: The engine's last log lines.
        start: What was to be started, if that is known.
    """

    def __init__(
        self, status: TrialStatus, message: str, log_tail: tuple[str, ...] = (), start: "Start | None" = None
    ) -> None:
        """Keep status, message, log and start."""
        super().__init__(message)
        self.status = status
        self.log_tail = log_tail
        self.start = start


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is known of one engine start; None where it does not apply or was not seen.

    Attributes:
        start_s: Process start to first generated token.
        start_energy_j: Energy within the boundary over that time.
        rendered_hash: Hash of files, argv and env.
        argv: Command line, placeholders unfilled.
        effective: What the engine reports it resolved.
        engine_version: As the engine's runtime reports it.
        evidence: Evidence of the rows to come.
        served_model: Name that the server gives the model; None for the model's own.
        weights_init: How random weights were drawn; None for a checkpoint.
        kernel_caches: Folders in which the engine keeps compiled kernels.
        num_constant_weights: Weight tensors that hold a single value, by the engine's account; None if it has none.
        is_version_tested: Whether what we know of the engine was checked against its version; None if it has none.
        is_instrumented: Whether it was started with metrics of its own that are not part of the config.
        is_dummy_weights: Whether the engine fills its weights as it likes.
        warnings: What the reader of every row of this start should know of its config.
        autotuner_cache: warm if the engine found the choices of an earlier start, cold if it found none.
    """

    rendered_hash: str
    evidence: Evidence
    argv: tuple[str, ...] = ()
    effective: dict[str, str] = field(default_factory=dict)
    engine_version: str | None = None
    start_s: float | None = None
    start_energy_j: float | None = None
    served_model: str | None = None
    weights_init: str | None = None
    kernel_caches: tuple[Path, ...] = ()
    num_constant_weights: int | None = None
    is_version_tested: bool | None = None
    is_instrumented: bool = False
    is_dummy_weights: bool = False
    warnings: tuple[Reason, ...] = ()
    autotuner_cache: Literal["cold", "warm"] | None = None

    @property
    def effective_hash(self) -> str | None:
        """Hash of what the engine resolved, without what it measured on the way (`measured.*` differs by start)."""
        resolved = {name: value for name, value in self.effective.items() if not name.startswith("measured.")}
        return content_hash(resolved) if resolved else None

    def columns(self) -> dict[str, Any]:
        """What every row of this start says of it."""
        return {
            "rendered_hash": self.rendered_hash,
            "effective_hash": self.effective_hash,
            "engine_version": self.engine_version,
            "weights_init": self.weights_init,
            "autotuner_cache": self.autotuner_cache,
        }

    def doubts(self) -> dict[str, Any]:
        """What speaks against every row of this start, as `trace.Context` calls it."""
        return {
            "num_constant_weights": self.num_constant_weights,
            "is_engine_untested": self.is_version_tested is False,
            "is_instrumented": self.is_instrumented,
            "is_dummy_weights": self.is_dummy_weights,
            "start_warnings": self.warnings,
        }


class Session(Protocol):
    """A config that is up and can be put under load."""

    start: Start

    def measure(self, point: OperatingPoint, report: Report) -> Generator[Row, None, None]:
        """Measure one operating point, a row per window as it closes; the row's evidence is already stored.

        The load runs until the iterator is exhausted or closed.

        Raises:
            TrialError: If the engine dies, hangs, or fails every request.
        """
        ...


class Rig(Protocol):
    """Starts configs. `describe` is for the user: what will be measured, how, and what will not."""

    study: Study
    """As given, with what the engine's runtime reported filled in."""

    engine_version: str | None
    """What the rows to come are measured with; None where nothing is."""

    first_gpu: str | None
    """UUID of the first GPU of every deployment; None without GPUs."""

    def describe(self) -> list[str]:
        """A few lines: engine and version, meter with its parameters, boundary, evidence."""
        ...

    def refusal(self, config: EngineConfig) -> str | None:
        """Why the study's engine cannot be given a config, or None."""
        ...

    def doubts(self, config: EngineConfig) -> Sequence[str]:
        """What may be wrong with a config that is started all the same, a line each."""
        ...

    def start(self, config: EngineConfig, trial_id: str, report: Report) -> AbstractContextManager[Session]:
        """Start a config; leaving the context stops it entirely.

        Raises:
            TrialError: On entering, if it does not start.
        """
        ...
