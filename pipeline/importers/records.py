"""A report of trtllm-bench as the records of a study of its own: one trial, one row.

What the report does not say the user does, as overrides of the same keys that a sweep takes.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline import __version__
from pipeline.compose import conf_dir, groups
from pipeline.config import load_study
from pipeline.engine_config import EngineConfig, Value, content_hash, split_key
from pipeline.errors import ConfigError
from pipeline.importers.trtllm_bench import TOOL, BenchReport
from pipeline.record import Row, Trial
from pipeline.resume import study_json
from pipeline.rig.rows import identity
from pipeline.score import score
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus, weaker
from pipeline.workload import OperatingPoint

IMPORTED = "imported"
"""`origin` of the rows, and who proposed their trials."""

DEFAULT_STUDY = f"imported-{TOOL}"

MAY_BE_GIVEN = ("model", "hardware", "precision", "parallelism", "batching", "engine.knobs", "weights", "slo", "study",
                "results_dir", "concurrency")  # fmt: skip
"""Keys, or beginnings of them; the rest is the report's."""

WEIGHTS = {
    "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "FP8_BLOCK_SCALES": "fp8", "NVFP4": "fp4", "NVFP4_AWQ": "fp4",
    "W4A8_NVFP4_FP8": "fp4", "W4A8_MXFP4_FP8": "fp4", "W4A8_MXFP4_MXFP8": "fp4", "W4A16_MXFP4": "fp4",
}  # fmt: skip
"""TensorRT-LLM's name of a format (tensorrt_llm/quantization/mode.py) -> that of the weights in conf/precision."""

MAX_DISAGREEMENT = 0.02
"""Of tokens / joules and the report's own quotient, which differ by its rounding only."""


def compose_study(report: BenchReport, overrides: Sequence[str]) -> tuple[Study, EngineConfig]:
    """The study and the configuration that a report is about.

    Raises:
        ConfigError: If report and overrides together do not say, contradict each other, or say what is not allowed.
    """
    given = {text.lstrip("+~").split("=", 1)[0] for text in overrides}
    for key in sorted(given):
        if key not in MAY_BE_GIVEN and not key.startswith(tuple(f"{name}." for name in MAY_BE_GIVEN)):
            raise ConfigError(f"{key}=: the report says it, or it has no bearing; allowed: {', '.join(MAY_BE_GIVEN)}")
    model, weights = _checkpoint(report.model)
    if model is None and "model" not in given:
        known = ", ".join(groups()["model"])
        raise ConfigError(
            f"{report.path}: engine.model={report.model!r} is none of conf/model; name it, model=: {known}"
        )
    choices = {"model": model, "engine": "trtllm", "plan": "quick", "workload": "chat_1k_1k", "study": DEFAULT_STUDY}
    choices |= {"weights": "checkpoint", "hardware": None if "hardware" in given else _hardware(report)}
    words = [f"{key}={value}" for key, value in choices.items() if key not in given]
    study = load_study([*words, *(text for text in overrides if not text.startswith("concurrency="))])
    nvml_name = study.hardware.nvml_name
    if nvml_name and report.gpu_name and nvml_name not in report.gpu_name:
        raise ConfigError(
            f"hardware={study.hardware.name}: {report.path} is of {report.gpu_name!r}; leave hardware= out"
        )
    isl_tokens, osl_tokens = max(1, round(report.isl_mean_tokens)), max(2, round(report.osl_mean_tokens))
    workload = dataclasses.replace(
        study.workload, name=f"{TOOL}_{isl_tokens}_{osl_tokens}", source=f"{report.path.name}, sha256 {report.sha256}",
        isl_tokens=isl_tokens, osl_tokens=osl_tokens, length_ratio_min=1.0,
    )  # fmt: skip
    # The plan's name is none of ours, so that no sweep of that study's name goes on here (resume.py).
    study = dataclasses.replace(study, workload=workload, plan=dataclasses.replace(study.plan, name=TOOL))
    return study, _config(report, study, given, weights)


def _checkpoint(name: str) -> tuple[str | None, str | None]:
    """The conf/model choice that has a checkpoint of this name, and which of its weights that is."""
    for choice, conf in _choices("model").items():
        for weights, checkpoint in conf["checkpoints"].items():
            if checkpoint["repo"] == name:
                return choice, weights
    return None, None


def _choices(group: str) -> dict[str, dict[str, Any]]:
    """What the files of a conf group say."""
    folder = conf_dir() / group
    return {choice: yaml.safe_load((folder / f"{choice}.yaml").read_text("utf-8")) for choice in groups()[group]}


def _hardware(report: BenchReport) -> str:
    """The conf/hardware choice whose nvml_name is in the name of the report's GPU; the longest such name wins.

    Raises:
        ConfigError: If there is none.
    """
    names = {choice: conf.get("nvml_name") for choice, conf in _choices("hardware").items()}
    fitting = {choice: name for choice, name in names.items() if name and report.gpu_name and name in report.gpu_name}
    if not fitting:
        said = (
            f"machine.name={report.gpu_name!r} is none of conf/hardware" if report.gpu_name else "does not say the GPU"
        )
        raise ConfigError(f"{report.path}: {said}; name it, hardware=: {', '.join(c for c in names if names[c])}")
    return max(fitting, key=lambda choice: len(fitting[choice]))


def _config(report: BenchReport, study: Study, given: Collection[str], weights: str | None) -> EngineConfig:
    """The report's settings, the user's in their place where given.

    Raises:
        ConfigError: If the user gave several values of one, or the report has one that is none.
    """
    named = {key: axis for key, axis in study.axes.items() if key in given}
    several = next((key for key, axis in named.items() if len(axis) > 1), None)
    if several:
        raise ConfigError(f"{several}={list(named[several])}: a report is of one configuration; give one value")
    in_group = {key: axis for key, axis in study.axes.items() if split_key(key)[0] in given and len(axis) == 1}
    values: dict[str, Value | None] = {
        "precision.kv_cache": (report.kv_cache or "auto").lower(),
        "parallelism.tp": report.tp,
        "parallelism.pp": report.pp,
        "parallelism.cp": report.cp,
        "parallelism.ep": report.ep,
        "batching.max_batch_size": report.max_batch_size,
        "batching.max_num_tokens": report.max_num_tokens,
        "batching.kv_cache_fraction": report.kv_cache_fraction,
        "engine.knobs.speculative_config.decoding_type": report.speculation,
    }
    values |= {key: axis[0] for key, axis in (in_group | named).items()}
    if "precision.weights" not in values:
        values["precision.weights"] = _weights(report, weights)
    try:
        return EngineConfig.from_axes("trtllm", values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{report.path}: {key}={first['input']!r}: {first['msg']}; set it with {key}=") from error


def _weights(report: BenchReport, of_checkpoint: str | None) -> str:
    """The weights' format in the words of conf/precision.

    Raises:
        ConfigError: If neither the report nor the checkpoint's name tells.
    """
    said = report.quantization if report.quantization not in {None, "NO_QUANT"} else None
    found = WEIGHTS.get(said) if said else of_checkpoint or ("bf16" if report.dtype == "bfloat16" else None)
    if found is None:
        what = f"engine.quantization={report.quantization}, engine.dtype={report.dtype}"
        raise ConfigError(f"{report.path}: {what}: is none of our formats; name the nearest, precision.weights=")
    return found


def records(
    report: BenchReport, study: Study, config: EngineConfig, number: int, concurrency: int | None
) -> tuple[Trial, Row]:
    """The trial and its one row; the same report makes the same ids.

    Args:
        report: What the tool said.
        study: From `compose_study`.
        config: From `compose_study`.
        number: Position of the trial in its study.
        concurrency: Requests that were kept in flight, which the report does not say; None takes their mean.

    Raises:
        ConfigError: If neither is known.
    """
    mean = report.num_in_flight
    if mean is None and concurrency is None:
        raise ConfigError(f"{report.path}: request_info.avg_num_concurrent_requests is not there; say concurrency=N")
    point = OperatingPoint(concurrency=concurrency or max(1, round(mean or 0)))
    who = identity(study, config, point, report.sha256[12:24])
    output_tokens, input_tokens = report.output_tokens, report.input_tokens
    energy_j = report.energy_j if report.energy_j is not None and report.energy_j > 0 else None
    per_joule = output_tokens / energy_j if energy_j else None
    reasons = {
        Reason.NO_TOKENS: output_tokens == 0,
        Reason.NO_ENERGY: energy_j is None,
        Reason.READING_DISAGREEMENT: bool(
            per_joule
            and report.output_tokens_per_joule is not None
            and abs(report.output_tokens_per_joule / per_joule - 1) > MAX_DISAGREEMENT
        ),
        Reason.DUMMY_WEIGHTS: study.weights == "random",
    }
    # The tool reads the GPUs of its own node and scales up to the others (energy_monitor.py).
    is_scaled = config.parallelism.num_gpus > (study.hardware.num_gpus_per_node or study.hardware.num_gpus)
    energy_evidence = Evidence.ESTIMATED if is_scaled else Evidence.MEASURED
    tpot_s = report.latencies_s["tpot_p50_s"]
    row = Row(
        # Its own: with what else the tool set, which the report does not say, it is no case of ours.
        **who | {"case_id": content_hash([TOOL, who["case_id"]])},
        row_id=report.sha256[:12],
        rendered_hash=report.sha256[:16],  # nothing was rendered: the report stands for it
        status=RowStatus.INVALID if any(reasons.values()) else RowStatus.OK,
        reasons=tuple(sorted(reason for reason, holds in reasons.items() if holds)),
        warnings=(Reason.IMPORTED_WINDOW, Reason.INTERVAL_UNKNOWN),
        evidence=weaker(Evidence.MEASURED, energy_evidence),
        throughput_evidence=Evidence.MEASURED,
        energy_evidence=energy_evidence,
        origin=IMPORTED,
        boundary=Boundary.GPU,
        started_utc=report.started.isoformat(timespec="milliseconds"),
        gpu_name=report.gpu_name,
        engine_version=report.version,
        isl_mean_tokens=report.isl_mean_tokens,
        osl_mean_tokens=report.osl_mean_tokens,
        window_s=report.duration_s,
        output_tokens=output_tokens,
        input_tokens=input_tokens,
        num_completed=report.num_requests,
        occupancy=mean / concurrency if mean is not None and concurrency else None,
        gpu_energy_j=energy_j,
        power_w=energy_j / report.duration_s if energy_j else None,
        output_tokens_per_joule=per_joule,
        total_tokens_per_joule=(output_tokens + input_tokens) / energy_j if energy_j else None,
        output_tokens_per_s=output_tokens / report.duration_s,
        output_tokens_per_s_per_user=1 / tpot_s if tpot_s else None,
        **report.latencies_s,  # type: ignore[arg-type]  # all of them are columns of seconds
        slo=study.slo.name,
        weights_init=None if study.weights == "checkpoint" else "TensorRT-LLM's load_format: dummy",
    )
    trial = Trial(
        trial_id=row.trial_id,
        study_id=study.id,
        number=number,
        status=TrialStatus.OK,
        config_hash=row.config_hash,
        config_json=row.config_json,
        proposed_by=IMPORTED,
        engine=row.engine,
        engine_version=row.engine_version,
        evidence=row.evidence,
        num_rows=1,
        score=score([row], study.slo),
        slo=study.slo.name,
        started_utc=row.started_utc,
        total_s=report.duration_s,
        tool_version=__version__,
        study_json=study_json(study),
    )
    return trial, row
