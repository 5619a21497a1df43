"""A trial to be killed or interrupted: `python -m tests.engine.stand_in_trial RUN_DIR PROCESSES [RUNTIME IMAGE]`."""

import os
import sys
import time
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.engine.process import EngineProcess
from pipeline.study import EngineSettings
from tests.engine.running import MARK, PLAIN_REQUEST, READY_S, rendered_stand_in


def main() -> None:
    run_dir, processes, *rest = sys.argv[1:]
    where = dict(zip(("runtime", "image"), rest, strict=False))
    given = {"name": "openvino", "python": sys.executable, "ready_timeout_s": READY_S, **where}
    settings = TypeAdapter(EngineSettings).validate_python(given)
    rendered = rendered_stand_in("--processes", processes, env={MARK: os.environ[MARK]})
    with EngineProcess(rendered, Path(run_dir), settings, {}, {}) as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
        print("ready", flush=True)
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            answer(engine)


def answer(engine: EngineProcess) -> None:
    """Show that the engine outlived the signal."""
    time.sleep(0.3)  # a signal that reached the engine would have ended it by now
    engine.check_alive()
    engine.wait_ready(PLAIN_REQUEST, READY_S)
    print("engine still answers", flush=True)


if __name__ == "__main__":
    main()
