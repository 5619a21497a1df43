"""Ask the engine's own environment for the version of a package, without importing it here."""

from pipeline.engine.protocol import Availability
from pipeline.engine.runtime.ask import ask
from pipeline.errors import EngineError
from pipeline.study import EngineSettings

LOCAL_TIMEOUT_S = 30.0

CONTAINER_TIMEOUT_S = 180.0
"""The first start of an image reads it from a cold disk, and its entry point looks at the machine."""


def installed_version(settings: EngineSettings, distribution: str, remedy: str) -> Availability:
    """The version of a distribution that the engine's Python would import.

    Args:
        settings: Name the runtime.
        distribution: Name of the distribution.
        remedy: What the user can do where it is missing.

    Raises:
        ConfigError: If `engine.image` is not what the runtime takes.
    """
    script = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    timeout_s = LOCAL_TIMEOUT_S if settings.runtime == "local" else CONTAINER_TIMEOUT_S
    try:
        answer = ask(settings, ("python", "-c", script), timeout_s=timeout_s)
    except EngineError as error:
        return Availability(why_not=str(error))
    if answer.returncode == 0:
        return Availability(version=answer.stdout.strip())
    where = _where(settings)
    if "PackageNotFoundError" in answer.stderr:
        return Availability(why_not=f"{where} has no {distribution}; {remedy}")
    last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
    return Availability(why_not=f"{where} failed: {last}; {remedy}")


def _where(settings: EngineSettings) -> str:
    """The settings that say where the engine's Python is."""
    image = "" if settings.image is None else f"engine.image={settings.image} with "
    return f"{image}engine.python={settings.python}"
