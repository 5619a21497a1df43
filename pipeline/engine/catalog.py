"""Every engine there is. A new one: one class, one line here, and it passes tests/contract."""

from pipeline.engine.attached_engine import AttachedEngine
from pipeline.engine.openvino import OpenvinoEngine
from pipeline.engine.protocol import Engine
from pipeline.engine.trtllm import TrtllmEngine
from pipeline.engine.vllm import VllmEngine
from pipeline.errors import ConfigError
from pipeline.study import EngineConfig, Study

ENGINES: dict[str, Engine] = {
    "trtllm": TrtllmEngine(),
    "vllm": VllmEngine(),
    "openvino": OpenvinoEngine(),
    "attached": AttachedEngine(),
}


def refusal(engine: Engine, config: EngineConfig, study: Study) -> str | None:
    """Why an engine cannot render a config, or None."""
    try:
        engine.render(config, study)
    except ConfigError as error:
        return str(error)
    return None


def find_engine(study: Study) -> Engine:
    """The study's engine, its knobs checked.

    Raises:
        ConfigError: If an axis names a knob that the engine does not have.
    """
    engine = ENGINES[study.engine.name]
    knobs = [key.removeprefix("engine.knobs.") for key in study.axes if key.startswith("engine.knobs.")]
    knobs += study.baseline.knobs if study.baseline else []
    for knob in knobs:
        if knob not in engine.knobs:
            allowed = ", ".join(sorted(engine.knobs)) or "none"
            raise ConfigError(f"engine.knobs.{knob}: {engine.name} has no such knob; allowed: {allowed}")
    return engine
