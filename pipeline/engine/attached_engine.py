"""The adapter of a server that someone else started: the config is what its user declares, and nothing is rendered."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.engine.counters import read_any_counters
from pipeline.engine.observed import CounterSample
from pipeline.engine.protocol import Availability, Rendered
from pipeline.engine_config import EngineConfig
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

WEIGHTS_INIT = "random by the word of whoever runs the server"


class AttachedEngine:
    """Satisfies the Engine protocol."""

    name = "attached"
    knobs = frozenset({"rendered"})
    """The hash of the folder that it was started from: it tells apart what the other axes do not declare."""

    compile_line: re.Pattern[str] | None = None

    def availability(self, study: Study) -> Availability:  # noqa: ARG002  # asked of the server itself
        """There is nothing to install; the server tells its version."""
        return Availability()

    def render(self, config: EngineConfig, study: Study) -> Rendered:  # noqa: ARG002  # nothing follows from it
        """Nothing is started, so any config will do."""
        return Rendered(weights_init=WEIGHTS_INIT if study.weights == "random" else None)

    def places(self, config: EngineConfig, study: Study) -> dict[str, str]:  # noqa: ARG002  # nothing is started
        """Nothing is looked for."""
        return {}

    def ready_request(self, study: Study) -> dict[str, object]:
        """Two tokens after eight: a prefill and a decode step."""
        return {"model": study.model.name, "prompt": list(range(8)), "max_tokens": 2, "ignore_eos": True}

    def preflight(self, rendered: Rendered, study: Study, places: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """Cannot tell without starting."""
        return None

    def tested_version(self, version: str) -> bool:  # noqa: ARG002  # nothing is rendered for it
        """Nothing depends on it."""
        return True

    def doubts(self, config: EngineConfig, study: Study) -> Sequence[str]:  # noqa: ARG002  # no rule that only warns
        """None."""
        return ()

    def failure(self, log_lines: Sequence[str]) -> TrialStatus:  # noqa: ARG002  # there is no log
        """Why it died is not ours to know."""
        return TrialStatus.START_FAILED

    def advice(self, log_lines: Sequence[str]) -> str | None:  # noqa: ARG002  # its messages speak for themselves
        """None."""
        return None

    def effective_config(self, log_lines: Sequence[str]) -> dict[str, str]:  # noqa: ARG002  # there is no log
        """Nothing: its log is not ours."""
        return {}

    def kernel_caches(self, environ: Mapping[str, str]) -> tuple[Path, ...]:  # noqa: ARG002  # its environment is not ours
        """None that we know."""
        return ()

    def counters(self, url: str) -> CounterSample | None:
        """Those of whatever engine it is."""
        return read_any_counters(url)

    def constant_weights(self, log_lines: Sequence[str]) -> int | None:  # noqa: ARG002  # there is no log
        """Unknown."""
        return None
