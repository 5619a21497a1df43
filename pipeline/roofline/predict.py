"""Throughput, latency and power of one configuration under a closed-loop load, from facts and constants alone."""

from dataclasses import dataclass
from typing import Literal

from pipeline.engine_config import EngineConfig
from pipeline.roofline.calibration import SHIPPED, Calibration
from pipeline.roofline.memory import attention_ranks, engine_defaults, fits, requests_that_fit
from pipeline.roofline.step import step
from pipeline.roofline.work import work
from pipeline.study import Hardware, Model
from pipeline.workload import OperatingPoint, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the roofline expects; modelled, never measured.

    Attributes:
        output_tokens_per_s: Of the whole engine.
        total_tokens_per_s: Prompt tokens included.
        ttft_s: Mean time to first token, waiting for a place in the batch included.
        tpot_s: Mean time per output token after the first.
        power_w: Boards of all reserved devices.
        output_tokens_per_joule: The score.
        running: Requests running at once; the other ones of the load wait.
        bound: What most of an iteration goes to.
    """

    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_s: float
    tpot_s: float
    power_w: float
    output_tokens_per_joule: float
    running: int
    bound: Literal["memory", "compute", "overhead"]


def predict(
    model: Model,
    hardware: Hardware,
    workload: Workload,
    config: EngineConfig,
    point: OperatingPoint,
    calibration: Calibration = SHIPPED,
) -> Prediction | str:
    """Predict one operating point in steady state, or say why the configuration cannot run.

    Raises:
        ConfigError: If something that the model needs is not set or unknown.
    """
    if point.concurrency is None:
        return "open loops are not modelled"
    if reason := fits(model, hardware, config, workload):
        return reason
    defaults, ranks = engine_defaults(config), attention_ranks(config)
    isl, osl = (nominal * (1 + workload.length_ratio_min) / 2 for nominal in (workload.isl_tokens, workload.osl_tokens))
    max_num_tokens = (config.batching.max_num_tokens or defaults.max_num_tokens) * ranks
    places = min((config.batching.max_batch_size or defaults.max_batch_size) * ranks, max_num_tokens)
    running = min(point.concurrency, places, requests_that_fit(model, hardware, config, workload))
    done = step(work(model, hardware, config, running=running, isl_tokens=isl, osl_tokens=osl), calibration)
    time_s, memory_s, compute_s = float(done.time_s), float(done.memory_s), float(done.compute_s)
    tokens_per_s = running / time_s
    power_w = float(done.power_w) * config.parallelism.num_gpus
    times: dict[Literal["memory", "compute", "overhead"], float] = {
        "memory": memory_s,
        "compute": compute_s,
        "overhead": time_s - max(memory_s, compute_s),
    }
    chunks = max(1.0, isl / max(1.0, max_num_tokens - running))
    return Prediction(
        output_tokens_per_s=tokens_per_s,
        total_tokens_per_s=tokens_per_s * (isl + osl) / osl,
        # Waiting for a place, for the running iteration to end, and for the iterations that the prompt takes.
        ttft_s=(point.concurrency - running) * osl / tokens_per_s + time_s * (chunks - 0.5) + float(done.prompt_s),
        tpot_s=time_s,
        power_w=power_w,
        output_tokens_per_joule=tokens_per_s / power_w,
        running=running,
        bound=max(times, key=lambda name: times[name]),
    )
