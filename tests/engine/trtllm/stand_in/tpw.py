"""`tpw` on a machine with fake GPUs: `python -m tests.engine.trtllm.stand_in.tpw ARGS`, see gpus.py for what it has.

Everything else is real: only where the driver's library would be imported, the fake is. The meter's process imports it
as well, and takes it for what it is: rows are `simulated`.
"""

from pipeline.engine import process
from pipeline.meter import nvml_library
from tests.engine.trtllm.stand_in.gpus import served_gpus

nvml_library.import_nvml = served_gpus  # type: ignore[assignment]  # a fake, and before anybody takes the real one
process.TERM_GRACE_S = 1.0  # what ignores SIGTERM here does so for ever

from pipeline.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
