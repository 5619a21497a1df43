"""Start the stand-in engine, and find every process that comes from it."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from pipeline.engine.process import EngineProcess
from pipeline.engine.protocol import Rendered
from pipeline.study import EngineSettings

MARK = "STAND_IN_MARK"
"""Environment variable that every process of one test inherits."""

PLAIN_REQUEST = {"model": "m", "prompt": [1], "max_tokens": 1}
READY_S = 30.0


def engine_process(
    rendered: Rendered,
    run_dir: Path,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    places: Mapping[str, str] | None = None,
    devices: Mapping[str, str] | None = None,
) -> EngineProcess:
    """An engine of our own environment that has not started yet."""
    settings = EngineSettings(name="openvino", python=sys.executable, host=host, port=port, ready_timeout_s=READY_S)
    return EngineProcess(rendered, run_dir, settings, places or {}, devices or {})


def rendered_stand_in(*args: str, env: Mapping[str, str] | None = None) -> Rendered:
    """The stand-in engine with the given arguments."""
    script = str(Path(__file__).parent / "stand_in_engine.py")
    return Rendered(argv=("{python}", script, "--port", "{port}", *args), env=dict(env or {}))


def stand_in(run_dir: Path, *args: str, port: int | None = None) -> EngineProcess:
    """The stand-in engine in our own environment."""
    return engine_process(rendered_stand_in(*args), run_dir, port=port)


def alive(mark: str) -> list[psutil.Process]:
    """Every living process that was started with this mark in its environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
