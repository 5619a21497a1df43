"""A trial to be killed or interrupted: `python -m tests.engine.stand_in_trial RUN_DIR PROCESSES`."""

import sys
import time
from pathlib import Path

from pipeline.engine.process import EngineProcess
from tests.engine.running import PLAIN_REQUEST, READY_S, stand_in


def main() -> None:
    with stand_in(Path(sys.argv[1]), "--processes", sys.argv[2]) as engine:
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
