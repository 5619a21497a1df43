"""The study and the configuration that a measurement of another tool is of.

What the report does not say the user does, as overrides of the same keys that a sweep takes.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from functools import cache

from pydantic import ValidationError

from pipeline.compose import groups
from pipeline.config import load_study
from pipeline.engine_config import EngineConfig, Value, split_key
from pipeline.errors import ConfigError
from pipeline.importers.model_name import checkpoint, choices
from pipeline.importers.reported import Reported
from pipeline.study import Study

OWN_KEYS = ("concurrency", "isl_tokens", "osl_tokens")
"""Whole numbers about the load, which are no keys of conf/: requests in flight, nominal lengths."""

CHOICES = " (choices of "
"""Begins the lists in a message of what is missing."""

LENGTHS = {"isl_tokens": ("prompts", 1), "osl_tokens": ("answers", 2)}
"""What they are lengths of, and the least that a workload has."""

MAY_BE_GIVEN = ("model", "hardware", "precision", "parallelism", "batching", "engine.knobs", "weights", "slo", "study",
                "results_dir", *OWN_KEYS)  # fmt: skip
"""Keys, or beginnings of them; the rest is the report's. `engine` too, where it does not say."""


def compose_study(reported: Reported, overrides: Sequence[str]) -> tuple[Study, EngineConfig]:
    """The study and the configuration that a measurement is of.

    Raises:
        ConfigError: If report and overrides together do not say, contradict each other, or say what is not allowed.
    """
    given = {text.lstrip("+~").split("=", 1)[0] for text in overrides}
    _check_given(reported, given)
    own = own_values(overrides)
    by_name, of_checkpoint = checkpoint(reported.model)
    chosen, missing = _chosen(reported, given, by_name or reported.model_choice)
    words = [f"{key}={value}" for key, value in chosen.items() if key not in given]
    if missing:
        raise ConfigError(f"{reported.where}: {'; '.join(missing)}")
    study = _loaded((*words, *(text for text in overrides if text.split("=", 1)[0] not in OWN_KEYS)))
    for key, chosen_name, said, by in (
        ("hardware", study.hardware.name, _hardware(reported), reported.gpu_name or reported.hardware),
        ("model", study.model.name, by_name or reported.model_choice, by_name or reported.model_choice),
    ):
        if said is not None and chosen_name != said:
            raise ConfigError(f"{key}={chosen_name}: {reported.where} is of {by!r}; leave {key}= out")
    isl_tokens, osl_tokens = (_length(reported, own, name) for name in LENGTHS)
    rate = reported.request_rate_per_s
    workload = dataclasses.replace(
        study.workload, name=reported.workload or f"{reported.tool}_{isl_tokens}_{osl_tokens}",
        source=f"{reported.source}, sha256 {reported.digest}", length_ratio_min=1.0,
        arrival="closed" if rate is None else "poisson", request_rate_per_s=() if rate is None else (rate,),
        isl_tokens=isl_tokens, osl_tokens=osl_tokens,
    )  # fmt: skip
    # The plan's name is none of ours, so that no sweep of that study's name goes on here (resume.py).
    study = dataclasses.replace(study, workload=workload, plan=dataclasses.replace(study.plan, name=reported.tool))
    return study, _config(reported, study, given, of_checkpoint)


@cache
def _loaded(overrides: tuple[str, ...]) -> Study:
    """A study, composed once: a file may hold hundreds of measurements of few cases."""
    return load_study(overrides)


def own_values(overrides: Sequence[str]) -> dict[str, int]:
    """The numbers that are about the load alone, by key.

    Raises:
        ConfigError: If one is no whole number above 0.
    """
    found = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key in OWN_KEYS:
            if not (value.isdecimal() and int(value) > 0):
                raise ConfigError(f"{text}: write a whole number above 0")
            found[key] = int(value)
    return found


def _check_given(reported: Reported, given: Collection[str]) -> None:
    """Check that the user says nothing that the report says.

    Raises:
        ConfigError: If they do, or a key has no bearing.
    """
    allowed = [*MAY_BE_GIVEN, *(["engine"] if reported.engine is None else [])]
    said = {"concurrency": reported.concurrency or reported.request_rate_per_s, "osl_tokens": reported.osl_tokens}
    for key in sorted(given):
        if (key not in allowed and not key.startswith(tuple(f"{name}." for name in allowed))) or said.get(key):
            raise ConfigError(f"{key}=: the report says it, or it has no bearing; allowed: {', '.join(allowed)}")


def _chosen(reported: Reported, given: Collection[str], model: str | None) -> tuple[dict[str, str], list[str]]:
    """Choices of conf groups by what the report says, and what it does not say, each with its remedy."""
    missing, lists = [], []
    hardware = None if "hardware" in given else _hardware(reported)
    if model is None and "model" not in given:
        said = f"model {reported.model!r} is none of conf/model" if reported.model else "does not say the model"
        missing.append(f"{said}: say model=")
        lists.append(f"model: {', '.join(groups()['model'])}")
    if hardware is None and "hardware" not in given:
        gpu = reported.gpu_name or reported.hardware
        said = f"GPU {gpu!r} is none of conf/hardware" if gpu else "does not say the GPU"
        missing.append(f"{said}: say hardware=")
        gpus = [name for name, conf in choices("hardware").items() if conf["kind"] == "gpu"]
        lists.append(f"hardware: {', '.join(gpus)}")
    if reported.engine is None and "engine" not in given:
        missing.append("does not say what served: say engine=")
        lists.append(f"engine: {', '.join(groups()['engine'])}")
    if not reported.has_parallelism and not {"parallelism", "parallelism.tp"} & set(given):
        missing.append("does not say on how many GPUs: say parallelism.tp=N")
    if missing and lists:
        missing[-1] += f"{CHOICES}{'; '.join(lists)})"
    engine = reported.engine if reported.engine in groups()["engine"] else "attached"
    weights = "random" if reported.is_random_weights else "checkpoint"
    chosen = {"model": model or "", "engine": engine, "plan": "quick", "workload": "chat_1k_1k",
              "study": f"imported-{reported.tool}", "weights": weights, "hardware": hardware or ""}  # fmt: skip
    return chosen, missing


def _hardware(reported: Reported) -> str | None:
    """The choice of conf/hardware: its nvml_name is in the driver's name of the GPU, the longest such name wins.

    Else it is the first word of what the tool calls it: gb200-nv is gb200_nvl72.
    """
    if reported.gpu_name is not None:
        names = {choice: conf.get("nvml_name") for choice, conf in choices("hardware").items()}
        fitting = {choice: name for choice, name in names.items() if name and name in reported.gpu_name}
        return max(fitting, key=lambda choice: len(fitting[choice]), default=None)
    word = (reported.hardware or "").rpartition(":")[2].partition("-")[0].lower()
    return next((choice for choice in choices("hardware") if word and word == choice.partition("_")[0]), None)


def _length(reported: Reported, own: Mapping[str, int], name: str) -> int:
    """A nominal length: the user's, the report's, else the mean.

    Raises:
        ConfigError: If none of them is known.
    """
    what, least = LENGTHS[name]
    length = own.get(name) or getattr(reported, name) or getattr(reported, name.replace("_tokens", "_mean_tokens"))
    if length is None:
        raise ConfigError(f"{reported.where}: does not say how long its {what} are; say {name}=N")
    return max(least, round(length))


def _config(reported: Reported, study: Study, given: Collection[str], of_checkpoint: str | None) -> EngineConfig:
    """The report's settings, the user's in their place where given.

    Raises:
        ConfigError: If the user gave several values of one, or the report has one that is none.
    """
    named = {key: axis for key, axis in study.axes.items() if key in given}
    several = next((key for key, axis in named.items() if len(axis) > 1), None)
    if several:
        raise ConfigError(f"{several}={list(named[several])}: a report is of one configuration; give one value")
    in_group = {key: axis for key, axis in study.axes.items() if split_key(key)[0] in given and len(axis) == 1}
    values: dict[str, Value | None] = dict(reported.axes)
    values |= {key: axis[0] for key, axis in (in_group | named).items()}
    if "precision.weights" not in values:
        values["precision.weights"] = of_checkpoint if reported.weights is None else reported.weights
        if not values["precision.weights"]:
            raise ConfigError(
                f"{reported.where}: {reported.weights_said}: is none of our formats; name the nearest, "
                "precision.weights="
            )
    try:
        return EngineConfig.from_axes(reported.engine or study.engine.name, values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{reported.where}: {key}={first['input']!r}: {first['msg']}; set it with {key}=") from error
