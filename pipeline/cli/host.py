"""What the user left open, decided by the model and by this host, and said aloud.

tiny-llama needs nothing. For the others: the GPU that is here names the hardware, the first of the model's engines
that its runtime has is used, and without a GPU the modelled rig answers for b200.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from pipeline.compose import compose_conf, groups
from pipeline.config import load_study
from pipeline.engine.catalog import ENGINES
from pipeline.errors import ConfigError, EngineError
from pipeline.meter.visible_gpus import Gpu, visible_gpus
from pipeline.rules import why_too_few
from pipeline.study import Study

MODELLED_HARDWARE = "b200"
MACHINE_GPUS = 8
"""Devices of the largest machine; hardware with more is a rack in one link domain."""

GPU_CHOICES = {
    "precision": "auto",
    "parallelism": "auto",
    "batching": "auto",
    "workload": "chat_1k_1k",
    "plan": "quick",
}
"""Choices for a model that runs on GPUs, where the user named none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study for this host, the overrides that compose it, and what was decided on the way, a line each."""

    study: Study
    overrides: tuple[str, ...]
    notes: tuple[str, ...] = ()


def prepare(overrides: Sequence[str]) -> Prepared:
    """Complete the user's overrides for this host and load the study.

    Raises:
        ConfigError: If they are wrong or do not fit this host, or ask for what is rendered only.
        EngineError: If there is a GPU and none of the model's engines.
    """
    prepared = _prepare(overrides)
    if prepared.study.disaggregation is not None:
        raise ConfigError(
            "disaggregation=split: is rendered only: tpw render writes its folders, serve.sh in one starts all of its "
            "servers, and tpw measure url=http://HOST:PORT gpus=... measures them; leave it out here"
        )
    return prepared


def _prepare(overrides: Sequence[str]) -> Prepared:
    given = {text.lstrip("+~").split("=", 1)[0]: text.partition("=")[2] for text in overrides}
    conf = compose_conf([text for text in overrides if text.startswith(("model=", "hardware=", "rig="))])
    engines: list[str] = conf["model"]["engines"]
    if "openvino" in engines:
        return Prepared(study=load_study(overrides), overrides=tuple(overrides))
    choices = gpu_choices(given)
    gpus = visible_gpus() if given.get("rig") != "modelled" else ()
    if not gpus:
        return _modelled(overrides, given, choices, engines)
    return _served(overrides, given, choices, engines, gpus)


def gpu_choices(given: Mapping[str, str]) -> dict[str, str]:
    """What is taken for the groups that the user left open, on GPUs; keyed like `given`."""
    defaults = GPU_CHOICES | ({"parallelism": "full"} if given.get("space") == "full" else {})
    return {group: choice for group, choice in defaults.items() if group not in given}


def with_default_knobs(prepared: Prepared) -> Prepared:
    """The study with the engine's default for every knob that the user did not name: one config, not a space."""
    named = {text.lstrip("+~").split("=", 1)[0] for text in prepared.overrides}
    axes = {
        key: (None,) if key.startswith("engine.knobs.") and values[0] is None and not _is_named(key, named) else values
        for key, values in prepared.study.axes.items()
    }
    left = [key.removeprefix("engine.knobs.") for key in axes if axes[key] != prepared.study.axes[key]]
    notes = (*prepared.notes, *([f"left to the engine: {', '.join(left)}"] if left else []))
    return replace(prepared, study=replace(prepared.study, axes=axes), notes=notes)


def as_modelled(prepared: Prepared) -> Prepared:
    """The study without what the model knows nothing of, which would make equal rows: knobs, how prompts are cut."""
    plain = with_default_knobs(prepared)
    key = "batching.chunked_prefill"
    axes = plain.study.axes | {key: plain.study.axes.get(key, (None,))[:1]}
    return replace(plain, study=replace(plain.study, axes=axes))


def _is_named(key: str, named: Set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in named if name.startswith("engine.knobs"))


def _modelled(overrides: Sequence[str], given: dict[str, str], choices: dict[str, str], engines: list[str]) -> Prepared:
    """The model answers; nothing is measured.

    Raises:
        ConfigError: If a served rig was asked for.
    """
    if given.get("rig") == "served":
        raise ConfigError(
            "rig=served: no NVIDIA GPU is visible here; run on a GPU host, or leave rig out for the model"
        )
    choices |= {} if "hardware" in given else {"hardware": MODELLED_HARDWARE}
    choices |= {} if "engine" in given else {"engine": engines[0]}
    hardware = compose_conf([f"hardware={given.get('hardware', MODELLED_HARDWARE)}"])["hardware"]
    if choices.get("parallelism") == "auto" and hardware["num_gpus"] > MACHINE_GPUS:
        choices["parallelism"] = "rack"
    others = [text for text in overrides if not text.startswith("rig=")]
    completed = (*_texts(choices | {"rig": "modelled"}), *others)
    study = load_study(completed)
    return Prepared(
        study=study,
        overrides=completed,
        notes=(
            f"NOTHING IS MEASURED: no NVIDIA GPU in use; every row is modelled for hardware={study.hardware.name}",
            f"to measure: on a host with that GPU, make sweep MODEL={study.model.name} "
            "ARGS='engine.python=/path/to/python/of/TensorRT-LLM-or-vLLM'",
        ),
    )


def _served(
    overrides: Sequence[str], given: dict[str, str], choices: dict[str, str], engines: list[str], gpus: Sequence[Gpu]
) -> Prepared:
    notes = [f"found {len(gpus)} x {gpus[0].name}"]
    if "hardware" not in given:
        choices["hardware"] = hardware_of(gpus[0].name)
        notes.append(f"hardware={choices['hardware']}")
    if "engine" not in given:
        choices["engine"], why_not = _first_available(overrides, choices, engines)
        notes += [*why_not, f"engine={choices['engine']}"]
    if "hardware.num_gpus" not in given:
        choices["hardware.num_gpus"] = str(len(gpus))
    completed = (*_texts(choices), *overrides)
    study = load_study(completed)
    if (too_few := why_too_few(study, len(gpus))) is not None:
        raise ConfigError(too_few)
    return Prepared(study=study, overrides=completed, notes=tuple(notes))


def _first_available(overrides: Sequence[str], choices: dict[str, str], engines: list[str]) -> tuple[str, list[str]]:
    """The first of these engines that its runtime has, and why not the ones before it.

    Raises:
        EngineError: If there is none.
    """
    why_not: list[str] = []
    for name in engines:
        # Without the knobs, which are those of one engine and would be unknown to the other.
        plain = [text for text in overrides if not text.lstrip("+~").startswith("engine.knobs.")]
        study = load_study([*_texts(choices | {"engine": name}), *plain])
        found = ENGINES[name].availability(study)
        if found.why_not is None:
            return name, why_not
        why_not.append(f"engine={name} is not to be had: {found.why_not}")
    raise EngineError("; ".join(why_not))


def hardware_of(gpu_name: str) -> str:
    """The conf/hardware choice whose nvml_name is in the device's name; the longest such name wins.

    Raises:
        ConfigError: If there is none.
    """
    names = {
        choice: compose_conf([f"hardware={choice}"])["hardware"].get("nvml_name") for choice in groups()["hardware"]
    }
    fitting = {choice: name for choice, name in names.items() if name and name in gpu_name}
    if not fitting:
        raise ConfigError(
            f"hardware: this host's {gpu_name!r} is none of {', '.join(n for n in names.values() if n)}; "
            "name the nearest with hardware=NAME hardware.nvml_name='...' and check its limits in conf/hardware"
        )
    return max(fitting, key=lambda choice: len(fitting[choice]))


def _texts(choices: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in choices.items()]
