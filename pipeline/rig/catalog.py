"""Opens the rig that a study asks for."""

from pathlib import Path

from pipeline.engine.catalog import find_engine
from pipeline.meter.catalog import open_meter
from pipeline.rig.modelled import ModelledRig
from pipeline.rig.protocol import Rig
from pipeline.rig.served import ServedRig
from pipeline.store import Store
from pipeline.study import Study


def open_rig(study: Study) -> Rig:
    """The study's rig.

    Raises:
        ConfigError: If the machine is not the study's, or a knob is unknown.
        EngineError: If the engine's runtime does not have it.
        MeterError: If the meter cannot be read.
    """
    engine = find_engine(study)
    if study.rig == "modelled":
        return ModelledRig(study, engine)
    return ServedRig(study, engine, lambda num_gpus: open_meter(study, num_gpus), Store(Path(study.results_dir)))
