"""The runtime that a study's settings name."""

from collections.abc import Callable

from pipeline.engine.runtime.docker import DockerRuntime
from pipeline.engine.runtime.enroot import EnrootRuntime
from pipeline.engine.runtime.local import LocalRuntime
from pipeline.engine.runtime.protocol import Runtime
from pipeline.study import EngineSettings

RUNTIMES: dict[str, Callable[[EngineSettings], Runtime]] = {
    "local": LocalRuntime,
    "docker": DockerRuntime,
    "enroot": EnrootRuntime,
}


def find_runtime(settings: EngineSettings) -> Runtime:
    """The runtime of `engine.runtime`; nothing is run yet.

    Raises:
        ConfigError: If `engine.image` is not what this runtime takes.
    """
    return RUNTIMES[settings.runtime](settings)
