"""Ask another Python environment for the version of a package, without importing it there."""

import subprocess

from pipeline.engine.process import find_python
from pipeline.engine.protocol import Availability

TIMEOUT_S = 30.0


def installed_version(python: str, distribution: str, remedy: str) -> Availability:
    """The version of a distribution that an interpreter would import.

    Args:
        python: Interpreter, by path or by name.
        distribution: Name of the distribution.
        remedy: What the user can do where it is missing.
    """
    script = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    command = [find_python(python), "-c", script]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except OSError as error:
        return Availability(why_not=f"engine.python={python} cannot be run ({error.strerror}); {remedy}")
    except subprocess.TimeoutExpired:
        return Availability(why_not=f"engine.python={python} gave no answer within {TIMEOUT_S:g} s; {remedy}")
    if answer.returncode == 0:
        return Availability(version=answer.stdout.strip())
    if "PackageNotFoundError" in answer.stderr:
        return Availability(why_not=f"engine.python={python} has no {distribution}; {remedy}")
    last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
    return Availability(why_not=f"engine.python={python} failed: {last}; {remedy}")
