"""Opens the rig that a study asks for."""

from functools import partial
from pathlib import Path

from pipeline.engine.catalog import find_engine
from pipeline.meter.catalog import open_meter
from pipeline.rig.attached import AttachedRig
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
    store = Store(Path(study.results_dir))
    if engine.name == "attached":
        return AttachedRig(study, engine, partial(open_meter, study, uuids=study.engine.gpus or None), store)
    return ServedRig(study, engine, partial(open_meter, study), store)
