"""What an engine adapter promises. Every engine is an OpenAI-compatible streaming server in its own process
and its own Python environment; `process.py` starts, watches and stops it, so an adapter only knows names."""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.engine.observed import CounterSample
from pipeline.engine_config import EngineConfig, content_hash
from pipeline.study import Study
from pipeline.vocabulary import Reason, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Everything that defines one engine start, as text with placeholders.

    Attributes:
        files: File name to content, written into the engine folder before the start.
        argv: Command line. `{dir}` stands for the folder of this start, `{engine_dir}` for the one that all starts of
            this engine share, `{host}` and `{port}` for the address.
        env: Environment variables added to ours; the same placeholders.
        weights_init: How random weights are drawn; None for a checkpoint.
        is_dummy_weights: Whether the engine fills its weights as it likes, which says nothing of power.
        is_instrumented: Whether metrics of the engine's own are on that the config does not ask for.
        warnings: What the reader of every row of this engine should know of its config.
    """

    files: dict[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    weights_init: str | None = None
    is_dummy_weights: bool = False
    is_instrumented: bool = False
    warnings: tuple[Reason, ...] = ()

    @property
    def rendered_hash(self) -> str:
        """Hash of files, argv and env; the same wherever and on whichever port the engine is started."""
        return content_hash([self.files, self.argv, self.env])


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether the configured runtime has the engine: its version, or why not and what to do."""

    version: str | None = None
    why_not: str | None = None


class Engine(Protocol):
    """One kind of serving engine. Stateless."""

    name: str
    compile_line: re.Pattern[str] | None
    """Matches a line of its log that tells of a kernel being compiled or tuned; None if its log never does."""

    @property
    def knobs(self) -> AbstractSet[str]:
        """Names allowed under engine.knobs, or at least looked at when rendering."""
        ...

    def availability(self, study: Study) -> Availability:
        """Ask the configured runtime (not our environment) for the engine and its version."""
        ...

    def render(self, config: EngineConfig, study: Study) -> Rendered:
        """Turn a config into files, argv and environment. Pure: same input, same bytes.

        Raises:
            ConfigError: If the config asks for what this engine cannot do, or weights are missing.
        """
        ...

    def places(self, config: EngineConfig, study: Study) -> dict[str, str]:
        """Values of this engine's own placeholders (e.g. "model": the model's path), prepared on disk where needed.

        Raises:
            ConfigError: If weights are missing; the message names the ways out.
            EngineError: If they cannot be prepared.
        """
        ...

    def ready_request(self, study: Study) -> dict[str, object]:
        """A small /v1/completions request body whose answer proves that the engine generates."""
        ...

    def preflight(self, rendered: Rendered, study: Study, places: Mapping[str, str]) -> str | None:
        """Ask the engine's own software whether it takes what was rendered, before a start is paid for.

        Args:
            rendered: What would be started.
            study: Names the runtime.
            places: Values of the placeholders in it.

        Returns:
            What it refuses and why; None if it takes it, or cannot tell without starting.
        """
        ...

    def tested_version(self, version: str) -> bool:
        """Whether what we know of this engine was checked against this version."""
        ...

    def doubts(self, config: EngineConfig, study: Study) -> Sequence[str]:
        """What may be wrong with a config, a line each: it is started all the same."""
        ...

    def failure(self, log_lines: Sequence[str]) -> TrialStatus:
        """Say from its log how an engine that died, died: out_of_memory or start_failed."""
        ...

    def advice(self, log_lines: Sequence[str]) -> str | None:
        """What to do about a failed start, in a line, where its log shows a cause that is known; else None."""
        ...

    def effective_config(self, log_lines: Sequence[str]) -> dict[str, str]:
        """What the engine's log says it resolved; empty when it says nothing."""
        ...

    def kernel_caches(self, environ: Mapping[str, str]) -> tuple[Path, ...]:
        """Folders that it keeps compiled kernels in, existing or not, none inside another.

        Args:
            environ: Its environment: ours and what was rendered.
        """
        ...

    def counters(self, url: str) -> CounterSample | None:
        """Read what it counts itself; None if it does not answer or does not say. Never fails."""
        ...

    def constant_weights(self, log_lines: Sequence[str]) -> int | None:
        """Weight tensors with one value throughout, by its own account; None if it did not look."""
        ...
