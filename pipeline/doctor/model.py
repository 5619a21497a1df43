"""The model: its weights and tokenizer, whether they fit, and whether the engine's own software takes a config."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, findings, not_applicable, ok, problem, refused, warning
from pipeline.doctor.gpus import Gpus
from pipeline.doctor.machine import free_bytes
from pipeline.engine.catalog import ENGINES
from pipeline.engine.model_dir import checkpoint_dir, checkpoint_for, hub_cache
from pipeline.engine.trtllm.preflight import Preflight, ask_llm_args
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.meter.catalog import MAX_USED_BYTES
from pipeline.roofline.memory import fits
from pipeline.rules import first_broken
from pipeline.study import Study


def model_findings(study: Study, gpus: Gpus, *, has_runtime: bool) -> Iterator[Finding]:
    """Everything about the model; only where weights are there and fit is the engine's own software asked."""
    yield from findings("weights", lambda: _weights(study))
    yield from findings("memory", lambda: _memory(study, gpus))
    if has_runtime:
        yield from findings("config", lambda: _config(study))


def _weights(study: Study) -> Iterator[Finding]:
    """One finding per format of the study."""
    if study.engine.name in {"openvino", "attached"}:
        yield not_applicable("weights", f"engine={study.engine.name} brings its own")
        return
    if study.weights != "checkpoint":
        yield not_applicable("weights", f"weights={study.weights}: no checkpoint is read")
        return
    formats = [str(weights) for weights in study.axes["precision.weights"] if weights in study.model.checkpoints]
    if not formats:
        asked = ", ".join(map(str, study.axes["precision.weights"]))
        has = ", ".join(study.model.checkpoints)
        yield problem("weights", f"{study.model.name} has no {asked} weights", f"set precision.weights to one of {has}")
        return
    found = [_checkpoint(study, weights) for weights in formats]
    is_any_there = any(finding.state == "ok" for finding in found)
    for finding in found:
        # One format is enough for a study: configs of the others are refused, with this very reason.
        is_less = is_any_there and finding.state == "problem"
        yield warning(finding.subject, finding.text, finding.fix or "") if is_less else finding


def _checkpoint(study: Study, weights: str) -> Finding:
    subject = f"weights {weights}"
    try:
        folder = checkpoint_dir(study, weights, with_tokenizer=True)
    except ConfigError as error:
        found = refused(subject, error)
        needed, free = checkpoint_for(study.model, weights).weight_bytes, free_bytes(hub_cache())
        if study.model.path is None and free < needed:
            room = f"{needed / 1e9:.0f} GB needed, {free / 1e9:.0f} GB free in {hub_cache()}: set HF_HUB_CACHE"
            return dataclasses.replace(found, fix=f"{found.fix}; {room}")
        return found
    return ok(subject, f"complete, with tokenizer: {folder}")


def _layouts(study: Study) -> tuple[list[EngineConfig], str]:
    """Configs of every precision and parallelism of the study that no rule forbids, all else at the defaults.

    Smallest first; and what forbids most of the others that pass most rules.
    """
    axes = {key: values for key, values in study.axes.items() if key.startswith(("precision.", "parallelism."))}
    found, against = [], Counter[tuple[int, str]]()
    for values in itertools.product(*axes.values()):
        config = EngineConfig.from_axes(study.engine.name, dict(zip(axes, values, strict=True)))
        if (broken := first_broken(config, study)) is None:
            found.append(config)
        else:
            against[broken] += 1
    best = max(against, key=lambda broken: (broken[0], against[broken]), default=(0, ""))
    return sorted(found, key=lambda config: config.parallelism.num_gpus), best[1]


def _memory(study: Study, gpus: Gpus) -> Finding:
    """Whether some layout fits what is free now on the fullest of the GPUs.

    Raises:
        ConfigError: If the roofline does not know the hardware or the engine.
    """
    free = [(gpu.gpu.memory_bytes or 0) - (gpu.gpu.used_bytes or 0) for gpu in gpus.states if gpu.gpu.memory_bytes]
    if study.hardware.kind == "cpu" or study.engine.name == "attached":
        return not_applicable("memory", "no GPU memory to fill")
    layouts, reason = _layouts(study)
    if not layouts:
        text, _, fix = reason.partition("; ")
        where = f"{study.hardware.num_gpus} x {study.hardware.name}"
        return problem(
            "memory",
            f"no layout of {study.model.name} is possible on {where}: {text}",
            fix or "change what is said there; tpw plan lists all reasons",
        )
    if not free:
        return not_applicable("memory", f"{len(layouts)} layouts fit {study.hardware.name}; no GPU here could be asked")
    here = dataclasses.replace(study.hardware, memory_bytes=min(free))
    reasons = [fits(study.model, here, config, study.workload) for config in layouts]
    fitting = [config for config, reason in zip(layouts, reasons, strict=True) if reason is None]
    if not fitting:
        return problem(
            "memory", f"with what is free now, {str(reasons[-1]).partition('; ')[0]}", "free the GPUs' memory"
        )
    fewest = fitting[0].parallelism.num_gpus
    text = f"{len(fitting)} of {len(layouts)} layouts fit what is free now, from {fewest} GPU(s) on"
    is_used = any((gpu.gpu.used_bytes or 0) > MAX_USED_BYTES for gpu in gpus.states)
    if len(fitting) < len(layouts) and is_used:
        return warning("memory", text, "free the GPUs' memory")
    return ok("memory", text)


def _config(study: Study) -> Finding:
    """Whether TensorRT-LLM takes the plainest config of the study that has weights: it is imported for real here."""
    if study.engine.name != "trtllm":
        return not_applicable("config", f"engine={study.engine.name} is not asked before a start")
    engine = ENGINES["trtllm"]
    # As a sweep does, keys are those of the version that runs.
    version = study.engine.version or engine.availability(study).version
    study = dataclasses.replace(study, engine=dataclasses.replace(study.engine, version=version))
    refusal: ConfigError | None = None
    for config in _layouts(study)[0]:
        try:
            rendered = engine.render(config, study)
        except ConfigError as error:
            refusal = refusal or error
            continue
        try:
            places = engine.places(config, study)
        except ConfigError:
            continue
        return _taken(ask_llm_args(rendered, study.engine, places))
    if refusal is not None:
        return refused("config", refusal)
    return not_applicable("config", "none has weights here and fits")


def _taken(said: Preflight) -> Finding:
    if said.problem is not None:
        return problem("config", said.problem, "set engine.version to what runs, or leave out the key")
    if said.unknown is not None:
        return warning("config", f"could not be checked: {said.unknown}", "import tensorrt_llm by hand there")
    return ok("config", f"TensorRT-LLM {said.version} takes the study's plainest one")
