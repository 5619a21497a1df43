"""Throughput, latency and power of one configuration under a closed-loop load, from facts and constants alone."""

from dataclasses import dataclass
from typing import Literal

from pipeline.engine_config import EngineConfig
from pipeline.roofline.memory import attention_ranks, engine_defaults, fits, requests_that_fit
from pipeline.roofline.power import board_power_w
from pipeline.roofline.step import iteration
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
    model: Model, hardware: Hardware, workload: Workload, config: EngineConfig, point: OperatingPoint
) -> Prediction | str:
    """Predict one operating point in steady state, or say why the configuration cannot run.

    A request gives up its place for a new one after OSL iterations, so prompts arrive at running / OSL per
    iteration and are processed along with the running batch, as many tokens at a time as max_num_tokens leaves.

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

    arrivals = running / osl
    chunk = min(isl * max(1.0, arrivals), max(1.0, max_num_tokens - running))
    share = arrivals * isl / chunk
    context = isl + osl / 2
    decode = iteration(model, hardware, config, batch=running, context_tokens=context)
    mixed = iteration(
        model, hardware, config, batch=running, context_tokens=context, prefill_tokens=chunk, isl_tokens=isl
    )
    mean = decode * max(0.0, 1 - share) + mixed * share

    tokens_per_s = running / mean.time_s
    waiting_s = (point.concurrency - running) * osl / tokens_per_s
    prefill_s = max(1.0, isl / chunk) * mixed.time_s
    power_w = board_power_w(hardware, mean) * config.parallelism.num_gpus
    rest_s = mean.time_s - max(mean.memory_s, mean.compute_s)
    times: dict[Literal["memory", "compute", "overhead"], float] = {
        "memory": mean.memory_s,
        "compute": mean.compute_s,
        "overhead": rest_s,
    }
    return Prediction(
        output_tokens_per_s=tokens_per_s,
        total_tokens_per_s=tokens_per_s * (isl + osl) / osl,
        ttft_s=waiting_s + decode.time_s / 2 + prefill_s,
        tpot_s=mean.time_s,
        power_w=power_w,
        output_tokens_per_joule=tokens_per_s / power_w,
        running=running,
        bound=max(times, key=lambda name: times[name]),
    )
