"""InferenceX (InferenceMAX) points: `agg_*.json`, one point or a list of them.

Keys, from utils/process_result.py and utils/aggregate_power.py at 843c6254: latencies in seconds, `*_intvty` their
inverse in tokens/s per user; `tput_per_gpu` counts input and output tokens over all GPUs, `output_tput_per_gpu` output
tokens over the decode GPUs where there are such. The power block is of GPU boards (nvidia-smi or DCGM at 1 Hz,
integrated over the run, ramp and drain included) and counts only where `power_valid` is 1 and its schema 2 or later:
before that nothing checked it, and joules of several nodes were of one role. Without it, watts are what InferenceX's
dashboard divides by: the provisioned, all-in kW per GPU of conf/hardware, a model of the facility.
"""

import re
from typing import Any

from pipeline.errors import ConfigError
from pipeline.importers.foreign_file import Document, ForeignFile, digest
from pipeline.importers.reported import Read, Reported, agrees
from pipeline.inferencex_point import FRAMEWORKS, LATENCIES, MODELS, POWER_SCHEMA
from pipeline.vocabulary import Boundary

TOOL = "inferencex"

REQUIRED = {"hw", "conc", "framework", "precision"}
"""What every point has; those of fixed lengths have isl, osl and tput_per_gpu too, agentic ones have not."""

ENGINES = {framework: engine for engine, framework in FRAMEWORKS.items()}
WEIGHTS = {"fp4": "fp4", "fp8": "fp8", "bf16": "bf16"}
CHOICES = {prefix: choice for choice, prefix in MODELS.items()}
"""`infmax_model_prefix` -> conf/model."""

ROLES = (
    "prefill_tp", "prefill_pp", "prefill_ep", "prefill_dp_attention", "prefill_num_workers", "num_prefill_gpu",
    "decode_num_workers", "num_decode_gpu",
)  # fmt: skip
"""What tells a disaggregated deployment from another, beside its decode engines."""


def recognises(file: ForeignFile) -> bool:
    """Whether a file has such a point."""
    entries = file.content if isinstance(file.content, list) else [file.content]
    return file.kind == "json" and any(isinstance(each, dict) and each.keys() >= REQUIRED for each in entries)


def read(file: ForeignFile) -> Read:
    """Read a point, or a list of them; an entry that is none is rejected."""
    is_list = isinstance(file.content, list)
    entries = file.content if is_list else [file.content]
    points, rejected = [], []
    for number, content in enumerate(entries):
        place = f"[{number}]" if is_list else ""
        try:
            points.append(_point(file, Document(f"{file.path}{place}", content), f"{file.path.name}{place}"))
        except ConfigError as error:
            rejected.append(str(error))
    return Read(tuple(points), tuple(rejected))


def _point(file: ForeignFile, point: Document, source: str) -> Reported:
    _check(point)
    latencies_s = {column: point.latency_s(key, unit_s=1) for column, key in LATENCIES.items()}
    for column, statistic in (("tpot_p50_s", "median"), ("tpot_p99_s", "p99")):
        tpot_s, per_s = latencies_s[column], point.latency_s(f"{statistic}_intvty", unit_s=1)
        agrees(point.where, f"1 / {statistic}_tpot and {statistic}_intvty", tpot_s and 1 / tpot_s, per_s)
    num_gpus, num_output_gpus = _num_gpus(point)
    output_tokens_per_s = point.positive("output_tput_per_gpu") * num_output_gpus
    input_tokens_per_s = point.positive("tput_per_gpu") * num_gpus - output_tokens_per_s
    _check_throughput(point, output_tokens_per_s, input_tokens_per_s, num_gpus)
    framework, image = point.text("framework") or "", point.text("image") or ""
    engine = _engine(framework)
    version = point.text("engine_version") or _version(framework, image)  # the first in points of our own export
    energy, notes = _energy(point, num_gpus)
    notes = [*notes, "time: the file's", "ITL: theirs is between chunks", "KV cache format and batching: not said"]
    if version is None:
        notes.append(f"engine version: not told by image {image or '(none)'}")
    router = {} if framework in ENGINES else {"engine.knobs.inferencex.framework": framework}
    return Reported(
        tool=TOOL,
        where=point.where,
        source=source,
        digest=digest(TOOL, point.content),
        started=file.modified,
        model=point.text("model") or "",
        model_choice=CHOICES.get(point.text("infmax_model_prefix") or ""),
        weights=WEIGHTS.get(point.text("precision") or "", ""),
        weights_said=f"precision={point.text('precision')}",
        engine=engine,
        engine_version=version,
        is_random_weights=point.text("weights") == "random",
        hardware=point.text("decode_hw") or point.text("hw"),
        num_gpus=num_gpus,
        axes=_axes(point) | router,
        # Before December 2025 a disaggregated point says how many GPUs, and not how its engines are split.
        has_parallelism=not _is_split(point) or bool(point.count("decode_tp") or point.count("prefill_tp")),
        concurrency=point.count("conc"),
        isl_tokens=point.count("isl"),  # None before December 2025: they were in the name of the artifact
        osl_tokens=point.count("osl"),
        output_tokens_per_s=output_tokens_per_s,
        input_tokens_per_s=input_tokens_per_s,
        latencies_s=latencies_s,
        notes=tuple(notes),
        **energy,
    )


def _check(point: Document) -> None:
    """Check that it is a point of fixed lengths.

    Raises:
        ConfigError: If it is not.
    """
    if not isinstance(point.content, dict):
        raise ConfigError(f"{point.where}: is no JSON object")
    if missing := sorted(REQUIRED - point.content.keys()):
        raise ConfigError(f"{point.where}: is no point of InferenceX: it has no {', '.join(missing)}")
    if point.value("isl") is None and point.text("scenario_type"):
        kind = point.text("scenario_type")
        raise ConfigError(f"{point.where}: {kind}: its requests have no nominal lengths, so there is no case to join")
    point.positive_count("conc")
    hw, prefill_hw = point.text("decode_hw"), point.text("prefill_hw")
    if hw != prefill_hw:
        raise ConfigError(f"{point.where}: prefill on {prefill_hw} and decode on {hw}: a row is of one type of GPU")


def _check_throughput(point: Document, output_per_s: float, input_per_s: float, num_gpus: int) -> None:
    """Check that the three rates are of the GPUs that they are taken to be of: each is divided by its own.

    Raises:
        ConfigError: If they cannot be.
    """
    if input_per_s < 0:
        raise ConfigError(
            f"{point.where}: units in doubt: {output_per_s:g} output tokens/s are more than all of tput_per_gpu x "
            f"{num_gpus} GPUs"
        )
    num_input_gpus = point.count("num_prefill_gpu") if _is_split(point) else num_gpus
    if num_input_gpus:
        said = point.latency_s("input_tput_per_gpu", unit_s=num_input_gpus)  # above 0, or None
        agrees(point.where, "tput_per_gpu less output_tput_per_gpu, and input_tput_per_gpu", input_per_s, said)


def _is_split(point: Document) -> bool:
    """Whether rates and degrees are by role: over several nodes; disaggregated ones since 17 November 2025."""
    return bool(point.value("is_multinode") or (point.value("disagg") is True and point.value("num_decode_gpu")))


def _num_gpus(point: Document) -> tuple[int, int]:
    """GPUs of the deployment, and those that output_tput_per_gpu is divided by.

    Raises:
        ConfigError: If a degree of parallelism is missing.
    """
    if _is_split(point):
        prefill, decode = point.count("num_prefill_gpu") or 0, point.count("num_decode_gpu") or 0
        if not prefill + decode:
            raise ConfigError(f"{point.where}: num_prefill_gpu and num_decode_gpu are not there")
        return prefill + decode, decode or prefill
    num_gpus = point.positive_count("tp") * (point.count("pp") or 1) * (point.count("pcp_size") or 1)
    return num_gpus, num_gpus


def _axes(point: Document) -> dict[str, Any]:
    """Its settings of the engine; of a disaggregated deployment those of the decode engines, the rest as knobs."""
    is_split = _is_split(point)
    prefix = ("decode_" if point.count("num_decode_gpu") else "prefill_") if is_split else ""
    dcp_size = point.count(f"{prefix}dcp_size") or 1
    spec = point.text("spec_decoding") or ("mtp" if point.value("mtp") == "on" else None)  # the latter before December
    axes: dict[str, Any] = {
        "parallelism.tp": point.count(f"{prefix}tp"),
        "parallelism.pp": point.count(f"{prefix}pp"),
        "parallelism.cp": point.count(f"{prefix}pcp_size"),
        "parallelism.ep": point.count(f"{prefix}ep"),
        "parallelism.attention_dp": str(point.value(f"{prefix}dp_attention")).lower() == "true" or None,
        "engine.knobs.inferencex.dcp_size": dcp_size if dcp_size > 1 else None,
        "engine.knobs.speculative_config.decoding_type": None if spec in {None, "none"} else spec,
    }
    if is_split:
        axes |= {f"engine.knobs.inferencex.{key}": _scalar(point.value(key)) for key in ROLES}
    return axes


def _scalar(value: Any) -> bool | int | float | str | None:
    return value if isinstance(value, bool | int | float | str) else None


def _engine(framework: str) -> str:
    """The serving engine behind a framework: dynamo-trt is TensorRT-LLM behind Dynamo, sglang-disagg is SGLang."""
    return next(
        (engine for part in framework.split("-") for name, engine in ENGINES.items() if part == name), framework
    )


def _version(framework: str, image: str) -> str | None:
    """The engine's version by its container's tag; that of a router's image is the router's."""
    found = re.search(r":v?(\d+\.\d[^@]*?)(?:-(?:cu|ubuntu)[^@]*)?(?:@|$)", image)
    return found[1] if found and framework in ENGINES else None


def _energy(point: Document, num_gpus: int) -> tuple[dict[str, Any], list[str]]:
    """What its power block says, or the facility; and what could not be used.

    Raises:
        ConfigError: If the block has no watts or joules, or its watts are of other GPUs than the deployment's.
    """
    schema = point.number("power_metric_schema_version") or 0
    if point.value("power_valid") != 1 or schema < POWER_SCHEMA:
        has_block = any(str(key).startswith(("avg_power", "joules_per_", "power_valid")) for key in point.content)
        return {"boundary": Boundary.FACILITY}, ["power block: not validated, left out"] if has_block else []
    power_w, energy_j = point.positive("avg_total_gpu_power_w"), point.positive("total_gpu_energy_j")
    agrees(point.where, f"avg_power_w x {num_gpus} GPUs and avg_total_gpu_power_w",
           (point.number("avg_power_w") or 0) * num_gpus, power_w)  # fmt: skip
    per_output, per_input = point.number("joules_per_output_token"), point.number("joules_per_input_token")
    per_query = point.number("joules_per_successful_query")
    return {
        "boundary": Boundary.GPU,
        "power_w": power_w,
        "gpu_energy_j": energy_j,
        "duration_s": energy_j / power_w,
        "output_tokens": round(energy_j / per_output) if per_output else None,
        "input_tokens": round(energy_j / per_input) if per_input else None,
        "num_completed": round(energy_j / per_query) if per_query else None,
        "output_tokens_per_joule": 1 / per_output if per_output else None,
    }, []
