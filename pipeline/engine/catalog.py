"""Every engine there is. A new one: one class, one line here, and it passes tests/contract."""

from pipeline.compose import nearest
from pipeline.engine.attached_engine import AttachedEngine
from pipeline.engine.openvino import OpenvinoEngine
from pipeline.engine.protocol import Engine
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine.vllm import VllmEngine
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.study import Study

ENGINES: dict[str, Engine] = {
    "trtllm": TrtllmEngine(),
    "vllm": VllmEngine(),
    "openvino": OpenvinoEngine(),
    "attached": AttachedEngine(),
}

KNOBS = "engine.knobs."

MAX_SHOWN = 24
"""Knobs that one message can hold."""


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
        ConfigError: If an axis names a knob that the engine does not have, unless engine.allow_unknown.
    """
    engine, split = ENGINES[study.engine.name], study.disaggregation
    axes = {"engine": study.axes}
    axes |= {"disaggregation.context": split.context, "disaggregation.generation": split.generation} if split else {}
    knobs = [(of, key.removeprefix(KNOBS)) for of, keys in axes.items() for key in keys if key.startswith(KNOBS)]
    knobs += [("engine", knob) for knob in (study.baseline.knobs if study.baseline else ())]
    for of, knob in knobs:
        if knob not in engine.knobs and not study.engine.allow_unknown:
            known = sorted(engine.knobs)
            allowed = f"allowed: {', '.join(known) or 'none'}"
            keys = [name for name in known if name.startswith(f"{knob}.")]
            if keys:
                raise ConfigError(f"{of}.knobs.{knob}: is a group; set its keys: {', '.join(keys[:MAX_SHOWN])}")
            many = f"it has {len(known)}; engine.allow_unknown=true passes on what a newer version has"
            raise ConfigError(
                f"{of}.knobs.{knob}: {engine.name} has no such knob{nearest(knob, known)}; "
                f"{allowed if len(known) <= MAX_SHOWN else many}"
            )
    return engine
